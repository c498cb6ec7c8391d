"""Reading of frames by seeking, wherever that gives the same result as decoding from the start.

In the file, a key frame may be followed by "leading" frames that are shown before it and refer to earlier frames: they
belong to the previous key frame. All assumptions are checked: time stamps are unique, seeking lands on a key frame,
which is a complete picture, and the video begins with one that has no leading frames (the decoder would drop those).
If any fails, the functions here return None, and the caller decodes from the start.
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
# Decoding fewer unwanted frames than this is cheaper than seeking past them.
_MIN_SKIPPED = 16
# Number of frames after a gap that show whether the decoder lacks a reference frame.
_AFTER_PAUSE = 4


def is_sparse(wanted: list[int]) -> bool:
    """Returns whether skipping frames before or between the requested ones may save time."""
    ranks = sorted(set(wanted))
    return ranks[0] >= _MIN_SKIPPED or any(after - before >= _MIN_SKIPPED for before, after in pairwise(ranks))


def find_keys(video: VideoFile) -> Keys | None:
    """Returns the key frames at which decoding can begin; None if only at the start."""
    if not _is_seekable(video):
        return None
    index = video.index
    if index is not None and len(index.dts) == video.stream.frames and np.all(np.diff(index.dts) > 0):
        return _keys_by_index(video, index)
    return _stretch(video.scan, leading_allowed=False) if video.scan.progress.broken is None else None


def read_by_rank(video: VideoFile, keys: Keys, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames of a whole video by seeking; None if that is impossible or skips nothing."""
    import av

    try:
        if max(wanted) >= keys.num_frames:
            return None
        runs = _plan_runs(wanted, keys)
        if runs is None or (len(runs) == 1 and runs[0].key.index == 0):
            return None
        return _decode_runs(video, wanted, runs)
    except av.error.FFmpegError:  # decoding from the start either works or reports the error
        return None


def pauses(stamps: np.ndarray) -> np.ndarray:
    """Finds the frames before which a packet may be missing, because the gap is longer than its neighbours.

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
    """Returns whether every packet around the given frames decodes to a frame."""
    import av

    last = keys.num_frames - 1
    try:
        runs = _plan_runs([min(int(frame) + _AFTER_PAUSE, last) for frame in frames], keys)
        return runs is not None and all(_decode_run(video, None, run) for run in runs)
    except av.error.FFmpegError:
        return False


def find_stretch(video: VideoFile, start: float, stop: float) -> tuple[Timeline, Stretch] | None:
    """Finds the frames in a part of a video, without reading the rest.

    Args:
        video: The video.
        start: Start in seconds from the first frame.
        stop: End in seconds from the first frame; may be infinite.

    Returns:
        The timeline and the stretch of these frames, with some before `start`; None if that is impossible.

    Raises:
        VideoDecodingError: If the file is a truncated mp4.
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
    if not stretch.packets.at_end:  # after `last`, the frames may be incomplete
        before = stretch.frames.stamps < last
        stretch = replace(stretch, frames=ShownFrames(*(values[before] for values in stretch.frames)))
    if not decodes_through(video, stretch, pauses(stretch.stamps)):
        return None
    timeline = timeline_of(video, stretch.frames, origin)
    return timeline if stretch.packets.at_end else replace(timeline, end=math.inf), stretch


def read_from_stretch(video: VideoFile, stretch: Stretch, wanted: list[int]) -> torch.Tensor | None:
    """Reads frames by their indices in a stretch of the video; None if that is impossible."""
    import av

    try:
        runs = _plan_runs(wanted, stretch)
        return None if runs is None else _decode_runs(video, wanted, runs)
    except av.error.FFmpegError:
        return None


def _is_seekable(video: VideoFile) -> bool:
    return video.container.format.name in _SEEKABLE_FORMATS and codec_name(video.stream) in _SEEKABLE_CODECS


# Key frames


@dataclass(frozen=True)
class _KeyFrame:
    pts: int
    dts: int  # the pts if unknown (mkv)
    index: int


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames, from a key frame on."""

    frames: ShownFrames  # of one part
    leading: int  # number of frames after that key frame in the file but shown before it; not in `frames`
    packets: Packets
    start: _KeyFrame
    _keys: list[_KeyFrame]

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.frames.stamps)

    @property
    def stamps(self) -> np.ndarray:
        """Ascending time stamps of the frames."""
        return self.frames.stamps

    def before(self, index: int) -> _KeyFrame | None:
        """Returns the last key frame from which a frame can be decoded; None if there is none."""
        position = bisect_right(self._keys, index, key=lambda key: key.index)
        return self._keys[position - 1] if position else None


def _stretch(packets: Packets, leading_allowed: bool = True) -> Stretch | None:
    """Sorts packets into a stretch; None if they do not begin with a key frame or have no usable time stamps."""
    frames = frames_of_packets(packets)
    if not len(packets.pts) or not packets.keys[0] or packets.progress.part or frames is None:
        return None
    if len(np.unique(packets.pts)) < len(packets.pts):  # also if some are unknown
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
    """Key frames of an mp4, by its index, which gives the order of packets but not their presentation times."""

    video: VideoFile
    dts: np.ndarray
    shown: np.ndarray  # positions of the packets that become visible frames
    delay: int  # from the first dts to the first pts

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.shown)

    @property
    def stamps(self) -> np.ndarray:
        """Ascending decoding times, which have the same gaps as the presentation times."""
        return self.dts[self.shown]

    def before(self, index: int) -> _KeyFrame | None:
        """Returns the last key frame from which a frame can be decoded; None if there is none."""
        for landing in _landings(self.video, int(self.dts[self.shown[index]]) + self.delay, EARLIEST):
            position = int(np.searchsorted(self.dts, landing.start.dts))
            if position == len(self.dts) or self.dts[position] != landing.start.dts:
                return None
            first = int(np.searchsorted(self.shown, position)) + landing.leading
            if first <= index:  # otherwise it is one of the leading frames
                return replace(landing.start, index=first)
        return None


Keys: TypeAlias = Stretch | KeysByIndex


def _keys_by_index(video: VideoFile, index: PacketIndex) -> KeysByIndex | None:
    """Returns the key frames by an mp4's index, if the video begins with a key frame without leading frames."""
    beginning = _stretch(video.opening, leading_allowed=False)
    if beginning is None or beginning.start.dts != index.dts[0]:
        return None
    return KeysByIndex(video, index.dts, np.flatnonzero(index.shown), beginning.start.pts - beginning.start.dts)


def _landings(video: VideoFile, request: int, until: int) -> Iterator[Stretch]:
    """Yields the stretch from the key frame before a time stamp up to `until`, then from earlier key frames."""
    for _ in range(3):
        video.seek(request)
        stretch = _stretch(read_packets(video, until))
        if stretch is None:
            return
        yield stretch
        request = min(stretch.start.dts, stretch.start.pts) - 1


# Decoding


@dataclass
class _DecodingRun:
    """Run of frames to decode."""

    key: _KeyFrame
    last: int


def _plan_runs(wanted: list[int], keys: Keys) -> list[_DecodingRun] | None:
    """Splits the requested frames into runs where a key frame allows skipping; None if that is unknown."""
    runs: list[_DecodingRun] = []
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
            runs.append(_DecodingRun(key, index))
    return runs


def _decode_runs(video: VideoFile, wanted: list[int], runs: list[_DecodingRun]) -> torch.Tensor | None:
    at_start = runs[0].key.pts == video.opening.pts[0]
    first = None if at_start else video.first  # the clip is displayed like the video's first frame
    if first is None and not at_start:
        return None
    clip = FrameCollector(video.name, wanted, first)
    return clip.result() if all(_decode_run(video, clip, run) for run in runs) else None


def _decode_run(video: VideoFile, clip: FrameCollector | None, run: _DecodingRun) -> bool:
    """Decodes one run; returns whether all went as planned."""
    import av

    key, index, progress = run.key, run.key.index, Progress(since=run.key.pts)
    video.seek(key.pts)
    for frame in decode_frames(video, progress):
        if frame.pts is None or not progress.as_packets:
            return False
        if index == key.index:
            if frame.pts < key.pts:  # leading frames, which need earlier frames
                continue
            # Periodic intra refresh marks incomplete frames as key frames.
            if frame.pts != key.pts or not (frame.key_frame and frame.pict_type == av.video.frame.PictureType.I):
                return False
            # An earlier frame's orientation would still apply, and is unknown here.
            if clip is not None and not clip.can_begin_with(orientation_of(frame)):
                return False
        if clip is not None:
            clip.add(index, frame)
        if index == run.last:
            return True
        index += 1
    return False
