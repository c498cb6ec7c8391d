"""Frames of a video, as given by the decoder.

Counting packets is much faster, and correct if every packet becomes a frame. It is wrong if a file begins within a
group of pictures or lacks a key frame, because the decoder drops what it cannot decode. The packets show where that is
possible: they do not begin with a key frame, have a gap, have no time stamps, or the clock restarts. Only there are
packets decoded, and at the ends of files whose packets do not show it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .display import Display, display_of
from .seeking import Keys, decodes_through, find_keys, pauses
from .timeline import ShownFrames, Timeline, frames_of_packets, period, timeline_of
from .types import fail
from .video_file import (
    AVI,
    NO_TIME,
    WITHOUT_PACKET_SIZES,
    Packets,
    Progress,
    VideoFile,
    check_complete,
    check_index,
    cut_reason,
    decode_alone,
    decode_frames,
    has_times,
    is_cut,
)


@dataclass
class Frames:
    """Frames of an open video.

    Args:
        video: The video.
        as_packets: Whether each packet becomes a frame; None to determine it.
    """

    video: VideoFile
    as_packets: bool | None = None

    def count(self) -> int:
        """Counts the frames.

        Raises:
            VideoDecodingError: If there is none, or the file is truncated.
        """
        index = self.video.index
        if index is not None:
            check_index(self.video)
            count = int(index.shown.sum())
        else:
            check_complete(self.video, self.video.scan.progress)
            count = int(self.video.scan.shown.sum())
        if not self._are_packets:
            count = len(self._decoded.frames.stamps)
        return count or fail(self.video.name, "no frame can be decoded")

    def timeline(self) -> Timeline:
        """Returns the times of all frames.

        Raises:
            VideoDecodingError: If there is no frame, the file is truncated, or the times are unknown.
        """
        times = self._times()
        if times is not None:
            return timeline_of(self.video, times)
        count, step = self.count(), period(self.video)
        if not step:
            fail(self.video.name, "has neither time stamps nor a frame rate, so that no time can be looked up")
        return Timeline(self.video.name, np.arange(count) * step, count * step)

    def duration(self) -> float:
        """Returns the length in seconds; 0.0 if unknown."""
        timed = self._times() is not None or period(self.video)
        return self.timeline().end if timed else 0.0

    def _times(self) -> ShownFrames | None:
        check_index(self.video)
        check_complete(self.video, self.video.scan.progress)
        frames = frames_of_packets(self.video.scan) if self._are_packets else self._decoded.timed
        return frames if frames is not None and len(frames.stamps) and self.video.stream.time_base else None

    def keys(self) -> Keys | None:
        """Returns the key frames at which decoding can begin; None if only at the start."""
        return self._keys if self.as_packets is not False and self._keys and self._look_like_packets else None

    def first(self) -> Display:
        """Returns the display settings of the first frame.

        Raises:
            VideoDecodingError: If there is no frame.
        """
        return self.video.first or self._decoded.first or fail(self.video.name, "no frame can be decoded")

    @cached_property
    def _keys(self) -> Keys | None:
        return find_keys(self.video)

    @property
    def _are_packets(self) -> bool:
        if self.as_packets is None:
            self.as_packets = self._look_like_packets or self._decoded.as_packets
        return self.as_packets

    @cached_property
    def _look_like_packets(self) -> bool:
        keys = self._keys
        if keys is not None:
            return decodes_through(self.video, keys, pauses(keys.stamps))
        return _look_complete(self.video.scan) and _ends_decode(self.video)

    @cached_property
    def _decoded(self) -> _Decoded:
        return _decode_all(self.video)


def _look_complete(packets: Packets) -> bool:
    """Returns whether packets form one recording without gaps, begun by a key frame that is shown first."""
    untimed = np.count_nonzero(packets.pts == NO_TIME)
    if not len(packets.pts) or not packets.keys[0] or packets.progress.part or untimed not in (0, len(packets.pts)):
        return False
    stamps = packets.dts if untimed else packets.pts
    shown = np.sort(stamps[packets.shown])
    return not len(shown) or bool(shown[0] >= stamps[0] and not len(pauses(shown)))


def _ends_decode(video: VideoFile) -> bool:
    """Returns whether each packet at the ends of the video decodes to a frame, if only the decoder can tell."""
    packets, form = video.scan, video.container.format.name
    if form == AVI:  # it may begin with frames that refer to removed ones, but has no times to show it
        frames = decode_alone(video, packets.start, Progress())
        return len(frames) == np.count_nonzero(packets.shown[: len(packets.start)])
    if form in WITHOUT_PACKET_SIZES:
        count, progress = len(packets.last_groups), Progress(begun=True)
        if not count:
            return False
        expected = np.sort(packets.pts[-count:][packets.shown[-count:]])
        frames = decode_alone(video, packets.last_groups, progress)
        since = packets.pts[-count]  # leading frames before it lack their reference frames
        stamps = [frame.pts for frame in frames if frame.pts is None or frame.pts >= since]
        return progress.broken is None and stamps == expected[expected >= since].tolist()
    return has_times(video)


@dataclass(frozen=True)
class _Decoded:
    """Result of decoding a whole video."""

    frames: ShownFrames  # in decoding order, with NO_TIME for unknown time stamps
    first: Display | None
    as_packets: bool  # whether each was one packet

    @property
    def timed(self) -> ShownFrames | None:
        """The frames with their times; None if some have none."""
        return None if np.any(self.frames.stamps == NO_TIME) else self.frames.in_order()


def _decode_all(video: VideoFile) -> _Decoded:
    """Decodes a whole video; raises an error if it is truncated."""
    video.restart()
    progress, rows, first = Progress(), [], None
    for frame in decode_frames(video, progress):
        first = first or display_of(frame)
        stamp = NO_TIME if frame.pts is None else frame.pts
        rows.append((progress.frame_part, stamp, getattr(frame, "duration", 0) or 0))
    if is_cut(video, progress):
        fail(video.name, cut_reason(video, progress, len(rows)))
    frames = ShownFrames(*np.array(rows, dtype=np.int64).reshape(-1, 3).T)
    return _Decoded(frames, first, progress.as_packets)
