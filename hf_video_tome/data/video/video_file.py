"""Video files as PyAV opens them: their track, its packets, and the frames that the decoder makes of them."""

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
# Time stamps before and after all others.
EARLIEST, LATEST = -(2**62), 2**62
AVI = "avi"
# There, what FFmpeg takes for the last packet may be a part of one.
WITHOUT_PACKET_SIZES = ("mpegts", "mpeg")
# How many packets show whether the first ones are frames, and how many are kept to find out about the last ones.
_MAX_OPENING, _MAX_GROUPS = 8, 600
# A frame may come after at most 16 that are shown later (h264, hevc), whose fields may have packets of their own.
_MAX_REORDER = 32
_STEP_BACK, _LEAP_AHEAD = 0.1, 10.0  # seconds
# Stands for a time stamp that is not known.
NO_TIME = -(2**63)


# Opening


@dataclass
class VideoFile:
    """An open container, its video track, and what messages call it."""

    name: str
    handle: BinaryIO
    container: InputContainer
    stream: VideoStream
    fresh: bool = True  # nothing has been read yet

    def restart(self) -> None:
        """Goes back to the beginning, by opening the container again: not all of them can seek."""
        if self.fresh:
            return
        self.container.close()
        self.container = _open_container(self.name, self.handle)
        self.stream = _video_stream(self.name, self.container)
        self.fresh = True

    def seek(self, stamp: int) -> None:
        """Goes to the last key frame that is not after a time stamp."""
        self.fresh = False
        self.container.seek(stamp, stream=self.stream, backward=True)

    @cached_property
    def index(self) -> PacketIndex | None:
        """What an mp4's index says of all packets; None where there is none or PyAV is too old to tell."""
        return read_index(self)

    @cached_property
    def opening(self) -> Packets:
        """The first packets of the track; the container is then somewhere after them."""
        if "scan" in self.__dict__:
            return self.scan
        self.restart()
        return read_packets(self, EARLIEST)

    @cached_property
    def scan(self) -> Packets:
        """All packets of the track; the container is then at its end."""
        self.restart()
        return read_packets(self)

    @cached_property
    def first(self) -> Display | None:
        """How the first frame is shown; None if the first packets alone give none."""
        frames = decode_alone(self, self.opening.head, Progress())
        return display_of(frames[0]) if frames else None

    @cached_property
    def missing_end(self) -> str | None:
        """The evidence that the file was cut off, which is in its container; None if there is none."""
        if self.container.format.name == MOV:
            # By the last packet where the whole index has not been read anyway: it is long.
            index = self.index if "index" in self.__dict__ else read_index(self, since=LATEST)
            if index is not None and 0 < self.container.size < index.end:
                return f"its index reaches up to byte {index.end}, but it has only {self.container.size}"
        return self._look_into(missing_end)

    @cached_property
    def is_padded(self) -> bool:
        """Whether padding follows a container that is all there, over which FFmpeg may stumble."""
        return self._look_into(is_padded)

    def _look_into(self, look: Callable[[BinaryIO, int, str], _T]) -> _T:
        position = self.handle.tell()
        try:
            return look(self.handle, self.container.size, self.container.format.name)
        finally:
            self.handle.seek(position)  # FFmpeg reads on from where it was


@contextmanager
def open_video(source: VideoSource) -> Iterator[VideoFile]:
    """Opens a video; what FFmpeg finds wrong with it, then or later, is an error that says so."""
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
            "A video must be a path, bytes, a binary file object or a FrameFolder, got "
            f"{type(source).__name__}: {source!r}"
        )

    video = None
    try:
        if handle.seek(0, io.SEEK_END) == 0:
            fail(name, "the file is empty (0 bytes)")
        container = _open_container(name, handle)
        video = VideoFile(name, handle, container, _video_stream(name, container))
        yield video
    except av.error.FFmpegError as error:  # of whatever is not expected to raise one
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
        # Through the handle, not by its name, which FFmpeg could take for a URL ("clip: one.mp4") or, where the
        # content is a playlist, use to open other files.
        return av.open(handle, metadata_errors="replace")
    except Exception as error:  # FFmpeg's errors, and what PyAV has no name for
        fail(name, _why_unreadable(handle, why(error)))


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
    """Chooses the track that players show: FFmpeg's best one, but no picture that is only attached."""
    from av.stream import Disposition

    form = container.format.name
    if form == "tty" or form.startswith("image2") or form.endswith("_pipe"):
        fail(name, f"not a video (FFmpeg takes it for {form!r})")
    # The cover picture of an audio file is a video stream too, for FFmpeg.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        others = ", ".join(stream.type or "unknown" for stream in container.streams) or "none"
        fail(name, f"no video stream (streams: {others})")
    readable = [stream for stream in streams if stream.codec_context is not None]
    if not readable:
        fail(name, "no decoder for its video codec")
    best = container.streams.best("video")
    if best not in readable:  # FFmpeg does not leave attached pictures out by itself
        best = max(readable, key=lambda s: (bool(s.disposition & Disposition.default), s.bit_rate or 0, -s.index))
    # One thread. With frame threads an error in the middle of a file got lost, and the frames after it would be
    # counted wrongly. With any threads, a decoder that waits for the garbage collector (an error's traceback keeps it)
    # hangs a forked process that frees it, such as a data loader worker. Run several videos at once instead.
    best.thread_type = "NONE"
    best.codec_context.thread_count = 1
    return best


def codec_name(stream: VideoStream) -> str:
    """Gives FFmpeg's name of the codec, whichever decoder it has."""
    codec = stream.codec_context.codec
    return str(getattr(codec, "canonical_name", None) or codec.name)


# Packets


@dataclass
class Progress:
    """What has been seen of the packets and frames so far.

    Attributes:
        packets: Number of packets that become visible frames.
        shown: Whether the latest packet does.
        part: Number of times that the clock started again: several recordings may follow each other in a file.
        begun: Whether there was a key frame; before it, the decoder may lack what frames refer to.
        broken: Why reading stopped before the end.
        as_packets: Whether all frames so far were the ones that the packets announced, in the order of their times.
        frame_part: `part` of the latest frame.
        since: Time stamp before which packets and frames do not count; None: all do.
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
    untimed: int = 0  # packets without a usable time whose frames have not come
    waiting: list[tuple[int, int]] = field(default_factory=list)  # heap: (part, pts) of the others

    def expect(self, pts: int | None) -> None:
        """Notes that a frame with this time stamp is to come."""
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
        """Notes that all frames have come."""
        self.as_packets &= not self.waiting and not self.untimed


def demux(video: VideoFile, progress: Progress) -> Iterator[Packet]:
    """Gives the packets of the video track in file order; stops, and notes why, where the file is broken."""
    import av

    hidden_bit = codec_name(video.stream) == "vp8"
    back, ahead = _clock_limits(video)
    # There FFmpeg marks packets after an error of transmission, and the last one before a recording that follows.
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
            # VP8 stores frames that are only referred to, never shown, as packets of their own; the bit says so.
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
    """Says if its format has time stamps; those of a raw stream are FFmpeg's guess."""
    from av.format import Flags

    return not video.container.format.flags & cast(int, Flags.no_timestamps.value)


def _clock_limits(video: VideoFile) -> tuple[float, float]:
    """Gives the steps of decoding times, in ticks, beyond which FFmpeg takes what follows for another recording."""
    from av.format import Flags

    unit = float(video.stream.time_base or 1)
    leaps_count = bool(video.container.format.flags & cast(int, Flags.ts_discont.value))
    return -_STEP_BACK / unit, _LEAP_AHEAD / unit if leaps_count else math.inf


def _all_packets(video: VideoFile) -> Iterator[Packet]:
    """Reads packets past stretches that hold none, such as the zeros of a file that was made longer beforehand."""
    import av

    stalled, video.fresh = 0, False
    while stalled < 3:
        position = video.handle.tell()
        try:
            yield from video.container.demux(video.stream)
            return
        except av.error.BlockingIOError:  # FFmpeg found nothing for a while, and goes on if asked again
            stalled = stalled + 1 if video.handle.tell() == position else 0


def packet_time(video: VideoFile, packet: Packet) -> int | None:
    """Gives the time stamp that a packet's frame will have; None where there is none to rely on."""
    # An avi has no time stamps, only places, in the order of decoding; what FFmpeg makes of them is a guess.
    return None if video.container.format.name == AVI else packet.pts


@dataclass(frozen=True)
class Packets:
    """Packets that follow each other in a file, in its order."""

    progress: Progress
    pts: np.ndarray  # int64, NO_TIME where `packet_time` gives None
    dts: np.ndarray  # int64, NO_TIME where it is not known
    durations: np.ndarray  # int64, 0 where they are not known
    keys: np.ndarray  # bool
    shown: np.ndarray  # bool
    parts: np.ndarray  # int64
    at_end: bool  # no others follow
    head: list[Packet]  # up to the first that is shown
    start: list[Packet]  # the first ones
    last_groups: list[Packet]  # from the key frame before the last one on; none where they are too long or not needed


def read_packets(video: VideoFile, until: int | None = None) -> Packets:
    """Reads packets from where the container is, to the end or to all of those with a pts below `until`."""
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
    """Decodes one packet (None: what the decoder still holds); what is wrong with it goes to `progress`."""
    try:
        return list(video.stream.codec_context.decode(packet))
    except Exception as error:  # FFmpeg's errors, and what PyAV has no name for
        if progress.begun:
            progress.broken = why(error)
        else:
            video.stream.codec_context.flush_buffers()  # it may hold the rest of what it could not decode
        return []


def decode_alone(video: VideoFile, packets: list[Packet], progress: Progress) -> list[VideoFrame]:
    """Decodes packets as if there were no others; the decoder then knows nothing of them."""
    frames = [frame for packet in [*packets, None] for frame in decode_packet(video, packet, progress)]
    video.stream.codec_context.flush_buffers()
    return frames


def decode_frames(video: VideoFile, progress: Progress) -> Iterator[VideoFrame]:
    """Gives the frames in presentation order, up to the end or to where the file is broken."""
    for packet in demux(video, progress):
        if progress.shown:
            progress.expect(packet_time(video, packet))
        for frame in decode_packet(video, packet, progress):
            progress.take(frame)
            yield frame
        if progress.broken is not None:
            return
    # What the decoder still holds comes next only if all packets were there: of a file that is cut short, frames that
    # are shown earlier may be missing, and those after them would get a wrong index.
    if is_cut(video, progress):
        return
    for frame in decode_packet(video, None, progress):
        progress.take(frame)
        yield frame
    progress.finish()


# The index of an mp4


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
    if since is None and len(entries) != video.stream.frames:  # of fragments that have not been read yet
        return None
    begin = 0 if since is None else max(0, entries.search_timestamp(since, any_frame=True))
    # Copied at once: PyAV's list must not outlive the container.
    rows = [(e.timestamp, e.is_discard, e.pos, e.size) for e in (entries[begin:] if begin else entries)]
    dts, hidden, positions, sizes = np.array(rows, dtype=np.int64).T
    # An edit list can hide packets, as in a video that was trimmed without encoding it again. One without content is
    # left where a recorder dropped a frame: FFmpeg skips it.
    return PacketIndex(dts, (hidden == 0) & (sizes > 0), int((positions + sizes).max()))


# Whether it is all there


def is_cut(video: VideoFile, progress: Progress) -> bool:
    """Says if the file ended before its video did, having been read up to its end."""
    return progress.broken is not None or video.missing_end is not None


def check_complete(video: VideoFile, progress: Progress) -> None:
    """Raises if the file ended before its video did, all of its packets having been read."""
    if is_cut(video, progress):
        detail = progress.broken or video.missing_end
        fail(video.name, f"truncated or broken: it holds only {progress.packets} frames ({detail})")


def check_index(video: VideoFile) -> None:
    """Raises if an mp4's index points beyond the end of the file."""
    if video.container.format.name == MOV and video.missing_end is not None:
        fail(video.name, f"truncated: {video.missing_end}")


def cut_reason(video: VideoFile, progress: Progress, decoded: int) -> str:
    """Says how far decoding came."""
    of = f" of {video.index.shown.sum()}" if video.index is not None else ""
    detail = progress.broken or video.missing_end
    return f"truncated or broken: only {decoded}{of} frames could be decoded ({detail})"
