"""Frames of video files, decoded with PyAV, and of folders of extracted frames.

A frame's index is its rank in presentation order, from 0: the k-th frame that a player would show. Its time is in
seconds from the first frame. A file that cannot be read is always an error with its reason, never a clip of something
else, so that whoever runs over a data set can report and count such files.
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
    """Looks at a video: number of frames, rate, length, size, codec.

    The first frame is decoded, so that a result means that the video can be read at all. Where the container does not
    say reliably how many frames it holds (webm, mkv, avi, ts), its packets are counted, without decoding them.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or folder of
            extracted frames (its path or a `FrameFolder`).

    Returns:
        The `VideoInfo`. The frames of a folder have a rate and a length only if the `FrameFolder` names the rate.

    Raises:
        VideoDecodingError: If it is not a readable video, or is cut short as far as can be told without decoding it.
        TypeError: If `source` is nothing that can be read.

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
            # The rate that mkv and webm announce is that of the encoder's clock, whatever the frames' times are.
            if duration and abs(count - fps * duration) > max(2.0, 0.02 * count):
                fps = count / duration
        return VideoInfo(count, fps, duration, width, height, codec_name(stream))


def read_frames(source: VideoSource, indices: Sequence[int], *, pad: bool = False) -> torch.Tensor:
    """Reads single frames of a video.

    Decodes only as far as the largest index. Starts at the nearest key frame before the smallest, and skips to a later
    one where wanted frames are far apart, wherever that gives the identical frames (mp4, mov, mkv and webm; the others
    are decoded from their start). The file's colour matrix and range are heeded; where it declares none they are
    BT.601 and limited, as FFmpeg has it. Rotation and mirroring that the file asks for are applied; a non-square pixel
    aspect is not.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or folder of
            extracted frames (its path or a `FrameFolder`).
        indices: Frame indices in presentation order, from 0, in any order, repeated as needed.
        pad: Repeat the last frame for indices beyond the end of the video, instead of an error. A file that is cut
            short or broken remains an error.

    Returns:
        (len(indices), 3, H, W) uint8 RGB frames in the order of `indices`, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read or (without `pad`) has too few frames.
        ValueError: If `indices` is empty or has a negative one.
        TypeError: If an index is not an integer or `source` is nothing that can be read.

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
    """Tells when every frame is shown.

    The times are those of the container, so those of a variable frame rate are right; all packets are read for them. A
    container without time stamps (a raw stream) is taken to have the constant rate that it announces.

    Args:
        source: Path, bytes, binary file object (read from its beginning; its position is restored), or `FrameFolder`
            with a frame rate.

    Returns:
        (num_frames,) float64: seconds from the first frame's time (so the first is 0.0), ascending. Entry k belongs to
        the frame that `read_frames` calls k.

    Raises:
        VideoDecodingError: If it is not a readable video, is cut short as far as can be told without decoding it, or
            has no time stamps and no frame rate.
        TypeError: If `source` is nothing that can be read.

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

    That is the last frame whose time stamp is not after the time, give or take half a millisecond, so that k / fps
    means frame k of a constant-rate video whatever the container's clock.

    Args:
        source: As for `frame_timestamps`.
        times: Seconds from the first frame, at least 0, in any order, repeated as needed.
        pad: Give the last frame for times at and after the end of the video, instead of an error.

    Returns:
        (len(times), 3, H, W) uint8 RGB frames in the order of `times`, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read, has no times, or (without `pad`) ends before a time.
        ValueError: If `times` is empty, or one is negative or not finite.
        TypeError: If a time is not a number or `source` is nothing that can be read.

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
    """Reads frames that are chosen once their number is known.

    Args:
        source: As for `read_frames`.
        choose: Gets the video's name, for messages, and its number of frames; returns frame indices.
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
    """Reads frames that are chosen once it is known when those of a part of the video are shown.

    Of mp4, mov, mkv and webm files only that part is read, from the key frame before it.

    Args:
        source: As for `frame_timestamps`.
        start: Where the part begins, in seconds from the first frame.
        stop: Where it ends; may be infinite.
        choose: Gets the timeline of the frames that are shown between and some before (or all, if need be); returns
            indices in it.
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
    """Reads what is chosen among the frames, again where the decoder turns out to give others than it seemed."""
    pixels = read(Frames(video))
    if pixels is None:
        pixels = read(Frames(video, as_packets=False))
    if pixels is None:
        raise RuntimeError("unreachable: the decoder was asked")
    return pixels


def _read_chosen(video: VideoFile, frames: Frames, wanted: list[int], pad: bool) -> torch.Tensor | None:
    """Reads frames by their indices; None if those were chosen among packets that are no frames."""
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
    """Decodes a video from its start; the wanted indices count from the frame with the time stamp `since`.

    Returns:
        The frames; None if the indices were `planned` with the packets, and the decoder gives other frames.
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
    """Gives the frames of a folder; None for everything else."""
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
