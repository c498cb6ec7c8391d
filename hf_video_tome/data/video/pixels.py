"""Conversion of decoded frames to RGB tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from .display import Display, Orientation, display_of, orientation_of
from .types import fail, why

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

# FFmpeg's code for "unspecified".
_UNSPECIFIED_MATRIX = 2


@dataclass
class FrameCollector:
    """Collector of requested frames, all resized to the display size of the video's first frame.

    Args:
        name: The video, for messages.
        wanted: Indices of the frames.
        first: The first frame of the video; None if it is the first one added.
    """

    name: str
    wanted: list[int]
    first: Display | None = None
    last: VideoFrame | None = None
    _orientation: Orientation = field(init=False, default_factory=Orientation)
    _slots: dict[int, list[int]] = field(init=False)
    _out: torch.Tensor | None = field(init=False, default=None)
    _reformatter: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._slots = {}
        for slot, index in enumerate(self.wanted):
            self._slots.setdefault(index, []).append(slot)

    def can_begin_with(self, orientation: Orientation | None) -> bool:
        """Returns whether the orientation of a frame with skipped predecessors is known."""
        if orientation is None:
            self._orientation = Orientation()
        return orientation is not None or self.first is None or self.first.orientation is None

    def add(self, index: int, frame: VideoFrame) -> bool:
        """Adds the next frame, requested or not; returns whether all requested frames are complete."""
        self.last = frame
        if self.first is None:
            self.first = display_of(frame)
        if self.first.orientation is None and frame.key_frame:
            # If a video is not rotated from its beginning, a rotation ends with its group at the latest, as in H.264
            # and HEVC: otherwise decoding could not begin later.
            self._orientation = Orientation()
        self._orientation = orientation_of(frame) or self._orientation
        slots = self._slots.pop(index, None)
        if slots is not None:
            self._store(slots, frame)
        return not self._slots

    @property
    def first_missing(self) -> int:
        """The smallest requested index not yet added."""
        return min(self._slots)

    def padded(self) -> torch.Tensor:
        """Returns the frames, with the last added frame in place of missing ones."""
        if self.last is not None:
            self._store([slot for slots in self._slots.values() for slot in slots], self.last)
            self._slots = {}
        return self.result()

    def result(self) -> torch.Tensor:
        """Returns the complete frames, (len(wanted), 3, H, W) uint8."""
        if self._out is None or self._slots:
            raise RuntimeError("unreachable: the clip is not complete")
        return self._out

    def _store(self, slots: list[int], frame: VideoFrame) -> None:
        if self.first is None:
            raise RuntimeError("unreachable: no frame was added")
        size, turn = self.first.shown_size, self._orientation
        if turn.degrees is not None:
            fail(self.name, f"asks to be shown turned by {turn.degrees} degrees; only multiples of 90 can be read")
        stored = size[::-1] if turn.swapped else size
        try:
            pixels = torch.from_numpy(self._to_rgb(frame, *stored))
        except Exception as error:  # PyAV raises many kinds
            fail(self.name, f"a frame cannot be converted to RGB ({why(error)})")
        if turn.swapped:
            pixels = pixels.transpose(0, 1)
        axes = [axis for axis, flipped in enumerate((turn.rows_reversed, turn.columns_reversed)) if flipped]
        pixels = (pixels.flip(axes) if axes else pixels).permute(2, 0, 1)
        if self._out is None:
            self._out = torch.empty((len(self.wanted), *pixels.shape), dtype=torch.uint8)
        for slot in slots:
            self._out[slot] = pixels

    def _to_rgb(self, frame: VideoFrame, height: int, width: int) -> Any:
        """Converts a frame to (height, width, 3) uint8 RGB, using the colour space and range of the file."""
        from av.video.reformatter import VideoReformatter

        if self._reformatter is None:
            self._reformatter = VideoReformatter()

        def convert() -> Any:
            try:
                return self._reformatter.reformat(frame, width, height, "rgb24", threads=1)  # like the decoder
            except TypeError:  # an older PyAV, without this argument
                return self._reformatter.reformat(frame, width, height, "rgb24")

        try:
            return convert().to_ndarray()
        except OSError:
            # FFmpeg cannot convert from some matrices, such as YCgCo, or from invalid codes: like players, treat them
            # as unspecified.
            frame.colorspace = _UNSPECIFIED_MATRIX
            return convert().to_ndarray()
