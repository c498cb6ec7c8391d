"""How a decoded frame is to be shown: its size, and the way that it is turned and mirrored."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class Orientation(NamedTuple):
    """How pixels are to be rearranged: first whether rows and columns swap, then which of them are reversed."""

    swapped: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False
    degrees: int | None = None  # of a turn that no rearrangement gives, and that is not read


class Display(NamedTuple):
    """The stored size of a frame, and the orientation that it asks for itself (None: that of the frame before)."""

    height: int
    width: int
    orientation: Orientation | None

    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width after turning."""
        turned = self.orientation is not None and self.orientation.swapped
        return (self.width, self.height) if turned else (self.height, self.width)


def display_of(frame: VideoFrame) -> Display:
    """Reads what a frame itself says of how it is to be shown."""
    return Display(frame.height, frame.width, orientation_of(frame))


def orientation_of(frame: VideoFrame) -> Orientation | None:
    """Reads the display matrix of a frame; None where it has none."""
    # A matrix of 3x3 int32 (a b u / c d v / x y w) that maps a point (x, y) to (a x + c y, b x + d y): of interest are
    # the signs, and which of a, d (upright) and b, c (on its side) are not zero.
    data = _display_matrix(frame)
    if data is None:
        # Where PyAV cannot give the matrix it still knows the angle, counter-clockwise.
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
    except ValueError:  # PyAV has no name for some of the side data, such as that of EXIF
        readable: Any = SideDataContainer.__new__(SideDataContainer)
        with suppress(ValueError):
            readable.__init__(frame)  # it keeps what came before the one without a name
        return readable.get("DISPLAYMATRIX")
