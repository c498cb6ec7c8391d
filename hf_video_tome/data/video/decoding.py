"""Frames of video files, decoded with PyAV, and of folders of extracted frames.

A frame's index is its position in presentation order, from 0: the k-th frame that a player would show. Its time is in
seconds from the first frame. An unreadable file always raises an error with its reason, never a wrong clip, so that
runs over a dataset can report and count such files.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
import torch

from .frame_files import FrameFiles, listed_frames, numbered_frames
from .frame_folder import FrameFolder
from .frames import Frames
from .pixels import FrameCollector
from .seeking import find_stretch, is_sparse, read_by_rank, read_from_stretch
from .timeline import TIME_TOLERANCE, Timeline
from .types import VideoInfo, VideoSource, fail
from .video_file import Progress, VideoFile, codec_name, cut_reason, decode_frames, is_cut, open_video


def probe_video(source: VideoSource) -> VideoInfo:
    """Returns the number of frames, rate, length, size and codec of a video.

    The first frame is decoded to check that the video is readable. If the container does not reliably store the number
    of frames (webm, mkv, avi, ts), its packets are counted without decoding them.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or folder of
            extracted frames (its path or a `FrameFolder`).

    Returns:
        The `VideoInfo`. A folder has a rate and a length only if the `FrameFolder` gives the rate.

    Raises:
        VideoDecodingError: If it is not a readable video, or is truncated as far as visible without decoding it.
        TypeError: If `source` has an unsupported type.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> info = probe_video(path)
        >>> info.num_frames, info.fps, info.width, info.height
        (12, 24.0, 48, 32)
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.probe()
    with open_video(source) as video:
        frames = Frames(video)
        count, first, stream = frames.count(), frames.first(), video.stream
        height, width = first.shown_size
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        if video.index is not None and stream.duration and stream.time_base and frames.keys() is not None:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = frames.duration()
            # The rate announced by mkv and webm is that of the encoder's clock, independent of the frames' times.
            if duration and abs(count - fps * duration) > max(2.0, 0.02 * count):
                fps = count / duration
        return VideoInfo(count, fps, duration, width, height, codec_name(stream))


def read_frames(source: VideoSource, indices: Sequence[int], *, pad: bool = False) -> torch.Tensor:
    """Reads frames of a video by index.

    Decodes up to the largest index, from the last key frame before the smallest one, and seeks between distant frames
    if that gives identical frames (mp4, mov, mkv and webm; other formats are decoded from their start). Uses the
    file's colour matrix and range, or FFmpeg's defaults (BT.601, limited). Applies the file's rotation and mirroring,
    but not a non-square pixel aspect ratio.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or folder of
            extracted frames (its path or a `FrameFolder`).
        indices: Frame indices in presentation order, from 0; in any order, with repetitions.
        pad: Whether to repeat the last frame for indices beyond the end of the video, instead of raising an error. A
            truncated or broken file is always an error.

    Returns:
        (len(indices), 3, H, W) uint8 RGB frames in the order of `indices`, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read or (without `pad`) has too few frames.
        ValueError: If `indices` is empty or contains a negative index.
        TypeError: If an index is not an integer or `source` has an unsupported type.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> read_frames(path, [0, 4, 8, 11]).shape
        torch.Size([4, 3, 32, 48])
        >>> read_frames(path, [10, 11, 12], pad=True).shape  # without `pad`: VideoDecodingError, "has 12 frames ..."
        torch.Size([3, 3, 32, 48])
    """
    wanted = _check_indices(indices)
    folder = _as_folder(source)
    if folder is not None:
        return folder.read(wanted, pad)
    with open_video(source) as video:
        keys = Frames(video).keys() if is_sparse(wanted) else None
        frames = None if keys is None else read_by_rank(video, keys, wanted)
        return _read_from_start(video, wanted, pad) if frames is None else frames


def frame_timestamps(source: VideoSource) -> np.ndarray:
    """Returns the presentation time of every frame.

    Times come from the container, so they are correct for variable frame rates; this reads all packets. A container
    without time stamps (a raw stream) is assumed to have its announced constant rate.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or `FrameFolder`
            with a frame rate.

    Returns:
        (num_frames,) float64: ascending seconds from the first frame (so the first is 0.0), indexed as in
        `read_frames`.

    Raises:
        VideoDecodingError: If it is not a readable video, is truncated as far as visible without decoding it, or has
            neither time stamps nor a frame rate.
        TypeError: If `source` has an unsupported type.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(4, 32, 48, 3, dtype=torch.uint8), fps=8)
        >>> frame_timestamps(path).tolist()
        [0.0, 0.125, 0.25, 0.375]
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.timeline().times
    with open_video(source) as video:
        return Frames(video).timeline().times


def read_frames_at(source: VideoSource, times: Sequence[float], *, pad: bool = False) -> torch.Tensor:
    """Reads the frames that a player would show at given times.

    That is the last frame with a time stamp at or before the time, within half a millisecond, so that k / fps means
    frame k of a constant-rate video, whatever the container's clock.

    Args:
        source: As for `frame_timestamps`.
        times: Seconds from the first frame, at least 0; in any order, with repetitions.
        pad: Whether to return the last frame for times at or after the end of the video, instead of raising an error.

    Returns:
        (len(times), 3, H, W) uint8 RGB frames in the order of `times`, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read, has no times, or (without `pad`) ends before a time.
        ValueError: If `times` is empty, or one is negative or not finite.
        TypeError: If a time is not a number or `source` has an unsupported type.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> read_frames_at(path, [0.0, 0.25, 0.49]).shape
        torch.Size([3, 3, 32, 48])
    """
    seconds = _check_times(times)

    def choose(timeline: Timeline) -> list[int]:
        late = seconds[(seconds >= timeline.end) & (seconds > timeline.times[-1] + TIME_TOLERANCE)]
        if late.size and not pad:
            fail(
                timeline.name,
                f"ends at {timeline.end:.3f} s, but the frame at {late.min():.3f} s was wanted "
                "(pad=True gives the last frame)",
            )
        return [int(index) for index in timeline.shown_at(seconds)]

    return read_frames_between(source, float(seconds.min()), float(seconds.max()), choose, pad=pad)


def read_frames_by_rank(
    source: VideoSource, choose: Callable[[str, int], Sequence[int]], *, pad: bool = False
) -> torch.Tensor:
    """Reads frames chosen by the number of frames.

    Args:
        source: As for `read_frames`.
        choose: Function of the video's name (for messages) and its number of frames that returns frame indices.
        pad: As for `read_frames`.

    Returns:
        (number of indices, 3, H, W) uint8 RGB frames in the order of the indices, on the CPU.
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.read(_check_indices(choose(folder.name, folder.count())), pad)
    with open_video(source) as video:

        def read(frames: Frames) -> torch.Tensor | None:
            wanted = _check_indices(choose(video.name, frames.count()))
            return _read_chosen(video, frames, wanted, pad)

        return _read_as_decoded(video, read)


def read_frames_between(
    source: VideoSource,
    start: float,
    stop: float,
    choose: Callable[[Timeline], Sequence[int]],
    *,
    pad: bool = False,
) -> torch.Tensor:
    """Reads frames chosen by the timeline of a part of the video.

    Only that part is read from mp4, mov, mkv and webm files, from the key frame before it.

    Args:
        source: As for `frame_timestamps`.
        start: Start of the part, in seconds from the first frame.
        stop: End of the part; may be infinite.
        choose: Function of the timeline of the part, with some frames before it (or of all frames if necessary), that
            returns indices in the timeline.
        pad: As for `read_frames`.

    Returns:
        (number of indices, 3, H, W) uint8 RGB frames in the order of the indices, on the CPU.
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.read(_check_indices(choose(folder.timeline())), pad)
    with open_video(source) as video:
        found = find_stretch(video, start, stop)
        if found is not None:
            timeline, stretch = found
            wanted = _check_indices(choose(timeline))
            pixels = read_from_stretch(video, stretch, wanted)
            if pixels is None:
                pixels = _read_from_start(video, wanted, pad, planned=True, since=int(stretch.stamps[0]))
            if pixels is not None:
                return pixels

        def read(frames: Frames) -> torch.Tensor | None:
            return _read_chosen(video, frames, _check_indices(choose(frames.timeline())), pad)

        return _read_as_decoded(video, read)


def _read_as_decoded(video: VideoFile, read: Callable[[Frames], torch.Tensor | None]) -> torch.Tensor:
    """Reads chosen frames, and again if the decoder gives other frames than expected."""
    pixels = read(Frames(video))
    if pixels is None:
        pixels = read(Frames(video, as_packets=False))
    if pixels is None:
        raise RuntimeError("unreachable: the decoder was asked")
    return pixels


def _read_chosen(video: VideoFile, frames: Frames, wanted: list[int], pad: bool) -> torch.Tensor | None:
    """Reads frames by index; None if the indices counted packets that are not frames."""
    keys = frames.keys() if is_sparse(wanted) else None
    pixels = None if keys is None else read_by_rank(video, keys, wanted)
    return _read_from_start(video, wanted, pad, planned=bool(frames.as_packets)) if pixels is None else pixels


@overload
def _read_from_start(video: VideoFile, wanted: list[int], pad: bool) -> torch.Tensor: ...
@overload
def _read_from_start(
    video: VideoFile, wanted: list[int], pad: bool, *, planned: bool, since: int | None = None
) -> torch.Tensor | None: ...
def _read_from_start(
    video: VideoFile, wanted: list[int], pad: bool, *, planned: bool = False, since: int | None = None
) -> torch.Tensor | None:
    """Decodes a video from its start; the requested indices count from the frame with the time stamp `since`.

    Returns:
        The frames; None if the indices were `planned` by packets, but the decoder gives other frames.
    """
    video.restart()
    progress, clip = Progress(), FrameCollector(video.name, wanted)
    before = count = 0
    for frame in decode_frames(video, progress):
        count += 1
        if planned and not (progress.as_packets and (since is None or progress.part == 0)):
            return None
        if since is not None and (frame.pts is None or frame.pts < since):
            before += 1
            clip.add(-1, frame)
        elif clip.add(count - 1 - before, frame):
            return clip.result()
    missing = before + clip.first_missing
    if is_cut(video, progress):
        fail(video.name, f"{cut_reason(video, progress, count)}, and frame {missing} was wanted")
    if planned and not progress.as_packets:
        return None
    if clip.last is None:
        fail(video.name, "no frame can be decoded")
    if not pad:
        fail(
            video.name,
            f"has {count} frames (0 to {count - 1}), but frame {missing} was wanted (pad=True repeats the last frame)",
        )
    return clip.padded()


def _as_folder(source: VideoSource) -> FrameFiles | None:
    """Returns the frames of a folder; None for any other source."""
    if isinstance(source, FrameFolder):
        return numbered_frames(source)
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return listed_frames(source)
    return None


def _check_indices(indices: Sequence[int]) -> list[int]:
    wanted = []
    for index in indices:
        if isinstance(index, bool):
            raise TypeError(f"indices must hold integers, got {index!r}")
        try:
            wanted.append(operator.index(index))
        except TypeError:
            raise TypeError(f"indices must hold integers, got {index!r} ({type(index).__name__})") from None
    if not wanted:
        raise ValueError("indices must name at least one frame, got none")
    if min(wanted) < 0:
        raise ValueError(f"indices must be 0 or more, got {min(wanted)}")
    return wanted


def _check_times(times: Sequence[float]) -> np.ndarray:
    seconds = []
    for time in times:
        if isinstance(time, (bool, np.bool_)):
            raise TypeError(f"times must hold numbers of seconds, got {time!r}")
        try:
            second = float(time)
        except (TypeError, ValueError):
            raise TypeError(f"times must hold numbers of seconds, got {time!r} ({type(time).__name__})") from None
        if not math.isfinite(second) or second < 0:
            raise ValueError(f"times must be finite and 0 or more (seconds), got {second}")
        seconds.append(second)
    if not seconds:
        raise ValueError("times must name at least one time, got none")
    return np.array(seconds)
