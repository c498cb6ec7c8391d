"""Display size and orientation of decoded frames."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """Rearrangement of pixels: first an optional swap of rows and columns, then reversals."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False
    degrees: int | None = None  # of a rotation that is no rearrangement and is not supported


class Display(NamedTuple):
    """Stored size of a frame, and its own orientation (None: that of the previous frame)."""

    height: int
    width: int
    orientation: Orientation | None

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width after rotation."""
        turned = self.orientation is not None and self.orientation.swapped
        return (self.width, self.height) if turned else (self.height, self.width)


def display_of(frame: VideoFrame) -> Display:
    """Reads the display settings stored in a frame."""
    return Display(frame.height, frame.width, orientation_of(frame))


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """Reads the orientation from the display matrix of a frame; None if it has none."""
    # A 3x3 int32 matrix (a b u / c d v / x y w) that maps a point (x, y) to (a x + c y, b x + d y): only the signs
    # matter, and whether a, d (upright) or b, c (sideways) are non-zero.
    data = _display_matrix(frame)
    if data is None:
        # If PyAV cannot read the matrix, it still knows the counter-clockwise angle.
        turns = {90: Orientation(True, True, False), 180: Orientation(False, True, True)}
        turns |= {-180: turns[180], -90: Orientation(True, False, True)}
        return turns.get(frame.rotation) if frame.rotation else None
    a, b, _, c, d = memoryview(data).cast("B").cast("i")[:5].tolist()
    if not any((a, b, c, d)):
        return Orientation()  # written by broken muxers; players ignore it too
    if b == c == 0 and a and d:
        return Orientation(False, d < 0, a < 0)
    if a == d == 0 and b and c:
        return Orientation(True, b < 0, c < 0)
    return Orientation(degrees=frame.rotation)


def _display_matrix(frame: VideoFrame) -> Any:
    from av.sidedata.sidedata import SideDataContainer

    try:
        return frame.side_data.get("DISPLAYMATRIX") if len(frame.side_data) else None
    except ValueError:  # PyAV has no name for some side data, such as EXIF
        readable: Any = SideDataContainer.__new__(SideDataContainer)
        with suppress(ValueError):
            readable.__init__(frame)  # keeps everything before the unnamed entry
        return readable.get("DISPLAYMATRIX")
