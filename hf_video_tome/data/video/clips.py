"""Sampling and decoding of clips in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ..sampling import ClipSampling
from .decoding import read_frames_between, read_frames_by_rank
from .timeline import TIME_TOLERANCE, Timeline
from .types import VideoSource, fail


@dataclass(frozen=True)
class VideoSegment:
    """Segment of an untrimmed video.

    Args:
        start: Start in seconds from the video's first frame, at least 0.
        stop: End in seconds from the video's first frame, above `start`, exclusive.

    Raises:
        TypeError: If a time is not a number.
        ValueError: If a time is invalid; the message names the field, the value and what is allowed.

    Examples:
        >>> VideoSegment(1.5, 4.0)
        VideoSegment(start=1.5, stop=4.0)
    """

    start: float
    stop: float

    def __post_init__(self) -> None:
        for name in ("start", "stop"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, got {value!r} ({type(value).__name__})")
        if not (math.isfinite(self.start) and self.start >= 0):
            raise ValueError(f"start must be finite and 0 or more (seconds), got {self.start}")
        if not (math.isfinite(self.stop) and self.stop > self.start):
            raise ValueError(f"stop must be finite and above start ({self.start} s), got {self.stop}")


def read_clips(
    source: VideoSource,
    sampling: ClipSampling,
    *,
    segment: VideoSegment | None = None,
    rng: np.random.Generator | None = None,
    pad: bool = True,
) -> torch.Tensor:
    """Reads all clips of a video in one pass.

    Without `target_fps`, stored frames are sampled. With it, the video is resampled to this constant rate first: its
    frame v is what a player shows v / `target_fps` seconds after the start, and it has
    `round(length * target_fps)` frames, at least 1. Clips of videos with any frame rate, constant or not, then have
    the same length in seconds.

    A segment consists of the frames with time stamps in [start, stop), or else the frame shown at its start. (Frames
    match times up to half a millisecond before them, as in `read_frames_at`.) Any part beyond the end of the video is
    ignored. Only the segment is read from mp4, mov, mkv and webm files, so truncation after it may go unnoticed.

    Args:
        source: Path, bytes or binary file object of a video, or folder of extracted frames (its path or a
            `FrameFolder`, which needs a frame rate for `segment` or `target_fps`).
        sampling: Sampling of clips and frames; `num_crops` is ignored.
        segment: The part of the video to take clips from; None for all of it.
        rng: Random generator, required by the strategy `"random"`.
        pad: Whether to repeat the last frame of a video or segment shorter than a clip, instead of raising an error.

    Returns:
        (num_clips, num_frames, 3, H, W) uint8 RGB frames, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read or is truncated, ends before the segment begins, lacks required
            times, or (without `pad`) has fewer frames than a clip spans.
        TypeError: If an argument has the wrong type, or `rng` is missing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(48, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> sampling = ClipSampling(num_frames=4, sampling_rate=2, strategy="center", num_clips=3)
        >>> read_clips(path, sampling).shape
        torch.Size([3, 4, 3, 32, 48])
        >>> read_clips(path, sampling, segment=VideoSegment(0.5, 1.0)).shape
        torch.Size([3, 4, 3, 32, 48])
    """
    if not isinstance(sampling, ClipSampling):
        raise TypeError(f"sampling must be a ClipSampling, got {sampling!r} ({type(sampling).__name__})")
    if segment is not None and not isinstance(segment, VideoSegment):
        raise TypeError(f"segment must be a VideoSegment or None, got {segment!r} ({type(segment).__name__})")

    before = rng.bit_generator.state if isinstance(rng, np.random.Generator) else {}

    def choose(name: str, count: int) -> list[int]:
        if before and rng is not None:
            rng.bit_generator.state = before  # sampling may be repeated with other frames
        if not pad:
            _check_long_enough(name, count, sampling, segment)
        return [index for clip in sampling.sample(count, rng) for index in clip]

    fps = sampling.target_fps
    if segment is None and fps is None:
        frames = read_frames_by_rank(source, choose, pad=pad)
    else:
        start, stop = (0.0, math.inf) if segment is None else (segment.start, segment.stop)

        def choose_between(timeline: Timeline) -> list[int]:
            _check_begins(timeline, start)
            if fps is not None:
                count = max(1, round((min(stop, timeline.end) - start) * fps))
                return timeline.shown_at(start + np.array(choose(timeline.name, count)) / fps).tolist()
            first, last = np.searchsorted(timeline.times, np.array([start, stop]) - TIME_TOLERANCE)
            if first == last:  # the frame shown at the start
                first, last = (shown := int(timeline.shown_at(np.array(start)))), shown + 1
            return [int(first) + index for index in choose(timeline.name, int(last - first))]

        frames = read_frames_between(source, start, stop, choose_between, pad=pad)
    return frames.reshape(sampling.num_clips, sampling.num_frames, *frames.shape[1:])


def _check_begins(timeline: Timeline, start: float) -> None:
    if start >= timeline.end and start > timeline.times[-1] + TIME_TOLERANCE:
        fail(
            timeline.name,
            f"ends at {timeline.end:.3f} s, before the segment, which begins at {start:.3f} s",
        )


def _check_long_enough(name: str, available: int, sampling: ClipSampling, segment: VideoSegment | None) -> None:
    if sampling.strategy == "uniform":
        needed = sampling.num_frames
    else:
        needed = (sampling.num_frames - 1) * sampling.sampling_rate + 1
    if available >= needed:
        return
    where = "" if segment is None else f" from {segment.start:.3f} to {segment.stop:.3f} s"
    rate = "" if sampling.target_fps is None else f" at {sampling.target_fps:g} per second"
    reason = f"has {available} frames{where}{rate}, but a clip spans {needed} (pad=True repeats the last frame)"
    fail(name, reason)
