"""Presentation times of video frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .video_file import NO_TIME, Packets, VideoFile

# Seconds by which a time may precede a frame's time stamp and still mean that frame: container clocks are coarse
# (webm, mkv: 1 ms), so frame k at f frames per second may not be stamped exactly k / f.
TIME_TOLERANCE = 5.01e-4


@dataclass(frozen=True)
class Timeline:
    """Presentation times of a video or a stretch of it, in seconds from the video's first frame.

    Attributes:
        name: Name of the video in error messages.
        times: (number of frames,) float64, ascending: time stamps of the frames, at least one.
        end: End of the last frame; infinite if the video continues after the stretch.

    Examples:
        >>> timeline = Timeline("clip.mp4", np.array([0.0, 0.1, 0.5]), 0.6)
        >>> timeline.shown_at(np.array([0.0, 0.2, 0.5])).tolist()
        [0, 1, 2]
    """

    name: str
    times: np.ndarray
    end: float

    def shown_at(self, seconds: np.ndarray) -> np.ndarray:
        """Returns the index in `times` of the frame shown at each time.

        Args:
            seconds: Times from the video's first frame, of any shape.

        Returns:
            Integer indices of the same shape; the last index for times after the end, 0 for times before the stretch.
        """
        return np.maximum(np.searchsorted(self.times, seconds + TIME_TOLERANCE, side="right") - 1, 0)


class ShownFrames(NamedTuple):
    """Time stamps of frames, by the clocks of their parts of the file.

    Attributes:
        parts: (number of frames,) int64, ascending: number of clock restarts before the frame.
        stamps: (number of frames,) int64, ascending within each part: time stamps in ticks.
        durations: (number of frames,) int64: durations in ticks; 0 if unknown.
    """

    parts: np.ndarray
    stamps: np.ndarray
    durations: np.ndarray

    def in_order(self) -> ShownFrames:
        """Returns the frames sorted by presentation time."""
        order = np.lexsort((self.stamps, self.parts))
        return ShownFrames(*(values[order] for values in self))


def frames_of_packets(packets: Packets) -> ShownFrames | None:
    """Sorts packets, each treated as a frame, by presentation time; None if they have no times."""
    for stamps in (packets.pts, packets.dts):  # avi has only the latter, which count frames
        frames = ShownFrames(*(values[packets.shown] for values in (packets.parts, stamps, packets.durations)))
        if not np.any(frames.stamps == NO_TIME):
            return frames.in_order()
    return None


def timeline_of(video: VideoFile, frames: ShownFrames, origin: int | None = None) -> Timeline:
    """Builds the timeline of all or the last frames of a video.

    After a clock restart, frames continue after the previous ones.

    Args:
        video: The video; it must have a clock.
        frames: Its frames, in order.
        origin: Time stamp of the video's first frame; None if it is among them.
    """
    unit, begin = float(video.stream.time_base or 0), 0.0
    times: list[np.ndarray] = []
    starts = np.flatnonzero(np.diff(frames.parts)) + 1
    for ticks, durations in zip(np.split(frames.stamps, starts), np.split(frames.durations, starts), strict=True):
        if not times and origin is not None:
            begin = (int(ticks[0]) - origin) * unit
        times.append(begin + (ticks - ticks[0]) * unit)
        # Without a duration, the last frame lasts one frame period, or as long as the previous frame.
        length = float(durations[-1]) * unit or period(video)
        if not length and len(ticks) > 1:
            length = float(ticks[-1] - ticks[-2]) * unit
        begin = float(times[-1][-1]) + length
    return Timeline(video.name, np.concatenate(times), begin)


def period(video: VideoFile) -> float:
    """Returns the seconds between frames; 0.0 if the rate is unknown."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    return 1 / float(rate) if rate else 0.0
