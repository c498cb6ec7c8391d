"""Frames read from the key frames before them, wherever that gives what decoding from the start gives.

A key frame may be followed in the file by "leading" frames that are shown before it and refer to what was before: they
belong to the key frame before. All that this rests on is checked on the way: time stamps are unique, seeking lands on
a key frame, which is a complete picture, and the video begins with one that has no leading frames (the decoder would
drop those). Where that does not hold, the functions here return None, and decoding from the start is for the caller.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import compress, pairwise

import numpy as np
import torch

from .pixels import FrameCollector
from .timeline import TIME_TOLERANCE, Timeline, timeline_of
from .video_file import (
    MATROSKA,
    MOV,
    PacketIndex,
    Packets,
    Progress,
    VideoFile,
    check_file_size,
    codec_name,
    decode_frames,
    is_cut,
    read_packets,
)

_SEEKABLE_FORMATS = (MOV, MATROSKA)
_SEEKABLE_CODECS = ("h264", "hevc", "mpeg4", "vp9", "av1")
# To decode fewer unwanted frames than this costs less than to look for a key frame after them.
_MIN_SKIPPED = 16
# Time stamps before and after all others.
_EARLIEST, _LATEST = -(2**62), 2**62


def is_sparse(wanted: list[int]) -> bool:
    """Says if some frames before or between the wanted ones might be skipped with a gain."""
    ranks = sorted(set(wanted))
    return ranks[0] >= _MIN_SKIPPED or any(after - before >= _MIN_SKIPPED for before, after in pairwise(ranks))


def read_by_rank(video: VideoFile, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames of a whole video by seeking; None if that was not possible, or would skip nothing."""
    import av

    if not _is_seekable(video):
        return None
    try:
        index = video.index
        keys: Stretch | _KeysByIndex | None = None
        if index is not None and len(index.dts) == video.stream.frames and np.all(np.diff(index.dts) > 0):
            keys = _keys_by_index(video, index)
        elif video.scan.progress.broken is None:
            keys = _stretch(video.scan, leading_allowed=False)
        if keys is None or max(wanted) >= keys.num_frames:
            return None
        runs = _plan_runs(wanted, keys)
        if runs is None or (len(runs) == 1 and runs[0].key.index == 0):
            return None
        return _decode_runs(video, wanted, runs)
    except av.error.FFmpegError:  # decoding from the start either works or says what is wrong
        return None


def find_stretch(video: VideoFile, start: float, stop: float) -> tuple[Timeline, Stretch] | None:
    """Finds the frames that are shown in a part of a video, without reading the rest.

    Args:
        video: The video, just opened.
        start: Beginning in seconds from the first frame.
        stop: End, in the same way; may be infinite.

    Returns:
        When they are shown and where they are, with some before `start`; None if that was not possible.

    Raises:
        VideoDecodingError: If the file is an mp4 that is cut short.
    """
    import av

    unit = video.stream.time_base
    if not _is_seekable(video) or not unit:
        return None
    check_file_size(video, since=_LATEST)  # by the last packet: the index of all is long
    try:
        beginning = _stretch(read_packets(video, _EARLIEST), leading_allowed=False)
        if beginning is None:
            return None
        origin = beginning.frames[0][0]
        first = origin + int(min(max(start - TIME_TOLERANCE, 0.0) / unit, _LATEST))
        last = origin + int(min((stop + TIME_TOLERANCE) / unit, _LATEST)) + 1
        for stretch in _landings(video, first, last):
            if stretch.frames[0][0] <= first:
                break
        else:
            return None
        if stretch.packets.at_end and is_cut(video, stretch.packets.progress):
            return None
    except av.error.FFmpegError:
        return None
    if not stretch.packets.at_end:  # after `last`, frames may be missing between others
        stretch = replace(stretch, frames=[frame for frame in stretch.frames if frame[0] < last])
    timeline = timeline_of(video, stretch.frames, origin)
    return timeline if stretch.packets.at_end else replace(timeline, end=math.inf), stretch


def read_from_stretch(video: VideoFile, stretch: Stretch, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames by their indices in a stretch of the video; None if that was not possible."""
    import av

    try:
        runs = _plan_runs(wanted, stretch)
        return None if runs is None else _decode_runs(video, wanted, runs)
    except av.error.FFmpegError:
        return None


def _is_seekable(video: VideoFile) -> bool:
    return video.container.format.name in _SEEKABLE_FORMATS and codec_name(video.stream) in _SEEKABLE_CODECS


# Where decoding can begin


@dataclass(frozen=True)
class _KeyFrame:
    pts: int
    dts: int  # the pts where it is not known (mkv)
    index: int


@dataclass(frozen=True)
class Stretch:
    """Frames that follow each other, from a key frame on."""

    frames: list[tuple[int, int]]  # (pts, duration), ascending
    leading: int  # frames that come after that key frame in the file but are shown before it; they are not in `frames`
    packets: Packets
    start: _KeyFrame
    _keys: list[_KeyFrame]

    @property
    def num_frames(self) -> int:
        """How many there are."""
        return len(self.frames)

    def before(self, index: int) -> _KeyFrame | None:
        """Finds the last key frame from which a frame can be decoded; None if there is none."""
        place = bisect_right(self._keys, index, key=lambda key: key.index)
        return self._keys[place - 1] if place else None


def _stretch(packets: Packets, leading_allowed: bool = True) -> Stretch | None:
    """Sorts packets into a stretch; None where they do not begin with a key frame, or have no time stamps to go by."""
    stamps = [pts for pts in packets.pts if pts is not None]
    if not stamps or len(set(stamps)) < len(packets.pts) or not packets.keys[0]:
        return None
    shown = sorted(compress(zip(stamps, packets.durations, strict=True), packets.shown))
    leading = bisect_left(shown, (stamps[0], 0))
    if leading == len(shown) or (leading and not leading_allowed):
        return None
    keys = [
        _KeyFrame(pts, pts if dts is None else dts, bisect_left(shown, (pts, 0)) - leading)
        for pts, dts in compress(zip(stamps, packets.dts, strict=True), packets.keys)
    ]
    return Stretch(shown[leading:], leading, packets, keys[0], sorted(keys, key=lambda key: key.index))


@dataclass(frozen=True)
class _KeysByIndex:
    """The key frames of an mp4, by its index, which tells the order of packets but not when they are shown."""

    video: VideoFile
    dts: np.ndarray
    shown: np.ndarray  # positions of packets that become visible frames
    delay: int  # from the first dts to the first pts

    @property
    def num_frames(self) -> int:
        return len(self.shown)

    def before(self, index: int) -> _KeyFrame | None:
        """Finds the last key frame from which a frame can be decoded; None if there is none."""
        for landing in _landings(self.video, int(self.dts[self.shown[index]]) + self.delay, _EARLIEST):
            position = int(np.searchsorted(self.dts, landing.start.dts))
            if position == len(self.dts) or self.dts[position] != landing.start.dts:
                return None
            first = int(np.searchsorted(self.shown, position)) + landing.leading
            if first <= index:  # else it is one of the leading frames
                return replace(landing.start, index=first)
        return None


def _keys_by_index(video: VideoFile, index: PacketIndex) -> _KeysByIndex | None:
    """Takes an mp4's index, if the video begins with a key frame that has no leading frames."""
    beginning = next(_landings(video, int(index.dts[0]), _EARLIEST), None)
    if beginning is None or beginning.leading or beginning.start.dts != index.dts[0]:
        return None
    return _KeysByIndex(video, index.dts, np.flatnonzero(index.shown), beginning.start.pts - beginning.start.dts)


def _landings(video: VideoFile, request: int, until: int) -> Iterator[Stretch]:
    """Gives what comes after the key frame before a time stamp, up to `until`, then after the ones before that."""
    for _ in range(3):
        video.container.seek(request, stream=video.stream, backward=True)
        stretch = _stretch(read_packets(video, until))
        if stretch is None:
            return
        stretch.packets.progress.since = stretch.start.dts
        yield stretch
        request = min(stretch.start.dts, stretch.start.pts) - 1


# Decoding


@dataclass
class _Run:
    """A stretch of frames to decode."""

    key: _KeyFrame
    last: int


def _plan_runs(wanted: list[int], keys: Stretch | _KeysByIndex) -> list[_Run] | None:
    """Splits what is to be decoded where a key frame allows to skip frames; None where that is not known."""
    runs: list[_Run] = []
    for index in sorted(set(wanted)):
        if runs and index - runs[-1].last < _MIN_SKIPPED:
            runs[-1].last = index
            continue
        key = keys.before(index)
        if key is None:
            return None
        if runs and key.index <= runs[-1].last:
            runs[-1].last = index
        else:
            runs.append(_Run(key, index))
    return runs


def _decode_runs(video: VideoFile, wanted: list[int], runs: list[_Run]) -> torch.Tensor | None:
    clip = FrameCollector(video.name, wanted)
    return clip.result() if all(_decode_run(video, clip, run) for run in runs) else None


def _decode_run(video: VideoFile, clip: FrameCollector, run: _Run) -> bool:
    """Decodes one run; says if that went as planned."""
    import av

    key, index, latest = run.key, run.key.index, run.key.pts
    video.container.seek(key.pts, stream=video.stream, backward=True)
    for frame in decode_frames(video, Progress(since=key.dts)):
        if frame.pts is None:
            return False
        if index == key.index:
            if frame.pts < key.pts:  # leading frames, which cannot be right without what was before
                continue
            # Periodic intra refresh marks frames as key frames that are not complete by themselves.
            if frame.pts != key.pts or frame.pict_type != av.video.frame.PictureType.I:
                return False
        elif frame.pts <= latest:  # time stamps that are none, as those of an mp4 without the order of its B-frames
            return False
        clip.add(index, frame)
        if index == run.last:
            return True
        index, latest = index + 1, frame.pts
    return False
