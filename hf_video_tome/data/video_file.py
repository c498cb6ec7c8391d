"""Video files as PyAV opens them: their packets, decoded frames and index, and whether they are cut short."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TypeAlias, Union

import numpy as np

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from .frame_folder import FrameFolder

# A path may be that of a folder of extracted frames.
VideoSource: TypeAlias = Union[str, os.PathLike[str], bytes, bytearray, BinaryIO, "FrameFolder"]

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA = "matroska,webm"
# A frame may come after at most 16 that are shown later (h264, hevc), whose fields may have packets of their own.
_MAX_REORDER = 32


def fail(name: str, reason: str) -> NoReturn:
    """Raises the error of a video that cannot be read, for this reason."""
    from .decoding import VideoDecodingError  # that module needs this one

    raise VideoDecodingError(f"{name}: {reason}", name, reason)


@dataclass
class VideoFile:
    """An open container, its video stream, and what messages call it."""

    name: str
    container: InputContainer
    stream: VideoStream

    @cached_property
    def index(self) -> PacketIndex | None:
        """What an mp4's index says of all packets; None where there is none or PyAV is too old to tell."""
        return read_index(self)

    @cached_property
    def scan(self) -> Packets:
        """All packets of the stream; reads them, so that the container stands at its end."""
        return read_packets(self)


@dataclass
class Progress:
    """What has been seen of the packets so far."""

    since: int | None = None  # dts of the packet, in an mp4, that reading began with; None: the first of the file
    packets: int = 0  # that become visible frames
    shown: bool = False  # whether the latest packet does
    begin: float = math.inf  # seconds, of the earliest packet
    end: float = 0.0  # seconds, of the latest packet
    broken: str | None = None  # why reading stopped before the end


@contextmanager
def open_video(source: VideoSource) -> Iterator[VideoFile]:
    """Opens a video, with an error that says exactly what is wrong where it is none."""
    import av

    from .frame_folder import FrameFolder

    position = None
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path = Path(name)
        if not path.exists():
            fail(name, "no such file")
        try:
            handle: BinaryIO = path.open("rb")
        except OSError as error:
            fail(name, f"cannot be opened ({error.strerror or error})")
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
            fail(name, "the file is empty (0 bytes)")
        try:
            # Through the handle, not by its name, which FFmpeg could take for a URL ("clip: one.mp4") or, where the
            # content is a playlist, use to open other files.
            container = av.open(handle, metadata_errors="replace")
        except av.error.FFmpegError as error:
            fail(name, _why_unreadable(handle, error.strerror or str(error)))
        with container:
            yield VideoFile(name, container, _video_stream(name, container))
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
        fail(name, f"not a video (FFmpeg takes it for {form!r})")
    # The cover picture of an audio file is a video stream too, for FFmpeg.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(stream.type or "unknown" for stream in container.streams) or "none"
        fail(name, f"no video stream (streams: {others})")
    stream = streams[0]
    if stream.codec_context is None:
        fail(name, "no decoder for its video codec")
    # One thread. With frame threads an error in the middle of a file got lost, and the frames after it would be
    # counted wrongly. With any threads, a decoder that waits for the garbage collector (an error's traceback keeps it)
    # hangs a forked process that frees it, such as a data loader worker. Run several videos at once instead.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def codec_name(stream: VideoStream) -> str:
    """Gives FFmpeg's name of the codec, whichever decoder it has."""
    codec = stream.codec_context.codec
    return str(getattr(codec, "canonical_name", None) or codec.name)


def demux(video: VideoFile, progress: Progress) -> Iterator[Packet]:
    """Gives the packets of the video stream in file order; stops, and notes why, where the file is broken."""
    import av

    unit = float(video.stream.time_base or 0)
    hidden_bit = codec_name(video.stream) == "vp8"
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
            if packet.pts is not None and unit:
                progress.begin = min(progress.begin, packet.pts * unit)
                progress.end = max(progress.end, (packet.pts + (packet.duration or 0)) * unit)
            yield packet
    except av.error.FFmpegError as error:
        progress.broken = error.strerror or str(error)


@dataclass
class Packets:
    """Packets that follow each other in a file, in its order."""

    progress: Progress
    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    at_end: bool = True  # no others follow


def read_packets(video: VideoFile, until: int | None = None) -> Packets:
    """Reads packets from where the container stands, to the end or to all of those with a pts below `until`."""
    read, beyond = Packets(Progress()), 0
    for packet in demux(video, read.progress):
        read.pts.append(packet.pts)
        read.dts.append(packet.dts)
        read.durations.append(packet.duration or 0)
        read.keys.append(packet.is_keyframe)
        read.shown.append(read.progress.shown)
        if until is not None and read.progress.shown and packet.pts is not None and packet.pts >= until:
            beyond += 1
            if beyond > _MAX_REORDER:
                read.at_end = False
                break
    return read


def decode_packet(video: VideoFile, packet: Packet | None, progress: Progress) -> list[VideoFrame]:
    """Decodes one packet (None: what the decoder still holds); what is wrong with it goes to `progress`."""
    import av

    try:
        return list(video.stream.codec_context.decode(packet))
    except av.error.FFmpegError as error:
        progress.broken = error.strerror or str(error)
        return []


def decode_frames(video: VideoFile, progress: Progress) -> Iterator[VideoFrame]:
    """Gives the frames in presentation order, up to the end or to where the file is broken."""
    for packet in demux(video, progress):
        yield from decode_packet(video, packet, progress)
        if progress.broken is not None:
            return
    # What the decoder still holds comes next only if all packets were there: of a file that is cut short, frames that
    # are shown earlier may be missing, and those after them would get a wrong index.
    if not is_cut(video, progress):
        yield from decode_packet(video, None, progress)


@dataclass(frozen=True)
class PacketIndex:
    """FFmpeg's index of an mp4, or of its packets from some point on, in the order of the file."""

    dts: np.ndarray
    shown: np.ndarray  # bool: whether they become visible frames
    end: int  # how far into the file they reach, in bytes


def read_index(video: VideoFile, since: int | None = None) -> PacketIndex | None:
    """Reads the index of an mp4, from the packet with the dts `since` on; None where there is none."""
    entries: Any = getattr(video.stream, "index_entries", ()) if video.container.format.name == MOV else ()
    if not len(entries):
        return None
    begin = 0 if since is None else max(0, entries.search_timestamp(since, any_frame=True))
    # Copied at once: PyAV's list must not outlive the container.
    rows = [(e.timestamp, e.is_discard, e.pos, e.size) for e in (entries[begin:] if begin else entries)]
    dts, hidden, positions, sizes = np.array(rows, dtype=np.int64).T
    # An edit list can hide packets, as in a video that was trimmed without encoding it again. One without content is
    # left where a recorder dropped a frame: FFmpeg skips it.
    return PacketIndex(dts, (hidden == 0) & (sizes > 0), int((positions + sizes).max()))


def announced_frames(video: VideoFile, since: int | None = None) -> int | None:
    """Gives the number of visible frames by the container's index; None where it has none that can be trusted."""
    if video.container.format.name != MOV or not video.stream.frames:
        return None
    index = video.index if since is None else read_index(video, since)
    return int(video.stream.frames) if index is None else int(index.shown.sum())


def check_file_size(video: VideoFile, since: int | None = None) -> None:
    """Raises if an mp4's index points beyond the end of the file."""
    index = video.index if since is None else read_index(video, since)
    size = video.container.size
    if index is not None and 0 < size < index.end:
        fail(video.name, f"truncated: its index reaches up to byte {index.end}, but it has only {size}")


def check_complete(video: VideoFile, progress: Progress) -> None:
    """Raises if the file ended before its video did, all of its packets having been read."""
    if is_cut(video, progress):
        announced = announced_frames(video)
        of = f" of {announced}" if announced is not None else ""
        detail = f" ({progress.broken})" if progress.broken else ""
        fail(video.name, f"truncated or broken: it holds only {progress.packets}{of} frames{detail}")


def is_cut(video: VideoFile, progress: Progress) -> bool:
    """Says if the file ended before its video did, having been read up to its end."""
    if progress.broken is not None:
        return True
    announced = announced_frames(video, progress.since)
    if announced is not None:
        return progress.packets < announced
    if video.container.format.name == MATROSKA:
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


def cut_reason(progress: Progress, decoded: int, announced: int | None) -> str:
    """Says how far decoding came."""
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
