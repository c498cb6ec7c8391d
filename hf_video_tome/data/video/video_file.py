"""Video files opened with PyAV: their video track, packets and decoded frames."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np

from .container_end import is_padded, missing_end
from .display import Display, display_of
from .types import VideoSource, fail, why

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_T = TypeVar("_T")

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
MATROSKA = "matroska,webm"
# Time stamps before and after all valid ones.
EARLIEST, LATEST = -(2**62), 2**62
AVI = "avi"
# In these formats, FFmpeg's last packet may be incomplete.
WITHOUT_PACKET_SIZES = ("mpegts", "mpeg")
# Number of packets that show whether the first ones are frames, and number kept to check the last ones.
_MAX_OPENING, _MAX_GROUPS = 8, 600
# A frame may follow up to 16 frames that are shown later (h264, hevc), whose fields may be separate packets.
_MAX_REORDER = 32
_STEP_BACK, _LEAP_AHEAD = 0.1, 10.0  # seconds
# Placeholder for an unknown time stamp.
NO_TIME = -(2**63)


# Opening


@dataclass
class VideoFile:
    """Open container with its video track and its name for messages."""

    name: str
    handle: BinaryIO
    container: InputContainer
    stream: VideoStream
    fresh: bool = True  # nothing has been read yet

    def restart(self) -> None:
        """Returns to the beginning by reopening the container: not all formats support seeking."""
        if self.fresh:
            return
        self.container.close()
        self.container = _open_container(self.name, self.handle)
        self.stream = _video_stream(self.name, self.container)
        self.fresh = True

    def seek(self, stamp: int) -> None:
        """Seeks to the last key frame at or before a time stamp."""
        self.fresh = False
        self.container.seek(stamp, stream=self.stream, backward=True)

    @cached_property
    def index(self) -> PacketIndex | None:
        """The index of all packets of an mp4; None if there is none or PyAV is too old."""
        return read_index(self)

    @cached_property
    def opening(self) -> Packets:
        """The first packets of the track; moves the container past them."""
        if "scan" in self.__dict__:
            return self.scan
        self.restart()
        return read_packets(self, EARLIEST)

    @cached_property
    def scan(self) -> Packets:
        """All packets of the track; moves the container to its end."""
        self.restart()
        return read_packets(self)

    @cached_property
    def first(self) -> Display | None:
        """Display settings of the first frame; None if the first packets alone do not decode to one."""
        frames = decode_alone(self, self.opening.head, Progress())
        return display_of(frames[0]) if frames else None

    @cached_property
    def missing_end(self) -> str | None:
        """Evidence in the container that the file is truncated; None if there is none."""
        if self.container.format.name == MOV:
            # By the last packet, unless the (long) index has already been read.
            index = self.index if "index" in self.__dict__ else read_index(self, since=LATEST)
            if index is not None and 0 < self.container.size < index.end:
                return f"its index reaches up to byte {index.end}, but it has only {self.container.size}"
        return self._look_into(missing_end)

    @cached_property
    def is_padded(self) -> bool:
        """Whether padding follows a complete container, which may confuse FFmpeg."""
        return self._look_into(is_padded)

    def _look_into(self, look: Callable[[BinaryIO, int, str], _T]) -> _T:
        position = self.handle.tell()
        try:
            return look(self.handle, self.container.size, self.container.format.name)
        finally:
            self.handle.seek(position)  # where FFmpeg continues to read


@contextmanager
def open_video(source: VideoSource) -> Iterator[VideoFile]:
    """Opens a video; FFmpeg's errors, then or later, become `VideoDecodingError`."""
    import av

    position = None
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path = Path(name)
        if not path.exists():
            fail(name, "no such file")
        try:
            handle: BinaryIO = path.open("rb")
        except OSError as error:
            fail(name, f"cannot be opened ({why(error)})")
        owned = True
    elif isinstance(source, (bytes, bytearray, memoryview)):
        name = f"<{len(source)} bytes>"
        handle = io.BytesIO(source)
        owned = True
    elif hasattr(source, "read"):
        name = str(getattr(source, "name", f"<{type(source).__name__}>"))
        handle, owned = cast(BinaryIO, source), False
        if not isinstance(handle.read(0), bytes):
            raise TypeError(f"{name}: a file object must be opened in binary mode")
        if _is_seekable(handle):
            position = handle.tell()
        else:
            raise TypeError(f"{name}: a file object must be seekable; pass its bytes, source.read(), instead")
    else:
        raise TypeError(
            "a video must be a path, bytes, a binary file object or a FrameFolder, got "
            f"{type(source).__name__}: {source!r}"
        )

    video = None
    try:
        if handle.seek(0, io.SEEK_END) == 0:
            fail(name, "the file is empty (0 bytes)")
        container = _open_container(name, handle)
        video = VideoFile(name, handle, container, _video_stream(name, container))
        yield video
    except av.error.FFmpegError as error:  # from calls that are not expected to raise one
        fail(name, f"cannot be decoded ({why(error)})")
    finally:
        if video is not None:
            video.container.close()
        if owned:
            handle.close()
        elif position is not None:
            handle.seek(position)


def _open_container(name: str, handle: BinaryIO) -> InputContainer:
    import av

    handle.seek(0)
    try:
        # By handle rather than by name, which FFmpeg could mistake for a URL ("clip: one.mp4") or, for a playlist, use
        # to open other files.
        return av.open(handle, metadata_errors="replace")
    except Exception as error:  # FFmpeg's errors, and those unknown to PyAV
        fail(name, _why_unreadable(handle, why(error)))


def _why_unreadable(handle: BinaryIO, detail: str) -> str:
    handle.seek(0)
    if handle.read(8)[4:] == b"ftyp":
        # The index is usually at the end of an mp4, and nothing can be read without it: a typical broken download.
        return f"truncated or broken: an mp4 whose index is missing or damaged ({detail})"
    return f"not a video, or its header is broken ({detail})"


def _is_seekable(handle: BinaryIO) -> bool:
    try:
        return bool(handle.seekable())
    except AttributeError:
        return hasattr(handle, "seek") and hasattr(handle, "tell")


def _video_stream(name: str, container: InputContainer) -> VideoStream:
    """Returns the track that players show: FFmpeg's best one, but not an attached picture."""
    from av.stream import Disposition

    form = container.format.name
    if form == "tty" or form.startswith("image2") or form.endswith("_pipe"):
        fail(name, f"not a video (FFmpeg takes it for {form!r})")
    # For FFmpeg, the cover of an audio file is a video stream too.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(stream.type or "unknown" for stream in container.streams) or "none"
        fail(name, f"no video stream (streams: {others})")
    readable = [stream for stream in streams if stream.codec_context is not None]
    if not readable:
        fail(name, "no decoder for its video codec")
    best = container.streams.best("video")
    if best not in readable:  # FFmpeg itself does not exclude attached pictures
        best = max(readable, key=lambda s: (bool(s.disposition & Disposition.default), s.bit_rate or 0, -s.index))
    # One thread. With frame threads, an error in the middle of a file is lost, and later frames get a wrong index.
    # With any threads, a decoder kept alive by an error's traceback hangs the forked process that frees it, such as a
    # data loader worker. Decode several videos in parallel instead.
    best.thread_type = "NONE"
    best.codec_context.thread_count = 1
    return best


def codec_name(stream: VideoStream) -> str:
    """Returns FFmpeg's name of the codec, independent of the decoder."""
    codec = stream.codec_context.codec
    return str(getattr(codec, "canonical_name", None) or codec.name)


# Packets


@dataclass
class Progress:
    """State of demuxing and decoding.

    Attributes:
        packets: Number of packets so far that become visible frames.
        shown: Whether the latest packet does.
        part: Number of clock restarts: a file may contain several consecutive recordings.
        begun: Whether there was a key frame; before it, the decoder may lack reference frames.
        broken: Why reading stopped before the end.
        as_packets: Whether all frames so far match the packets, in the order of their times.
        frame_part: `part` of the latest frame.
        since: Time stamp before which packets and frames do not count; None counts all.
    """

    packets: int = 0
    shown: bool = False
    part: int = 0
    begun: bool = False
    broken: str | None = None
    as_packets: bool = True
    frame_part: int = 0
    since: int | None = None
    latest: int | None = None  # dts
    untimed: int = 0  # pending packets without a usable time
    waiting: list[tuple[int, int]] = field(default_factory=list)  # heap: (part, pts) of the others

    def expect(self, pts: int | None) -> None:
        """Records that a frame with this time stamp is expected."""
        if pts is None:
            self.untimed += 1
        elif self.since is None or pts >= self.since:
            heappush(self.waiting, (self.part, pts))

    def take(self, frame: VideoFrame) -> None:
        """Compares a frame with the packets."""
        if self.since is not None and frame.pts is not None and frame.pts < self.since:
            return
        if self.waiting and self.waiting[0][1] == frame.pts:
            self.frame_part = heappop(self.waiting)[0]
        elif self.untimed and not self.waiting:
            self.untimed -= 1
            self.frame_part = self.part
        else:
            self.as_packets = False
            found = min((entry for entry in self.waiting if entry[1] == frame.pts), default=None)
            if found is not None:
                self.frame_part = max(self.frame_part, found[0])
                self.waiting = [entry for entry in self.waiting if entry > found]
                heapify(self.waiting)

    def finish(self) -> None:
        """Records that there are no more frames."""
        self.as_packets &= not self.waiting and not self.untimed


def demux(video: VideoFile, progress: Progress) -> Iterator[Packet]:
    """Yields the packets of the video track in file order; stops at an error, recorded in `progress`."""
    import av

    hidden_bit = codec_name(video.stream) == "vp8"
    back, ahead = _clock_limits(video)
    # In mpegts, FFmpeg marks packets after a transmission error, and the last one before another recording.
    marks_are_evidence = video.container.format.name != "mpegts"
    held: Packet | None = None
    try:
        for packet in _all_packets(video):
            if packet.size == 0:  # the end
                continue
            if held is not None:
                packet, held = held, packet
            if packet.is_corrupt and held is None and marks_are_evidence:
                held = packet
                continue
            # VP8 stores reference frames that are never shown as separate packets, marked by this bit.
            progress.shown = not packet.is_discard and not (hidden_bit and not memoryview(packet)[0] >> 4 & 1)
            progress.packets += progress.shown
            progress.begun = progress.begun or packet.is_keyframe
            dts = packet.dts
            if dts is not None:
                if progress.latest is not None and not back <= dts - progress.latest <= ahead:
                    progress.part += 1
                progress.latest = dts
            yield packet
    except (av.error.FFmpegError, OSError, ValueError) as error:
        progress.broken = None if video.is_padded else why(error)
    if held is not None and not video.is_padded:
        progress.broken = "its last packet is incomplete"


def has_times(video: VideoFile) -> bool:
    """Returns whether the format has time stamps; those of a raw stream are guessed by FFmpeg."""
    from av.format import Flags

    return not video.container.format.flags & cast(int, Flags.no_timestamps.value)


def _clock_limits(video: VideoFile) -> tuple[float, float]:
    """Returns the steps of decoding times, in ticks, beyond which FFmpeg assumes another recording."""
    from av.format import Flags

    unit = float(video.stream.time_base or 1)
    leaps_count = bool(video.container.format.flags & cast(int, Flags.ts_discont.value))
    return -_STEP_BACK / unit, _LEAP_AHEAD / unit if leaps_count else math.inf


def _all_packets(video: VideoFile) -> Iterator[Packet]:
    """Yields packets, skipping stretches without any, such as the zeros of a preallocated file."""
    import av

    stalled, video.fresh = 0, False
    while stalled < 3:
        position = video.handle.tell()
        try:
            yield from video.container.demux(video.stream)
            return
        except av.error.BlockingIOError:  # FFmpeg found nothing for a while, and continues if called again
            stalled = stalled + 1 if video.handle.tell() == position else 0


def packet_time(video: VideoFile, packet: Packet) -> int | None:
    """Returns the time stamp of a packet's frame; None if there is no reliable one."""
    # An avi has no time stamps, only the decoding order; FFmpeg's time stamps are guesses.
    return None if video.container.format.name == AVI else packet.pts


@dataclass(frozen=True)
class Packets:
    """Consecutive packets of a file, in file order."""

    progress: Progress
    pts: np.ndarray  # int64, NO_TIME where `packet_time` is None
    dts: np.ndarray  # int64, NO_TIME where unknown
    durations: np.ndarray  # int64, 0 where unknown
    keys: np.ndarray  # bool
    shown: np.ndarray  # bool
    parts: np.ndarray  # int64
    at_end: bool  # whether no packets follow
    head: list[Packet]  # up to the first shown one
    start: list[Packet]  # the first ones
    last_groups: list[Packet]  # from the second-to-last key frame on; empty if too long or not needed


def read_packets(video: VideoFile, until: int | None = None) -> Packets:
    """Reads packets from the current position to the end, or until all with a pts below `until` are read."""
    progress, rows = Progress(), []
    head: list[Packet] = []
    start: list[Packet] = []
    last_groups: list[Packet] = []
    last_key = 0
    keep_groups = video.container.format.name in WITHOUT_PACKET_SIZES
    beyond, at_end = 0, True
    for packet in demux(video, progress):
        stamp, decoded_at, shown = packet_time(video, packet), packet.dts, progress.shown
        if progress.packets <= shown:
            head.append(packet)
        if len(start) < _MAX_OPENING:
            start.append(packet)
        if packet.is_keyframe and keep_groups:
            last_groups, last_key = [*last_groups[last_key:], packet], len(last_groups) - last_key
        elif 0 < len(last_groups) < _MAX_GROUPS:
            last_groups.append(packet)
        else:
            last_groups, last_key = [], 0
        rows.append(
            (
                NO_TIME if stamp is None else stamp,
                NO_TIME if decoded_at is None else decoded_at,
                packet.duration or 0,
                packet.is_keyframe,
                shown,
                progress.part,
            )
        )
        if until is not None and shown and (stamp is None or stamp >= until):
            beyond += 1
            if beyond > _MAX_REORDER:
                at_end = False
                break
    pts, dts, durations, keys, visible, parts = np.array(rows, dtype=np.int64).reshape(-1, 6).T
    return Packets(progress, pts, dts, durations, keys != 0, visible != 0, parts, at_end, head, start, last_groups)


# Frames


def decode_packet(video: VideoFile, packet: Packet | None, progress: Progress) -> list[VideoFrame]:
    """Decodes one packet (None flushes the decoder); errors are recorded in `progress`."""
    try:
        return list(video.stream.codec_context.decode(packet))
    except Exception as error:  # FFmpeg's errors, and those unknown to PyAV
        if progress.begun:
            progress.broken = why(error)
        else:
            video.stream.codec_context.flush_buffers()  # it may still hold undecodable data
        return []


def decode_alone(video: VideoFile, packets: list[Packet], progress: Progress) -> list[VideoFrame]:
    """Decodes packets in isolation, then resets the decoder."""
    frames = [frame for packet in [*packets, None] for frame in decode_packet(video, packet, progress)]
    video.stream.codec_context.flush_buffers()
    return frames


def decode_frames(video: VideoFile, progress: Progress) -> Iterator[VideoFrame]:
    """Yields the frames in presentation order, up to the end or the first error."""
    for packet in demux(video, progress):
        if progress.shown:
            progress.expect(packet_time(video, packet))
        for frame in decode_packet(video, packet, progress):
            progress.take(frame)
            yield frame
        if progress.broken is not None:
            return
    # Flush the decoder only if all packets were complete: in a truncated file, earlier frames may be missing, and
    # later ones would get a wrong index.
    if is_cut(video, progress):
        return
    for frame in decode_packet(video, None, progress):
        progress.take(frame)
        yield frame
    progress.finish()


# The index of an mp4


@dataclass(frozen=True)
class PacketIndex:
    """FFmpeg's index of an mp4, or of its packets from some point on, in file order."""

    dts: np.ndarray
    shown: np.ndarray  # bool: whether packets become visible frames
    end: int  # end of the last packet in the file, in bytes


def read_index(video: VideoFile, since: int | None = None) -> PacketIndex | None:
    """Reads the index of an mp4, from the packet with the dts `since` on; None if there is none."""
    entries: Any = getattr(video.stream, "index_entries", ()) if video.container.format.name == MOV else ()
    if not len(entries):
        return None
    if since is None and len(entries) != video.stream.frames:  # fragments have not been read yet
        return None
    begin = 0 if since is None else max(0, entries.search_timestamp(since, any_frame=True))
    # Copied at once: PyAV's list must not outlive the container.
    rows = [(e.timestamp, e.is_discard, e.pos, e.size) for e in (entries[begin:] if begin else entries)]
    dts, hidden, positions, sizes = np.array(rows, dtype=np.int64).T
    # An edit list can hide packets, as in a video trimmed without reencoding. Recorders leave empty packets for
    # dropped frames; FFmpeg skips them.
    return PacketIndex(dts, (hidden == 0) & (sizes > 0), int((positions + sizes).max()))


# Truncation


def is_cut(video: VideoFile, progress: Progress) -> bool:
    """Returns whether the file, read to its end, is truncated."""
    return progress.broken is not None or video.missing_end is not None


def check_complete(video: VideoFile, progress: Progress) -> None:
    """Checks that a file is not truncated, after reading all of its packets."""
    if is_cut(video, progress):
        detail = progress.broken or video.missing_end
        fail(video.name, f"truncated or broken: it holds only {progress.packets} frames ({detail})")


def check_index(video: VideoFile) -> None:
    """Checks that an mp4's index does not point beyond the end of the file."""
    if video.container.format.name == MOV and video.missing_end is not None:
        fail(video.name, f"truncated: {video.missing_end}")


def cut_reason(video: VideoFile, progress: Progress, decoded: int) -> str:
    """Returns how far decoding got, for messages."""
    of = f" of {video.index.shown.sum()}" if video.index is not None else ""
    detail = progress.broken or video.missing_end
    return f"truncated or broken: only {decoded}{of} frames could be decoded ({detail})"
