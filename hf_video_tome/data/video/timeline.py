"""When the frames of a video are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .video_file import NO_TIME, Packets, VideoFile

# Seconds by which a time may lie before a frame's time stamp and still mean that frame: the clocks of containers are
# coarse (webm, mkv: 1 ms), so that frame k of f per second need not be stamped k / f exactly.
TIME_TOLERANCE = 5.01e-4


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video, or of a stretch of it, are shown, in seconds from the video's first frame.

    Attributes:
        name: The video, as error messages call it.
        times: (number of frames,) float64, ascending: the time stamp of every frame, of one at least.
        end: When the last of them stops being shown; infinite if the video goes on after the stretch.

    Examples:
        >>> timeline = Timeline("clip.mp4", np.array([0.0, 0.1, 0.5]), 0.6)
        >>> timeline.shown_at(np.array([0.0, 0.2, 0.5])).tolist()
        [0, 1, 2]
    """

    name: str
    times: np.ndarray
    end: float

    def shown_at(self, seconds: np.ndarray) -> np.ndarray:
        """Gives the index, in `times`, of the frame that is shown at each time.

        Args:
            seconds: Times from the video's first frame, of any shape.

        Returns:
            Integer indices of the same shape; the last one for times after the end, 0 for times before the stretch.
        """
        return np.maximum(np.searchsorted(self.times, seconds + TIME_TOLERANCE, side="right") - 1, 0)


class ShownFrames(NamedTuple):
    """When frames are shown, by the clocks of their parts of the file.

    Attributes:
        parts: (number of frames,) int64, ascending: number of times that the clock started again.
        stamps: (number of frames,) int64, ascending within each part: time stamps in ticks.
        durations: (number of frames,) int64: in ticks; 0 if not known.
    """

    parts: np.ndarray
    stamps: np.ndarray
    durations: np.ndarray

    def in_order(self) -> ShownFrames:
        """Returns them sorted by when they are shown."""
        order = np.lexsort((self.stamps, self.parts))
        return ShownFrames(*(values[order] for values in self))


def frames_of_packets(packets: Packets) -> ShownFrames | None:
    """Sorts packets, each taken for a frame, by when they are shown; None where they have no times."""
    for stamps in (packets.pts, packets.dts):  # avi has only the latter, which then count frames
        frames = ShownFrames(*(values[packets.shown] for values in (packets.parts, stamps, packets.durations)))
        if not np.any(frames.stamps == NO_TIME):
            return frames.in_order()
    return None


def timeline_of(video: VideoFile, frames: ShownFrames, origin: int | None = None) -> Timeline:
    """Makes the timeline of the last frames of a video, or of all.

    Where the clock starts again, what follows is shown after what came before.

    Args:
        video: The video, which has a clock.
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
        # Without a duration the last frame lasts as long as any, or as the one before.
        length = float(durations[-1]) * unit or period(video)
        if not length and len(ticks) > 1:
            length = float(ticks[-1] - ticks[-2]) * unit
        begin = float(times[-1][-1]) + length
    return Timeline(video.name, np.concatenate(times), begin)


def period(video: VideoFile) -> float:
    """Gives the seconds between frames; 0.0 if no rate is known."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    return 1 / float(rate) if rate else 0.0
