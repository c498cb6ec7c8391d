"""Frames of video files, decoded with PyAV, and of folders of extracted frames.

A frame's index is its rank in presentation order, from 0: the k-th frame that a player would show. Its time is in
seconds from the first frame. A file that cannot be read is always an error with its reason, never a clip of something
else, so that whoever runs over a data set can report and count such files.
"""

from __future__ import annotations

import io
import math
import operator
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias, Union, cast

import numpy as np
import torch

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from .frame_folder import FrameFiles, FrameFolder

# A path may be that of a folder of extracted frames.
VideoSource: TypeAlias = Union[str, os.PathLike[str], bytes, bytearray, BinaryIO, "FrameFolder"]

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
# Where a packet is a frame and its time stamps are trustworthy; anything else is decoded from its start, always right.
_SEEKABLE_FORMATS = (_MOV, _MATROSKA)
_SEEKABLE_CODECS = ("h264", "hevc", "mpeg4", "vp9", "av1")
# To decode fewer unwanted frames than this costs less than to look for a key frame after them.
_MIN_SKIPPED = 16
# Seconds by which a time may lie before a frame's time stamp and still mean that frame: the clocks of containers are
# coarse (webm, mkv: 1 ms), so that frame k of f per second need not be stamped k / f exactly.
TIME_TOLERANCE = 5.01e-4


class VideoDecodingError(ValueError):
    """A video cannot be read, or not as far as asked; the message names the video and the reason.

    Attributes:
        source: The video: its path, or a description where there is none.
        reason: What is wrong with it, without the name, for counting reasons over a data set.

    Examples:
        >>> try:
        ...     probe_video("missing.mp4")
        ... except VideoDecodingError as error:
        ...     print(error)
        missing.mp4: no such file
    """

    # Takes the finished message as its only required argument: that is how data loader workers re-raise it.
    def __init__(self, message: str, source: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video without decoding all of it.

    Attributes:
        num_frames: Number of frames.
        fps: Average frames per second; 0.0 where the container has no timing.
        duration: Length in seconds; 0.0 where the container has no timing.
        width: Width in pixels as shown, that is after rotation.
        height: Height in pixels as shown.
        codec: FFmpeg's name of the codec, as in "h264", "vp9", "mpeg4".
    """

    num_frames: int
    fps: float
    duration: float
    width: int
    height: int
    codec: str


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
        >>> from hf_video_tome.data.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> info = probe_video(path)
        >>> info.num_frames, info.fps, info.width, info.height
        (12, 24.0, 48, 32)
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.probe()
    with _open(source) as video:
        announced = _announced_frames(video)
        progress = _Progress()
        first: VideoFrame | None = None
        for packet in _packets(video, progress):
            if first is None:
                first = next(iter(_decode_packet(video, packet, progress)), None)
            if first is not None and announced is not None:
                break
        if first is None:
            first = next(iter(_decode_packet(video, None, progress)), None)
        if first is None:
            _fail(video.name, _cut_reason(progress, 0, announced) if progress.broken else "no frame can be decoded")
        if announced is None:
            _check_complete(video, progress)
            announced = progress.packets
        else:
            _check_file_size(video)

        stream = video.stream
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        elif progress.end > progress.begin and progress.packets == announced:
            duration = progress.end - progress.begin
            # The rate that mkv and webm announce is that of the encoder's clock, whatever the frames' times are.
            if abs(announced - fps * duration) > max(2.0, 0.02 * announced):
                fps = announced / duration
        else:
            duration = announced / fps if fps else 0.0
        turned = _display_matrix(video, first)[0]
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        return VideoInfo(announced, fps, duration, width, height, _codec_name(stream))


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
        >>> from hf_video_tome.data.encoding import write_video
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
    return _read(source, lambda video: wanted, pad)


def frame_timestamps(source: VideoSource) -> np.ndarray:
    """Tells when every frame is shown, without decoding any.

    The times are those of the container, so those of a variable frame rate are right. An mp4 is asked for its index
    alone; of other containers, all packets are read. A container without time stamps (a raw stream) is taken to have
    the constant rate that it announces.

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
        >>> from hf_video_tome.data.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(4, 32, 48, 3, dtype=torch.uint8), fps=8)
        >>> frame_timestamps(path).tolist()
        [0.0, 0.125, 0.25, 0.375]
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.timeline().times
    with _open(source) as video:
        return _timeline(video).times


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
        >>> from hf_video_tome.data.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> read_frames_at(path, [0.0, 0.25, 0.49]).shape
        torch.Size([3, 3, 32, 48])
    """
    seconds = _check_times(times)

    def choose(timeline: Timeline) -> list[int]:
        late = seconds[(seconds >= timeline.end) & (seconds > timeline.times[-1] + TIME_TOLERANCE)]
        if late.size and not pad:
            _fail(
                timeline.name,
                f"ends at {timeline.end:.3f} s, but the frame at {late.min():.3f} s was wanted "
                "(pad=True gives the last frame)",
            )
        return [int(index) for index in timeline.shown_at(seconds)]

    return read_chosen_frames(source, choose, pad=pad)


@dataclass(frozen=True)
class Timeline:
    """How many frames a video has and when each is shown, in seconds from the first.

    Attributes:
        name: The video, as error messages call it.
        num_frames: Number of frames, at least 1.

    Examples:
        >>> timeline = Timeline("clip.mp4", 3, (np.array([0.0, 0.1, 0.5]), 0.6))
        >>> timeline.shown_at(np.array([0.0, 0.2, 0.5])).tolist(), timeline.end
        ([0, 1, 2], 0.6)
    """

    name: str
    num_frames: int
    _clock: tuple[np.ndarray, float] | None
    _why_untimed: str = "has neither time stamps nor a frame rate, so that no time can be looked up"

    @property
    def times(self) -> np.ndarray:
        """(num_frames,) float64, ascending from 0.0: the time stamp of every frame.

        Raises:
            VideoDecodingError: If the frames have no times.
        """
        return self._timed()[0]

    @property
    def end(self) -> float:
        """When the last frame stops being shown.

        Raises:
            VideoDecodingError: If the frames have no times.
        """
        return self._timed()[1]

    def shown_at(self, seconds: np.ndarray) -> np.ndarray:
        """Gives the index of the frame that is shown at each time; the last frame after the end.

        Args:
            seconds: Times from the first frame, at least 0, of any shape.

        Returns:
            Integer indices in [0, num_frames) of the same shape.

        Raises:
            VideoDecodingError: If the frames have no times.
        """
        return np.maximum(np.searchsorted(self.times, seconds + TIME_TOLERANCE, side="right") - 1, 0)

    def _timed(self) -> tuple[np.ndarray, float]:
        if self._clock is None:
            _fail(self.name, self._why_untimed)
        return self._clock


def read_chosen_frames(
    source: VideoSource, choose: Callable[[Timeline], Sequence[int]], *, pad: bool = False
) -> torch.Tensor:
    """Reads the frames that a function chooses once it knows how many there are and when they are shown.

    As `frame_timestamps` followed by `read_frames`, but a file is opened only once where its index tells all that
    (mp4, mov).

    Args:
        source: As for `read_frames`.
        choose: Gets the `Timeline` and returns frame indices, as for `read_frames`.
        pad: As for `read_frames`.

    Returns:
        (number of indices, 3, H, W) uint8 RGB frames in the order of the indices, on the CPU.

    Raises:
        VideoDecodingError: If the video cannot be read, is cut short as far as can be told, or (without `pad`) has too
            few frames.
        ValueError: If `choose` returns no index or a negative one.
        TypeError: If an index is not an integer or `source` is nothing that can be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hf_video_tome.data.encoding import write_video
        >>> path = Path(tempfile.mkdtemp()) / "clip.mp4"
        >>> _ = write_video(path, torch.zeros(12, 32, 48, 3, dtype=torch.uint8), fps=24)
        >>> read_chosen_frames(path, lambda timeline: [0, timeline.num_frames - 1]).shape
        torch.Size([2, 3, 32, 48])
    """
    folder = _as_folder(source)
    if folder is not None:
        return folder.read(_check_indices(choose(folder.timeline())), pad)
    return _read(source, lambda video: _check_indices(choose(_timeline(video))), pad)


def _read(source: VideoSource, choose: Callable[[_Video], list[int]], pad: bool) -> torch.Tensor:
    """Reads the frames that `choose` names, by seeking where that is worth it, else from the start."""
    with _open(source) as video:
        wanted = choose(video)
        if _is_sparse(wanted):
            frames = _read_after_seek(video, wanted)
            if frames is not None:
                return frames
        if video.untouched:
            return _read_from_start(video, wanted, pad)
    with _open(source) as video:
        return _read_from_start(video, wanted, pad)


def _read_from_start(video: _Video, wanted: list[int], pad: bool) -> torch.Tensor:
    progress = _Progress()
    clip = _Clip(video, wanted)
    for index, frame in enumerate(_frames(video, progress)):
        if clip.add(index, frame):
            return clip.result()
    announced = _announced_frames(video)
    count = clip.seen
    if _is_cut(video, progress, announced):
        _fail(video.name, f"{_cut_reason(progress, count, announced)}, and frame {clip.first_missing} was wanted")
    if count == 0:
        _fail(video.name, "no frame can be decoded")
    if not pad:
        _fail(
            video.name,
            f"has {count} frames (0 to {count - 1}), but frame {clip.first_missing} was wanted "
            "(pad=True repeats the last frame)",
        )
    if clip.last is None:
        raise RuntimeError("unreachable: frames were counted but none was kept")
    return clip.padded()


def _as_folder(source: VideoSource) -> FrameFiles | None:
    """Gives the frames of a folder; None for everything else."""
    from .frame_folder import FrameFolder, listed_frames, numbered_frames

    if isinstance(source, FrameFolder):
        return numbered_frames(source)
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        return listed_frames(source)
    return None


def _check_indices(indices: Sequence[int]) -> list[int]:
    wanted = []
    for index in indices:
        if isinstance(index, bool):
            raise TypeError(f"`indices` must hold integers, got {index!r}.")
        try:
            wanted.append(operator.index(index))
        except TypeError:
            raise TypeError(f"`indices` must hold integers, got {index!r} ({type(index).__name__}).") from None
    if not wanted:
        raise ValueError("`indices` must name at least one frame, got none.")
    if min(wanted) < 0:
        raise ValueError(f"`indices` must be 0 or more, got {min(wanted)}.")
    return wanted


def _check_times(times: Sequence[float]) -> np.ndarray:
    seconds = []
    for time in times:
        if isinstance(time, (bool, np.bool_)):
            raise TypeError(f"`times` must hold numbers of seconds, got {time!r}.")
        try:
            second = float(time)
        except (TypeError, ValueError):
            raise TypeError(f"`times` must hold numbers of seconds, got {time!r} ({type(time).__name__}).") from None
        if not math.isfinite(second) or second < 0:
            raise ValueError(f"`times` must be finite and 0 or more (seconds), got {second}.")
        seconds.append(second)
    if not seconds:
        raise ValueError("`times` must name at least one time, got none.")
    return np.array(seconds)


def _is_sparse(wanted: list[int]) -> bool:
    """Says if some frames before or between the wanted ones might be skipped with a gain."""
    ranks = sorted(set(wanted))
    return ranks[0] >= _MIN_SKIPPED or any(after - before >= _MIN_SKIPPED for before, after in pairwise(ranks))


def _fail(name: str, reason: str) -> NoReturn:
    raise VideoDecodingError(f"{name}: {reason}", name, reason)


@dataclass
class _Video:
    """An open container, its video stream, and what messages call it."""

    name: str
    handle: BinaryIO
    container: InputContainer
    stream: VideoStream
    untouched: bool = True  # no packet has been read yet

    @cached_property
    def table(self) -> _SampleTable | None:
        """What an mp4's index says; None where there is none that FFmpeg reads in the same way."""
        return _trusted_sample_table(self)

    @cached_property
    def scan(self) -> _Scan:
        """All packets of the stream; reads them, so that the container stands at its end."""
        return _scan(self)


@dataclass
class _Progress:
    """What has been seen of the packets so far."""

    packets: int = 0  # that become visible frames
    shown: bool = False  # whether the latest packet does
    begin: float = math.inf  # seconds, of the earliest packet
    end: float = 0.0  # seconds, of the latest packet
    broken: str | None = None  # why reading stopped before the end


@contextmanager
def _open(source: VideoSource) -> Iterator[_Video]:
    """Opens a video, with an error that says exactly what is wrong where it is none."""
    import av

    from .frame_folder import FrameFolder

    position = None
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path = Path(name)
        if not path.exists():
            _fail(name, "no such file")
        try:
            handle: BinaryIO = path.open("rb")
        except OSError as error:
            _fail(name, f"cannot be opened ({error.strerror or error})")
        owned = True
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = f"<{len(source)} bytes>"
        handle = io.BytesIO(source)
        owned = True
    elif not isinstance(source, FrameFolder) and hasattr(source, "read"):
        name = str(getattr(source, "name", f"<{type(source).__name__}>"))
        if not isinstance(source.read(0), bytes):
            raise TypeError(f"{name}: a file object must be opened in binary mode.")
        handle, owned = source, False
        if _is_seekable(source):
            position = source.tell()
        else:
            raise TypeError(f"{name}: a file object must be seekable; pass its bytes, source.read(), instead.")
    else:
        raise TypeError(
            "A video must be a path, bytes, a binary file object or a FrameFolder, got "
            f"{type(source).__name__}: {source!r}."
        )

    try:
        size = handle.seek(0, io.SEEK_END)
        handle.seek(0)
        if size == 0:
            _fail(name, "the file is empty (0 bytes)")
        try:
            # Through the handle, not by its name, which FFmpeg could take for a URL ("clip: one.mp4") or, where the
            # content is a playlist, use to open other files.
            container = av.open(handle, metadata_errors="replace")
        except av.error.FFmpegError as error:
            _fail(name, _why_unreadable(handle, error.strerror or str(error)))
        with container:
            yield _Video(name, handle, container, _video_stream(name, container))
    finally:
        if owned:
            handle.close()
        elif position is not None:
            handle.seek(position)


def _why_unreadable(handle: BinaryIO, detail: str) -> str:
    handle.seek(0)
    if handle.read(8)[4:] == b"ftyp":
        # The index is usually the last part of an mp4, and nothing can be read without: the usual broken download.
        return f"truncated or broken: an mp4 whose index is missing or damaged ({detail})"
    return f"not a video, or its header is broken ({detail})"


def _is_seekable(handle: BinaryIO) -> bool:
    try:
        return bool(handle.seekable())
    except AttributeError:
        return hasattr(handle, "seek") and hasattr(handle, "tell")


def _video_stream(name: str, container: InputContainer) -> VideoStream:
    from av.stream import Disposition

    form = container.format.name
    if form == "tty" or form.startswith("image2") or form.endswith("_pipe"):
        _fail(name, f"not a video (FFmpeg takes it for {form!r})")
    # The cover picture of an audio file is a video stream too, for FFmpeg.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(stream.type or "unknown" for stream in container.streams) or "none"
        _fail(name, f"no video stream (streams: {others})")
    stream = streams[0]
    if stream.codec_context is None:
        _fail(name, "no decoder for its video codec")
    # One thread. With frame threads an error in the middle of a file got lost, and the frames after it would be
    # counted wrongly. With any threads, a decoder that waits for the garbage collector (an error's traceback keeps it)
    # hangs a forked process that frees it, such as a data loader worker. Run several videos at once instead.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def _codec_name(stream: VideoStream) -> str:
    codec = stream.codec_context.codec
    return str(getattr(codec, "canonical_name", None) or codec.name)


def _packets(video: _Video, progress: _Progress) -> Iterator[Packet]:
    """Gives the packets of the video stream in file order; stops, and notes why, where the file is broken."""
    import av

    video.untouched = False
    hidden_bit = _codec_name(video.stream) == "vp8"
    reorder_damage_is_normal = video.container.format.name == "mpegts"
    try:
        for packet in video.container.demux(video.stream):
            if packet.size == 0:  # the end
                continue
            if packet.is_corrupt and not reorder_damage_is_normal:
                progress.broken = "its last packet is incomplete"
                return
            # VP8 stores frames that are only referred to, never shown, as packets of their own; the bit says so.
            progress.shown = not packet.is_discard and not (hidden_bit and not memoryview(packet)[0] >> 4 & 1)
            progress.packets += progress.shown
            if packet.pts is not None and packet.time_base is not None:
                progress.begin = min(progress.begin, float(packet.pts * packet.time_base))
                progress.end = max(progress.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            yield packet
    except av.error.FFmpegError as error:
        progress.broken = error.strerror or str(error)


def _decode_packet(video: _Video, packet: Packet | None, progress: _Progress) -> list[VideoFrame]:
    """Decodes one packet (None: what the decoder still holds); what is wrong with it goes to `progress`."""
    import av

    try:
        return list(video.stream.codec_context.decode(packet))
    except av.error.FFmpegError as error:
        progress.broken = error.strerror or str(error)
        return []


def _frames(video: _Video, progress: _Progress) -> Iterator[VideoFrame]:
    """Gives the frames in presentation order, up to the end or to where the file is broken."""
    for packet in _packets(video, progress):
        yield from _decode_packet(video, packet, progress)
        if progress.broken is not None:
            return
    # What the decoder still holds comes next only if all packets were there: of a file that is cut short, frames that
    # are shown earlier may be missing, and those after them would get a wrong index.
    if not _is_cut(video, progress, _announced_frames(video)):
        yield from _decode_packet(video, None, progress)


def _announced_frames(video: _Video) -> int | None:
    """Gives the number of visible frames by the container's index; None where it has none that can be trusted."""
    if video.container.format.name != _MOV or not video.stream.frames:
        return None
    # An edit list can hide samples, as in a video that was trimmed without encoding it again.
    if video.table is not None:
        return len(video.table.dts)
    entries = _index_entries(video)
    return sum(entry.visible for entry in entries) if entries else int(video.stream.frames)


def _check_file_size(video: _Video) -> None:
    """Raises if an mp4's index points beyond the end of the file."""
    size = video.container.size
    if video.table is not None:
        end = video.table.end_byte
    else:
        end = max((entry.end for entry in _index_entries(video)), default=0)
    if 0 < size < end:
        _fail(video.name, f"truncated: its index reaches up to byte {end}, but it has only {size}")


def _check_complete(video: _Video, progress: _Progress) -> None:
    """Raises if the file ended before its video did, all of its packets having been read."""
    announced = _announced_frames(video)
    if _is_cut(video, progress, announced):
        of = f" of {announced}" if announced is not None else ""
        detail = f" ({progress.broken})" if progress.broken else ""
        _fail(video.name, f"truncated or broken: it holds only {progress.packets}{of} frames{detail}")


def _is_cut(video: _Video, progress: _Progress, announced: int | None) -> bool:
    """Says if the file ended before its video did, all of it having been read."""
    if progress.broken is not None:
        return True
    if announced is not None:
        return progress.packets < announced
    if video.container.format.name == _MATROSKA:
        # A cut webm just ends; only the length in its header tells. The one tagged to the stream is exact to about a
        # frame. The container's is coarser, and other streams may be longer than the video: it counts only without.
        length = _tagged_duration(video.stream)
        if length is not None:
            rate = video.stream.average_rate
            return length - progress.end > max(0.2, 2.5 / float(rate) if rate else 0.0)
        if len(video.container.streams) == 1 and video.container.duration:
            length = video.container.duration / 1e6
            return length - progress.end > max(0.5, 0.1 * length)
        return False
    frames = int(video.stream.frames)
    return bool(frames) and frames - progress.packets > max(2, 0.05 * frames)


def _cut_reason(progress: _Progress, decoded: int, announced: int | None) -> str:
    of = f" of {announced}" if announced is not None else ""
    detail = f" ({progress.broken})" if progress.broken else ""
    return f"truncated or broken: only {decoded}{of} frames could be decoded{detail}"


def _tagged_duration(stream: VideoStream) -> float | None:
    """Reads the "DURATION" tag ("00:00:03.600000000") of a Matroska stream, in seconds."""
    tag = stream.metadata.get("DURATION") or stream.metadata.get("duration")
    try:
        hours, minutes, seconds = str(tag).split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds.strip("\x00 "))
    except ValueError:
        return None


@dataclass
class _Clip:
    """The wanted frames, as far as they have been seen."""

    video: _Video
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
        self._end = max(self.wanted)

    def add(self, index: int, frame: VideoFrame) -> bool:
        """Takes the frame in if it is wanted; says if it was the last one that is."""
        self.seen, self.last = index + 1, frame
        slots = self._slots.pop(index, None)
        if slots is not None:
            self._store(slots, frame)
        return not self._slots

    @property
    def first_missing(self) -> int:
        return min(self._slots)

    def padded(self) -> torch.Tensor:
        """Fills what is missing with the last frame seen."""
        if self.last is not None:
            self._store([slot for slots in self._slots.values() for slot in slots], self.last)
            self._slots = {}
        return self.result()

    def result(self) -> torch.Tensor:
        if self._out is None or self._slots:
            raise RuntimeError("unreachable: the clip is not complete")
        return self._out

    def _store(self, slots: list[int], frame: VideoFrame) -> None:
        pixels = self._to_rgb(frame).permute(2, 0, 1)
        if self._out is None:
            self._out = torch.empty((len(self.wanted), *pixels.shape), dtype=torch.uint8)
        elif self._out.shape[1:] != pixels.shape:
            before, after = self._out.shape[-2:], pixels.shape[-2:]
            _fail(
                self.video.name,
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
        turned, flipped_rows, flipped_columns = _display_matrix(self.video, frame)
        if turned:
            pixels = pixels.transpose(0, 1)
        axes = [axis for axis, flipped in enumerate((flipped_rows, flipped_columns)) if flipped]
        return pixels.flip(axes) if axes else pixels


def _display_matrix(video: _Video, frame: VideoFrame) -> tuple[bool, bool, bool]:
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
    _fail(video.name, f"asks to be shown turned by {frame.rotation} degrees; only multiples of 90 can be read")


@dataclass(frozen=True)
class _Entry:
    """One packet, as far as seeking needs it, in file order."""

    timestamp: int
    is_key: bool
    visible: bool
    end: int = 0  # in bytes from the beginning of the file


def _index_entries(video: _Video) -> list[_Entry]:
    """Gives the index of an mp4, whose time stamps are in decoding order; empty where PyAV is too old to tell."""
    # Copied at once: PyAV's list must not outlive the container.
    return [
        # Without content where a recorder dropped a frame: FFmpeg gives no packet for it.
        _Entry(entry.timestamp, entry.is_keyframe, not entry.is_discard and entry.size > 0, entry.pos + entry.size)
        for entry in getattr(video.stream, "index_entries", ())
    ]


def _read_after_seek(video: _Video, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames from the nearest key frames on; None where that could differ from decoding all, or fails.

    A key frame's index is the number of frames before it in the file, plus those after it that are shown before it
    ("leading" frames of an open group of pictures). All the assumptions in this are checked on the way: time stamps
    must be unique, the container must have landed on a known key frame, that must be an intra-coded picture, and the
    beginning of the video must be a key frame without leading frames (the decoder would drop those).
    """
    import av

    if video.container.format.name not in _SEEKABLE_FORMATS or _codec_name(video.stream) not in _SEEKABLE_CODECS:
        return None
    try:
        runs = _plan_runs(video, sorted(set(wanted)))
        clip = _Clip(video, wanted)
        if runs and all(_read_run(video, clip, run) for run in runs):
            return clip.result()
    except av.error.FFmpegError:
        pass  # decoding from the start either works or says what is wrong
    return None


def _read_run(video: _Video, clip: _Clip, run: _Run) -> bool:
    """Decodes one run; says if that went as planned."""
    import av

    start = run.start
    video.container.seek(start.request, stream=video.stream, backward=True)
    progress, index = _Progress(packets=start.preceding), start.index
    for frame in _frames(video, progress):
        if frame.pts is None:
            return False
        if frame.pts < start.pts:  # leading frames, which cannot be right without what was before
            continue
        # Periodic intra refresh marks frames as key frames that are not complete by themselves.
        if index == start.index and (frame.pts != start.pts or frame.pict_type != av.video.frame.PictureType.I):
            return False
        clip.add(index, frame)
        if index == run.last:
            return True
        index += 1
    return False


@dataclass(frozen=True)
class _KeyFrame:
    """A key frame to start from."""

    request: int  # time stamp to seek to
    index: int
    pts: int
    preceding: int  # visible packets before it in the file


@dataclass
class _Run:
    """A stretch of frames to decode."""

    start: _KeyFrame
    last: int


def _plan_runs(video: _Video, ranks: list[int]) -> list[_Run] | None:
    """Splits what is to be decoded where a key frame allows to skip frames; None where nothing can be skipped."""
    index = _seek_index(video)
    if index is None or ranks[-1] >= len(index.shown):
        return None
    first_stamp = int(index.stamps[0])
    if not video.untouched:
        video.container.seek(first_stamp, stream=video.stream, backward=True)
    landing = _landing(video, index.by_dts)
    if landing is None or landing.leading or landing.timestamp != first_stamp:
        return None
    beginning = _KeyFrame(first_stamp, 0, landing.pts, 0)

    runs: list[_Run] = []
    for rank in ranks:
        reached = runs[-1].last if runs else 0
        start = _find_key_frame(video, index, rank, reached) if rank - reached >= _MIN_SKIPPED else None
        if start is not None:
            runs.append(_Run(start, rank))
        elif runs:
            runs[-1].last = rank
        else:
            runs.append(_Run(beginning, rank))
    return None if len(runs) == 1 and runs[0].start is beginning else runs


@dataclass(frozen=True)
class _SeekIndex:
    """All packets of a stream, in file order, as far as seeking needs them."""

    stamps: np.ndarray  # by which packets are told apart, unique: dts of an mp4, else pts
    requests: np.ndarray  # by frame index: the time to seek to, its pts as far as it is known
    keys: np.ndarray | None  # which are key frames; None: the container knows
    shown: np.ndarray  # positions of those that become visible frames
    by_dts: bool

    @cached_property
    def _order(self) -> np.ndarray:
        return np.argsort(self.stamps, kind="stable")

    def has_unique_stamps(self) -> bool:
        return bool(np.all(np.diff(self.stamps[self._order]) > 0))

    def preceding(self, position: int) -> int:
        """Gives the number of visible packets before the one at this position."""
        return int(np.searchsorted(self.shown, position))

    def position(self, stamp: int) -> int | None:
        """Finds the packet with this time stamp."""
        place = int(np.searchsorted(self.stamps, stamp, sorter=self._order))
        if place == len(self.stamps) or self.stamps[self._order[place]] != stamp:
            return None
        return int(self._order[place])


def _seek_index(video: _Video) -> _SeekIndex | None:
    """Finds out where the packets are, where possible without reading them; None where seeking would not be sound."""
    entries = _index_entries(video) if video.container.format.name == _MOV and video.table is None else []
    if video.table is not None:
        stamps = video.table.dts
        index = _SeekIndex(stamps, np.sort(video.table.pts), None, np.arange(len(stamps)), True)
    elif entries and len(entries) == video.stream.frames:
        stamps = np.array([entry.timestamp for entry in entries])
        if not entries[0].is_key:
            return None
        shown = np.flatnonzero([entry.visible for entry in entries])
        index = _SeekIndex(stamps, stamps[shown], None, shown, True)
    else:
        scan = video.scan
        if scan.progress.broken is not None or not scan.keys or not scan.keys[0] or None in scan.pts:
            return None
        stamps, shown = np.array(scan.pts), np.flatnonzero(scan.shown)
        index = _SeekIndex(stamps, np.sort(stamps[shown]), np.array(scan.keys), shown, False)
    return index if index.has_unique_stamps() else None


def _find_key_frame(video: _Video, index: _SeekIndex, rank: int, reached: int) -> _KeyFrame | None:
    """Finds the last key frame from which frame `rank` can be decoded; None if it is not after the frame `reached`."""
    request = int(index.requests[rank])
    # A look at the index first: the file is touched only where it promises a gain.
    if index.keys is not None:
        key = int(np.flatnonzero(index.keys[: index.shown[rank] + 1])[-1])
    else:
        key = video.stream.index_entries.search_timestamp(request, backward=True)
    if key < 0 or index.preceding(key) <= reached:
        return None
    for _ in range(3):
        video.container.seek(request, stream=video.stream, backward=True)
        landing = _landing(video, index.by_dts)
        found = None if landing is None else index.position(landing.timestamp)
        if landing is None or found is None:
            return None
        preceding = index.preceding(found)
        first = preceding + landing.leading
        if first <= reached:
            return None
        if first <= rank:
            return _KeyFrame(request, first, landing.pts, preceding)
        request = landing.timestamp - 1  # its leading frames come first: take the key frame before
    return None


@dataclass(frozen=True)
class _Landing:
    """The key frame that a container stands at."""

    timestamp: int  # as in the entries
    pts: int
    leading: int  # frames after it in the file that are shown before it


def _landing(video: _Video, by_dts: bool) -> _Landing | None:
    """Reads on from where the container stands, up to the next key frame; None if it does not stand at one."""
    key: tuple[int, int] | None = None
    leading = 0
    for packet in _packets(video, _Progress()):
        timestamp = packet.dts if by_dts else packet.pts
        if packet.pts is None or timestamp is None:
            return None
        if key is None:
            if not packet.is_keyframe:
                return None
            key = timestamp, packet.pts
        elif packet.is_keyframe:
            break
        elif packet.pts < key[1] and not packet.is_discard:
            leading += 1
    return None if key is None else _Landing(*key, leading)


# When frames are shown


def _timeline(video: _Video) -> Timeline:
    """Finds out when the frames are shown, without decoding; raises where the file is cut short."""
    table = video.table
    if table is not None:
        _check_file_size(video)
        first = int(table.pts.min())
        times = np.sort(table.pts - first) / table.timescale
        end = int((table.pts + table.durations).max() - first) / table.timescale
        return Timeline(video.name, len(times), (times, end))

    scan = video.scan
    _check_complete(video, scan.progress)
    if _announced_frames(video) is not None:
        _check_file_size(video)
    shown = np.flatnonzero(scan.shown)
    if not len(shown):
        _fail(video.name, "no frame can be decoded")
    rate = video.stream.average_rate or video.stream.guessed_rate
    period = 1 / float(rate) if rate else 0.0
    for stamps in (scan.pts, scan.dts):  # avi has only the latter, which then count frames
        if video.stream.time_base is None or any(stamps[place] is None for place in shown):
            continue
        unit = float(video.stream.time_base)
        ticks = np.array([stamps[place] for place in shown], dtype=np.int64)
        order = np.argsort(ticks, kind="stable")
        times = (ticks[order] - ticks[order[0]]) * unit
        length = scan.durations[shown[order[-1]]] * unit
        if not length:  # as far as the one before
            length = period or (float(times[-1] - times[-2]) if len(times) > 1 else 0.0)
        return Timeline(video.name, len(times), (times, float(times[-1]) + length))
    if not period:
        return Timeline(video.name, len(shown), None)
    return Timeline(video.name, len(shown), (np.arange(len(shown)) * period, len(shown) * period))


@dataclass
class _Scan:
    """What was seen of all packets, in file order."""

    pts: list[int | None]
    dts: list[int | None]
    durations: list[int]
    keys: list[bool]
    shown: list[bool]
    progress: _Progress


def _scan(video: _Video) -> _Scan:
    scan = _Scan([], [], [], [], [], _Progress())
    for packet in _packets(video, scan.progress):
        scan.pts.append(packet.pts)
        scan.dts.append(packet.dts)
        scan.durations.append(packet.duration or 0)
        scan.keys.append(packet.is_keyframe)
        scan.shown.append(scan.progress.shown)
    return scan


@dataclass(frozen=True)
class _SampleTable:
    """An mp4's index of its video's packets, in file order; all of them are visible frames."""

    timescale: int  # ticks per second
    dts: np.ndarray  # int64 ticks
    pts: np.ndarray
    durations: np.ndarray
    end_byte: int  # how far into the file the packets reach


def _trusted_sample_table(video: _Video) -> _SampleTable | None:
    """Reads an mp4's index, if FFmpeg, which does the seeking and the decoding, has understood it in the same way.

    PyAV gives FFmpeg's reading of it entry by entry (a second for a million) and without the presentation times, which
    are to be had only by reading every packet, and so the whole file.
    """
    if video.container.format.name != _MOV or not video.stream.frames:
        return None
    entries: Any = getattr(video.stream, "index_entries", ())
    count = len(entries)
    # (Also keeps a damaged file from claiming more packets than fit into memory: FFmpeg holds these already.)
    if count != video.stream.frames or not entries[0].is_keyframe:
        return None
    # FFmpeg reads on from where it thinks that the file stands.
    position = video.handle.tell()
    try:
        table = _read_sample_table(video.handle, video.stream.id, count)
    except (ArithmeticError, LookupError, ValueError, struct.error):
        return None  # a layout that this reader does not know
    finally:
        video.handle.seek(position)
    if table is None or video.stream.time_base != Fraction(1, table.timescale):
        return None
    # What an edit list hides, and what FFmpeg repairs, would show here.
    shift = entries[0].timestamp - int(table.dts[0])
    for place in sorted({*range(min(16, count)), *range(max(0, count - 16), count)}):
        entry = entries[place]
        if entry.is_discard or entry.timestamp != table.dts[place] + shift:
            return None
    return replace(table, dts=table.dts + shift, pts=table.pts + shift)


def _read_sample_table(handle: BinaryIO, track_id: int, count: int) -> _SampleTable | None:
    """Reads the index of one track of an mp4 (ISO/IEC 14496-12); None where it hides frames or has no such index.

    Raises:
        ValueError, LookupError, ArithmeticError, struct.error: If it is laid out in a way that is not known here.
    """
    movie = _boxes(_movie_box(handle))
    if b"mvex" in movie:  # in fragments: this index is not all
        return None
    for track in map(_boxes, movie[b"trak"]):
        (header,) = track[b"tkhd"]
        if _uint(header, 20 if header[0] else 12, 4) == track_id:
            break
    else:
        return None
    media = _boxes(track[b"mdia"][0])
    samples = _boxes(_boxes(media[b"minf"][0])[b"stbl"][0])
    timescale = _timescale(media[b"mdhd"][0])

    durations = _per_sample(samples[b"stts"][0], count)
    dts = np.cumsum(durations) - durations
    offsets = _per_sample(samples[b"ctts"][0], count) if b"ctts" in samples else np.zeros(count, dtype=np.int64)
    if np.abs(offsets).max() >= 1 << 28:  # FFmpeg takes such for damage
        return None
    pts = dts + offsets

    sizes_box = samples[b"stsz"][0]
    one_size, size_count = _uint(sizes_box, 4, 4), _uint(sizes_box, 8, 4)
    sizes = np.full(count, one_size) if one_size else _table(sizes_box, 12, count, ">u4")
    chunks_box = samples[b"co64" if b"co64" in samples else b"stco"][0]
    chunks = _table(chunks_box, 8, _uint(chunks_box, 4, 4), ">u8" if b"co64" in samples else ">u4")
    runs_box = samples[b"stsc"][0]  # (first chunk from 1, samples in each chunk, -): up to the next run's first chunk
    runs = _table(runs_box, 8, 3 * _uint(runs_box, 4, 4), ">u4").reshape(-1, 3)
    if sizes.min() == 0:
        return None
    repeats = np.diff(runs[:, 0], append=len(chunks) + 1)
    if size_count != count or repeats.min() < 0 or repeats.sum() != len(chunks):
        return None
    per_chunk = np.repeat(runs[:, 1], repeats)
    if per_chunk.min() < 1 or per_chunk.sum() != count:
        return None
    end_byte = int((chunks + np.add.reduceat(sizes, np.cumsum(per_chunk) - per_chunk)).max())

    if b"edts" in track:
        shown = _shown_ticks(_boxes(track[b"edts"][0])[b"elst"][0], timescale, _timescale(movie[b"mvhd"][0]))
        if shown is None or pts.min() < shown[0] or pts.max() >= shown[1]:
            return None
    return _SampleTable(timescale, dts, pts, durations, end_byte)


def _timescale(header: memoryview) -> int:
    """Reads the ticks per second from a "mdhd" or "mvhd" box."""
    return _uint(header, 20 if header[0] else 12, 4)


def _shown_ticks(edit_list: memoryview, timescale: int, movie_timescale: int) -> tuple[int, int] | None:
    """Gives the stretch of a track that its edit list shows, delayed or not; None if it does more than that."""
    # Entries of (duration in ticks of the movie, time in ticks of the track, rate); a time of -1 is a delay.
    wide = bool(edit_list[0])
    step, width = (20, 8) if wide else (12, 4)
    edits = []
    for place in range(8, 8 + step * _uint(edit_list, 4, 4), step):
        start = struct.unpack_from(">q" if wide else ">i", edit_list, place + width)[0]
        edits.append((_uint(edit_list, place, width), start, _uint(edit_list, place + 2 * width, 4)))
    while edits and edits[0][1] == -1:
        del edits[0]
    if len(edits) != 1 or edits[0][2] != 1 << 16:
        return None
    duration, start, _ = edits[0]
    return start, start + duration * timescale // movie_timescale


def _movie_box(handle: BinaryIO) -> memoryview:
    """Finds the "moov" box of an mp4 without reading the rest."""
    position, file_size = 0, handle.seek(0, io.SEEK_END)
    while True:
        handle.seek(position)
        header = handle.read(16)
        size, kind, wide = struct.unpack(">I4sQ", header)
        begin = 8
        if size == 1:  # the size is a 64-bit number after the name
            size, begin = wide, 16
        if not begin <= size <= file_size - position:
            raise ValueError("a box without a size, or with a wrong one")
        if kind == b"moov":
            handle.seek(position + begin)
            return memoryview(handle.read(size - begin))
        position += size


def _boxes(data: memoryview) -> dict[bytes, list[memoryview]]:
    """Splits the content of an mp4 box into the boxes in it, by their names."""
    boxes: dict[bytes, list[memoryview]] = {}
    position = 0
    while position + 8 <= len(data):
        size = _uint(data, position, 4)
        if size < 8 or position + size > len(data):
            raise ValueError("a box that is larger than the one around it, or of a kind that only `mdat` should be")
        boxes.setdefault(bytes(data[position + 4 : position + 8]), []).append(data[position + 8 : position + size])
        position += size
    return boxes


def _uint(data: memoryview, position: int, width: int) -> int:
    if position + width > len(data):
        raise ValueError("a box that is too short")
    return int.from_bytes(data[position : position + width], "big")


def _table(data: memoryview, position: int, count: int, dtype: str) -> np.ndarray:
    return np.frombuffer(data, dtype, count, position).astype(np.int64)


def _per_sample(data: memoryview, count: int) -> np.ndarray:
    """Reads a run-length encoded table of one 32-bit number for each of `count` samples."""
    # Signed: so are the offsets in practice, whatever the box's version says, and no duration is that long.
    repeats, values = _table(data, 8, 2 * _uint(data, 4, 4), ">i4").reshape(-1, 2).T
    if repeats.min() < 0 or repeats.sum() != count:
        raise ValueError("a table for another number of samples")
    return np.repeat(values, repeats)
