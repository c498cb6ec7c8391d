"""Frames of video files, decoded with PyAV.

A frame's index is its rank in presentation order, from 0: the k-th frame that a player would show. A file that cannot
be read is always an error with its reason, never a clip of something else, so that whoever runs over a data set can
report and count such files.
"""

from __future__ import annotations

import io
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias, cast

import torch

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VideoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | BinaryIO

_MOV = "mov,mp4,m4a,3gp,3g2,mj2"
_MATROSKA = "matroska,webm"
# Where a packet is a frame and its time stamps are trustworthy; anything else is decoded from its start, always right.
_SEEKABLE_FORMATS = (_MOV, _MATROSKA)
_SEEKABLE_CODECS = ("h264", "hevc", "mpeg4", "vp9", "av1")
# Up to here, decoding from the start costs less than finding out where the key frames are.
_MIN_SEEK_INDEX = 48


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
        source: Path, bytes, or binary file object (read from its beginning; its position is restored).

    Returns:
        The `VideoInfo`.

    Raises:
        VideoDecodingError: If it is not a readable video, or is cut short as far as can be told without decoding it.

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
            if _is_cut(video, progress, announced):
                detail = f" ({progress.broken})" if progress.broken else ""
                _fail(video.name, f"truncated or broken: it holds only {progress.packets} frames{detail}")
            announced = progress.packets
        else:
            _check_file_size(video)

        stream = video.stream
        rate = stream.average_rate or stream.guessed_rate
        fps = float(rate) if rate else 0.0
        if stream.duration and stream.time_base:
            duration = float(stream.duration * stream.time_base)
        else:
            duration = announced / fps if fps else 0.0
        turned = _display_matrix(video, first)[0]
        width, height = (first.height, first.width) if turned else (first.width, first.height)
        return VideoInfo(announced, fps, duration, width, height, _codec_name(stream))


def read_frames(source: VideoSource, indices: Sequence[int], *, pad: bool = False) -> torch.Tensor:
    """Reads single frames of a video.

    Decodes only as far as the largest index, and starts at the nearest key frame before the smallest where that gives
    the identical frames (mp4, mov, mkv and webm; the others are decoded from their start). Rotation and mirroring that
    the file asks for are applied; a non-square pixel aspect is not.

    Args:
        source: Path, bytes, or binary file object (read from its beginning; its position is restored).
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
    first = min(wanted)
    if first >= _MIN_SEEK_INDEX:
        with _open(source) as video:
            frames = _read_after_seek(video, wanted)
        if frames is not None:
            return frames
    with _open(source) as video:
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


def _fail(name: str, reason: str) -> NoReturn:
    raise VideoDecodingError(f"{name}: {reason}", name, reason)


@dataclass
class _Video:
    """An open container, its video stream, and what messages call it."""

    name: str
    container: InputContainer
    stream: VideoStream


@dataclass
class _Progress:
    """What has been seen of the packets so far."""

    packets: int = 0  # that become visible frames
    end: float = 0.0  # seconds, of the latest packet
    broken: str | None = None  # why reading stopped before the end


@contextmanager
def _open(source: VideoSource) -> Iterator[_Video]:
    """Opens a video, with an error that says exactly what is wrong where it is none."""
    import av

    position = None
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path = Path(name)
        if path.is_dir():
            _fail(name, "is a folder, not a video file")
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
    elif hasattr(source, "read"):
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
            f"A video must be a path, bytes or a binary file object, got {type(source).__name__}: {source!r}."
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
            yield _Video(name, container, _video_stream(name, container))
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
            if not packet.is_discard and not (hidden_bit and not memoryview(packet)[0] >> 4 & 1):
                progress.packets += 1
            if packet.pts is not None and packet.time_base is not None:
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
    entries = _index_entries(video)
    return sum(entry.visible for entry in entries) if entries else int(video.stream.frames)


def _check_file_size(video: _Video) -> None:
    """Raises if an mp4's index points beyond the end of the file."""
    size = video.container.size
    end = max((entry.end for entry in _index_entries(video)), default=0)
    if 0 < size < end:
        _fail(video.name, f"truncated: its index reaches up to byte {end}, but it has only {size}")


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
        _Entry(entry.timestamp, entry.is_keyframe, not entry.is_discard, entry.pos + entry.size)
        for entry in getattr(video.stream, "index_entries", ())
    ]


def _read_after_seek(video: _Video, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames from the nearest key frame on; None where that could differ from decoding all, or fails.

    A key frame's index is the number of frames before it in the file, plus those after it that are shown before it
    ("leading" frames of an open group of pictures). All the assumptions in this are checked on the way: time stamps
    must be unique, the container must have landed on a known key frame, that must be an intra-coded picture, and the
    beginning of the video must be a key frame without leading frames (the decoder would drop those).
    """
    import av

    if video.container.format.name not in _SEEKABLE_FORMATS or _codec_name(video.stream) not in _SEEKABLE_CODECS:
        return None
    try:
        target = _find_key_frame(video, min(wanted))
        if target is None:
            return None
        video.container.seek(target.request, stream=video.stream, backward=True)
        clip, progress, index = _Clip(video, wanted), _Progress(packets=target.preceding), target.index
        for frame in _frames(video, progress):
            if frame.pts is None:
                return None
            if frame.pts < target.pts:  # leading frames, which cannot be right without what was before
                continue
            # Periodic intra refresh marks frames as key frames that are not complete by themselves.
            if index == target.index and (frame.pts != target.pts or frame.pict_type != av.video.frame.PictureType.I):
                return None
            if clip.add(index, frame):
                return clip.result()
            index += 1
    except av.error.FFmpegError:
        return None  # decoding from the start either works or says what is wrong
    return None


@dataclass(frozen=True)
class _KeyFrame:
    """The key frame to start from."""

    request: int  # time stamp to seek to
    index: int
    pts: int
    preceding: int  # visible packets before it in the file


def _find_key_frame(video: _Video, first: int) -> _KeyFrame | None:
    """Finds the last key frame, but the first, from which frame `first` can be decoded; None if there is none."""
    by_dts = video.container.format.name == _MOV
    entries = _index_entries(video) if by_dts and video.stream.frames else []
    if len(entries) != video.stream.frames or not entries:
        by_dts = False
        progress = _Progress()
        entries = []
        for packet in _packets(video, progress):
            if packet.pts is None:
                return None
            entries.append(_Entry(packet.pts, packet.is_keyframe, not packet.is_discard))
        if progress.broken is not None or not entries:
            return None
        video.container.seek(entries[0].timestamp, stream=video.stream, backward=True)

    preceding: dict[int, int] = {}  # visible packets before each packet in the file
    order: list[int] = []  # the visible ones
    for position, entry in enumerate(entries):
        if entry.timestamp in preceding:
            return None
        preceding[entry.timestamp] = len(order)
        if entry.visible:
            order.append(position)
    if first >= len(order) or not entries[0].is_key:
        return None

    start = _landing(video, by_dts)
    if start is None or start.leading or start.timestamp != entries[0].timestamp:
        return None
    request = entries[order[first]].timestamp
    for _ in range(3):
        video.container.seek(request, stream=video.stream, backward=True)
        landing = _landing(video, by_dts)
        if landing is None or landing.timestamp not in preceding:
            return None
        index = preceding[landing.timestamp] + landing.leading
        if index == 0:
            return None
        if index <= first:
            return _KeyFrame(request, index, landing.pts, preceding[landing.timestamp])
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
