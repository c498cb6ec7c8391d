"""When the frames of a video are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .video_file import VideoFile, announced_frames, check_complete, check_file_size, fail

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


def count_frames(video: VideoFile) -> int:
    """Counts the visible frames, by the index of an mp4, else by reading all packets; raises if the file is cut."""
    announced = announced_frames(video) if video.index is not None else None
    if announced is not None:
        check_file_size(video)
        return announced or fail(video.name, "no frame can be decoded")
    check_complete(video, video.scan.progress)
    return sum(video.scan.shown) or fail(video.name, "no frame can be decoded")


def whole_timeline(video: VideoFile) -> Timeline:
    """Finds out when all frames are shown, by reading all packets; raises if the file is cut or that is not known."""
    if announced_frames(video) is not None:
        check_file_size(video)
    packets = video.scan
    check_complete(video, packets.progress)
    shown = np.flatnonzero(packets.shown)
    if not len(shown):
        fail(video.name, "no frame can be decoded")
    for stamps in (packets.pts, packets.dts):  # avi has only the latter, which then count frames
        frames = [(stamp, packets.durations[place]) for place in shown if (stamp := stamps[place]) is not None]
        if len(frames) == len(shown) and video.stream.time_base:
            return timeline_of(video, frames)
    period = _period(video)
    if not period:
        fail(video.name, "has neither time stamps nor a frame rate, so that no time can be looked up")
    return Timeline(video.name, np.arange(len(shown)) * period, len(shown) * period)


def timeline_of(video: VideoFile, frames: list[tuple[int, int]], origin: int | None = None) -> Timeline:
    """Makes the timeline of the last frames of a video, or of all.

    Args:
        video: The video, which has a clock.
        frames: Time stamp and duration (0 if not known) of each, in ticks, in any order.
        origin: Time stamp of the video's first frame; None if it is among them.
    """
    unit = float(video.stream.time_base or 0)
    ticks, durations = np.array(sorted(frames), dtype=np.int64).T
    times = (ticks - (ticks[0] if origin is None else origin)) * unit
    # Without a duration the last frame lasts as long as any, or as the one before.
    length = durations[-1] * unit or _period(video) or (float(times[-1] - times[-2]) if len(times) > 1 else 0.0)
    return Timeline(video.name, times, float(times[-1]) + length)


def _period(video: VideoFile) -> float:
    """Gives the seconds between frames; 0.0 if no rate is known."""
    rate = video.stream.average_rate or video.stream.guessed_rate
    return 1 / float(rate) if rate else 0.0
