"""Frames read from the key frames before them, wherever that gives what decoding from the start gives.

A key frame may be followed in the file by "leading" frames that are shown before it and refer to what was before: they
belong to the key frame before. All that this rests on is checked on the way: time stamps are unique, seeking lands on
a key frame, which is a complete picture, and the video begins with one that has no leading frames (the decoder would
drop those). Where that does not hold, the functions here return None, and decoding from the start is for the caller.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch

from .display import orientation_of
from .pixels import FrameCollector
from .timeline import TIME_TOLERANCE, ShownFrames, Timeline, frames_of_packets, timeline_of
from .video_file import (
    EARLIEST,
    LATEST,
    MATROSKA,
    MOV,
    NO_TIME,
    PacketIndex,
    Packets,
    Progress,
    VideoFile,
    check_index,
    codec_name,
    decode_frames,
    is_cut,
    read_packets,
)

_SEEKABLE_FORMATS = (MOV, MATROSKA)
_SEEKABLE_CODECS = ("h264", "hevc", "mpeg4", "vp9", "av1")
# To decode fewer unwanted frames than this costs less than to look for a key frame after them.
_MIN_SKIPPED = 16
# Frames after a pause by which it is clear whether the decoder lacks something.
_AFTER_PAUSE = 4


def is_sparse(wanted: list[int]) -> bool:
    """Says if some frames before or between the wanted ones might be skipped with a gain."""
    ranks = sorted(set(wanted))
    return ranks[0] >= _MIN_SKIPPED or any(after - before >= _MIN_SKIPPED for before, after in pairwise(ranks))


def find_keys(video: VideoFile) -> Keys | None:
    """Finds where decoding can begin in a video; None where that is only at its start."""
    if not _is_seekable(video):
        return None
    index = video.index
    if index is not None and len(index.dts) == video.stream.frames and np.all(np.diff(index.dts) > 0):
        return _keys_by_index(video, index)
    return _stretch(video.scan, leading_allowed=False) if video.scan.progress.broken is None else None


def read_by_rank(video: VideoFile, keys: Keys, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames of a whole video by seeking; None if that was not possible, or would skip nothing."""
    import av

    try:
        if max(wanted) >= keys.num_frames:
            return None
        runs = _plan_runs(wanted, keys)
        if runs is None or (len(runs) == 1 and runs[0].key.index == 0):
            return None
        return _decode_runs(video, wanted, runs)
    except av.error.FFmpegError:  # decoding from the start either works or says what is wrong
        return None


def pauses(stamps: np.ndarray) -> np.ndarray:
    """Finds the frames before which a packet may be missing: after a longer time than before and after it.

    Args:
        stamps: (number of frames,) time stamps, ascending, in any unit.

    Returns:
        Indices of these frames, ascending.

    Examples:
        >>> pauses(np.array([0, 40, 80, 160, 200])).tolist()
        [3]
    """
    steps = np.diff(stamps)
    around = np.maximum(np.append(0, steps[:-1]), np.append(steps[1:], 0))
    return np.flatnonzero((steps > 1.5 * around) & (around > 0)) + 1


def decodes_through(video: VideoFile, keys: Keys, frames: np.ndarray) -> bool:
    """Says if the decoder makes a frame of every packet around the given frames."""
    import av

    last = keys.num_frames - 1
    try:
        runs = _plan_runs([min(int(frame) + _AFTER_PAUSE, last) for frame in frames], keys)
        return runs is not None and all(_decode_run(video, None, run) for run in runs)
    except av.error.FFmpegError:
        return False


def find_stretch(video: VideoFile, start: float, stop: float) -> tuple[Timeline, Stretch] | None:
    """Finds the frames that are shown in a part of a video, without reading the rest.

    Args:
        video: The video.
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
    check_index(video)
    try:
        beginning = _stretch(video.opening, leading_allowed=False)
        if beginning is None:
            return None
        origin = int(beginning.frames.stamps[0])
        first = origin + int(min(max(start - TIME_TOLERANCE, 0.0) / unit, LATEST))
        last = origin + int(min((stop + TIME_TOLERANCE) / unit, LATEST)) + 1
        for stretch in _landings(video, first, last):
            if stretch.frames.stamps[0] <= first:
                break
        else:
            return None
        if stretch.packets.at_end and is_cut(video, stretch.packets.progress):
            return None
    except av.error.FFmpegError:
        return None
    if not stretch.packets.at_end:  # after `last`, frames may be missing between others
        before = stretch.frames.stamps < last
        stretch = replace(stretch, frames=ShownFrames(*(values[before] for values in stretch.frames)))
    if not decodes_through(video, stretch, pauses(stretch.stamps)):
        return None
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

    frames: ShownFrames  # of one part
    leading: int  # frames that come after that key frame in the file but are shown before it; they are not in `frames`
    packets: Packets
    start: _KeyFrame
    _keys: list[_KeyFrame]

    @property
    def num_frames(self) -> int:
        """How many there are."""
        return len(self.frames.stamps)

    @property
    def stamps(self) -> np.ndarray:
        """Their time stamps, ascending."""
        return self.frames.stamps

    def before(self, index: int) -> _KeyFrame | None:
        """Finds the last key frame from which a frame can be decoded; None if there is none."""
        place = bisect_right(self._keys, index, key=lambda key: key.index)
        return self._keys[place - 1] if place else None


def _stretch(packets: Packets, leading_allowed: bool = True) -> Stretch | None:
    """Sorts packets into a stretch; None where they do not begin with a key frame, or have no time stamps to go by."""
    frames = frames_of_packets(packets)
    if not len(packets.pts) or not packets.keys[0] or packets.progress.part or frames is None:
        return None
    if len(np.unique(packets.pts)) < len(packets.pts):  # also where some are not known
        return None
    leading = int(np.searchsorted(frames.stamps, packets.pts[0]))
    if leading == len(frames.stamps) or (leading and not leading_allowed):
        return None
    pts, dts = packets.pts[packets.keys], packets.dts[packets.keys]
    keys = [
        _KeyFrame(*key)
        for key in zip(
            pts.tolist(),
            np.where(dts == NO_TIME, pts, dts).tolist(),
            (np.searchsorted(frames.stamps, pts) - leading).tolist(),
            strict=True,
        )
    ]
    frames = ShownFrames(*(values[leading:] for values in frames))
    return Stretch(frames, leading, packets, keys[0], sorted(keys, key=lambda key: key.index))


@dataclass(frozen=True)
class KeysByIndex:
    """The key frames of an mp4, by its index, which tells the order of packets but not when they are shown."""

    video: VideoFile
    dts: np.ndarray
    shown: np.ndarray  # positions of packets that become visible frames
    delay: int  # from the first dts to the first pts

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return len(self.shown)

    @property
    def stamps(self) -> np.ndarray:
        """When they are decoded, ascending, which has the pauses of when they are shown."""
        return self.dts[self.shown]

    def before(self, index: int) -> _KeyFrame | None:
        """Finds the last key frame from which a frame can be decoded; None if there is none."""
        for landing in _landings(self.video, int(self.dts[self.shown[index]]) + self.delay, EARLIEST):
            position = int(np.searchsorted(self.dts, landing.start.dts))
            if position == len(self.dts) or self.dts[position] != landing.start.dts:
                return None
            first = int(np.searchsorted(self.shown, position)) + landing.leading
            if first <= index:  # else it is one of the leading frames
                return replace(landing.start, index=first)
        return None


Keys: TypeAlias = Stretch | KeysByIndex


def _keys_by_index(video: VideoFile, index: PacketIndex) -> KeysByIndex | None:
    """Takes an mp4's index, if the video begins with a key frame that has no leading frames."""
    beginning = _stretch(video.opening, leading_allowed=False)
    if beginning is None or beginning.start.dts != index.dts[0]:
        return None
    return KeysByIndex(video, index.dts, np.flatnonzero(index.shown), beginning.start.pts - beginning.start.dts)


def _landings(video: VideoFile, request: int, until: int) -> Iterator[Stretch]:
    """Gives what comes after the key frame before a time stamp, up to `until`, then after the ones before that."""
    for _ in range(3):
        video.seek(request)
        stretch = _stretch(read_packets(video, until))
        if stretch is None:
            return
        yield stretch
        request = min(stretch.start.dts, stretch.start.pts) - 1


# Decoding


@dataclass
class _Run:
    """A stretch of frames to decode."""

    key: _KeyFrame
    last: int


def _plan_runs(wanted: list[int], keys: Keys) -> list[_Run] | None:
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
    at_start = runs[0].key.pts == video.opening.pts[0]
    first = None if at_start else video.first  # the clip is shown like the video's first frame
    if first is None and not at_start:
        return None
    clip = FrameCollector(video.name, wanted, first)
    return clip.result() if all(_decode_run(video, clip, run) for run in runs) else None


def _decode_run(video: VideoFile, clip: FrameCollector | None, run: _Run) -> bool:
    """Decodes one run; says if that went as planned."""
    import av

    key, index, progress = run.key, run.key.index, Progress(since=run.key.pts)
    video.seek(key.pts)
    for frame in decode_frames(video, progress):
        if frame.pts is None or not progress.as_packets:
            return False
        if index == key.index:
            if frame.pts < key.pts:  # leading frames, which cannot be right without what was before
                continue
            # Periodic intra refresh marks frames as key frames that are not complete by themselves.
            if frame.pts != key.pts or not (frame.key_frame and frame.pict_type == av.video.frame.PictureType.I):
                return False
            # What an earlier frame said holds on, and is not known here.
            if clip is not None and not clip.can_begin_with(orientation_of(frame)):
                return False
        if clip is not None:
            clip.add(index, frame)
        if index == run.last:
            return True
        index += 1
    return False
