"""Decoded frames as RGB tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from .video_file import fail

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass
class FrameCollector:
    """The wanted frames, as far as they have been seen."""

    name: str  # of the video
    wanted: list[int]
    seen: int = 0
    last: VideoFrame | None = None
    _slots: dict[int, list[int]] = field(init=False)
    _out: torch.Tensor | None = field(init=False, default=None)
    _reformatter: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._slots = {}
        for slot, index in enumerate(self.wanted):
            self._slots.setdefault(index, []).append(slot)

    def add(self, index: int, frame: VideoFrame) -> bool:
        """Takes the frame in if it is wanted; says if it was the last one that is."""
        self.seen, self.last = index + 1, frame
        slots = self._slots.pop(index, None)
        if slots is not None:
            self._store(slots, frame)
        return not self._slots

    @property
    def first_missing(self) -> int:
        """The smallest index that was wanted and not seen."""
        return min(self._slots)

    def padded(self) -> torch.Tensor:
        """Fills what is missing with the last frame seen."""
        if self.last is not None:
            self._store([slot for slots in self._slots.values() for slot in slots], self.last)
            self._slots = {}
        return self.result()

    def result(self) -> torch.Tensor:
        """Returns (len(wanted), 3, H, W) uint8, once all of them were seen."""
        if self._out is None or self._slots:
            raise RuntimeError("unreachable: the clip is not complete")
        return self._out

    def _store(self, slots: list[int], frame: VideoFrame) -> None:
        pixels = self._to_rgb(frame).permute(2, 0, 1)
        if self._out is None:
            self._out = torch.empty((len(self.wanted), *pixels.shape), dtype=torch.uint8)
        elif self._out.shape[1:] != pixels.shape:
            before, after = self._out.shape[-2:], pixels.shape[-2:]
            fail(
                self.name,
                f"the frame size changes within the video, from {before[0]}x{before[1]} to {after[0]}x{after[1]}",
            )
        for slot in slots:
            self._out[slot] = pixels

    def _to_rgb(self, frame: VideoFrame) -> torch.Tensor:
        """Gives the frame as it is shown: (H, W, 3) uint8 RGB, by the colour space and the range of the file."""
        from av.video.reformatter import VideoReformatter

        if self._reformatter is None:
            self._reformatter = VideoReformatter()
        try:
            converted = self._reformatter.reformat(frame, format="rgb24", threads=1)  # one, as for the decoder
        except TypeError:  # an older PyAV, which has no threads here
            converted = self._reformatter.reformat(frame, format="rgb24")
        pixels = torch.from_numpy(converted.to_ndarray())
        turned, flipped_rows, flipped_columns = display_matrix(self.name, frame)
        if turned:
            pixels = pixels.transpose(0, 1)
        axes = [axis for axis, flipped in enumerate((flipped_rows, flipped_columns)) if flipped]
        return pixels.flip(axes) if axes else pixels


def display_matrix(name: str, frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Reads how a frame is to be shown: whether rows and columns swap, then whether rows and columns are reversed."""
    # A matrix of 3x3 int32 (a b u / c d v / x y w) that maps a point (x, y) to (a x + c y, b x + d y): of interest are
    # the signs, and which of a, d (upright) and b, c (on its side) are not zero.
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d = memoryview(cast(Any, data)).cast("B").cast("i")[:5].tolist()
    if not any((a, b, c, d)):
        return False, False, False  # written by broken muxers; players ignore it too
    if b == c == 0 and a and d:
        return False, d < 0, a < 0
    if a == d == 0 and b and c:
        return True, b < 0, c < 0
    fail(name, f"asks to be shown turned by {frame.rotation} degrees; only multiples of 90 can be read")
