"""Evaluation examples from the rows of any dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from ..data.class_names import class_numbers
from ..data.video.clips import VideoSegment
from ..data.video.frame_folder import FrameFolder
from ..tasks import Task, match_labels


@dataclass(frozen=True)
class Example:
    """Video to classify.

    Attributes:
        video_id: Id of the video, unique in the dataset.
        source: Path, bytes or frame folder.
        segment: Segment to classify; None for the whole video.
        labels: The correct output within each task; None if unknown.
    """

    video_id: str
    source: str | bytes | FrameFolder
    segment: VideoSegment | None
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class Examples:
    """Videos of a dataset, ready for evaluation.

    Attributes:
        videos: All videos, in the order of the dataset.
        matched_by: Mapping from each task to "name" or "number": how the dataset's classes were matched with outputs.
    """

    videos: tuple[Example, ...]
    matched_by: dict[str, str]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, position: int) -> Example:
        return self.videos[position]

    def spread(self, limit: int | None) -> Examples:
        """Returns at most `limit` examples, evenly spaced over the dataset."""
        if limit is None or limit >= len(self.videos):
            return self
        chosen = (self.videos[index * len(self.videos) // limit] for index in range(limit))
        return replace(self, videos=tuple(chosen))

    def digest(self) -> str:
        """Returns a digest of the videos and labels, independent of the location of files."""
        digest = hashlib.sha256()
        for example in self.videos:
            digest.update(repr((example.video_id, example.segment, example.labels)).encode(errors="replace"))
            if isinstance(example.source, bytes):
                digest.update(hashlib.sha256(example.source).digest())
            elif isinstance(example.source, FrameFolder):
                digest.update(repr(replace(example.source, path="")).encode())
        return digest.hexdigest()[:16]


def read_examples(
    rows: Iterable[Mapping[str, Any]],
    tasks: Sequence[Task],
    id2label: Mapping[int, str],
    by_name: bool | None = None,
) -> Examples:
    """Reads and checks the rows of a dataset, without opening videos.

    Columns: `video` (a path, bytes, or `{"path", "bytes"}` as in a `datasets.Video(decode=False)` column), one column
    of class indices per task, and optionally `video_id` (by default the path, or the row's number), `start_seconds`
    and `stop_seconds` (a segment of a longer video), `start_frame`, `stop_frame` and `frames_per_second` (likewise for
    a folder of frames). A negative or missing class index means that the label is unknown.

    Args:
        rows: A `datasets.Dataset` or `IterableDataset`, or any rows. Videos in a `datasets.Video` column are not
            decoded.
        tasks: Tasks of the classifier.
        id2label: Names of the classifier's outputs.
        by_name: Whether to match classes by name, see `match_labels`.

    Returns:
        One example per row, in order.

    Raises:
        ValueError: If a column is missing, a class index is out of range, or a video_id is not unique.

    Examples:
        >>> read_examples([{"video": "a.mp4", "label": 1}], [Task("label", 0, 2)], {})[0].labels
        (1,)
    """
    rows, features = _undecoded(rows)
    orders: dict[str, list[int] | None] = {}
    matched_by: dict[str, str] = {}
    for task in tasks:
        names = getattr(features.get(task.name), "names", None)
        order = orders[task.name] = match_labels(names, task, id2label, by_name)
        numbered = order is None or names is None or order == class_numbers(names)
        matched_by[task.name] = "number" if numbered else "name"

    examples: list[Example] = []
    seen: set[str] = set()
    for number, row in enumerate(rows):
        try:
            example = _example(row, f"{number:08d}", tasks, orders)
            if example.video_id in seen:
                raise ValueError(f"has the video_id {example.video_id!r}, which an earlier row has")
        except (TypeError, ValueError) as error:
            raise ValueError(f"row {number} of the dataset: {error}") from None
        seen.add(example.video_id)
        examples.append(example)
    if not examples:
        raise ValueError("the dataset has no rows")
    return Examples(tuple(examples), matched_by)


def _example(
    row: Mapping[str, Any], name: str, tasks: Sequence[Task], orders: Mapping[str, list[int] | None]
) -> Example:
    for column in ("video", *(task.name for task in tasks)):
        if column not in row:
            raise ValueError(f"no column {column!r}, only {', '.join(map(repr, row))}")
    source, video_id = _source(row["video"], row), row.get("video_id")
    if video_id is None:
        video_id = source if isinstance(source, str) else name
    return Example(video_id, source, _segment(row, source), _labels(row, tasks, orders))


def _undecoded(rows: Any) -> tuple[Iterable[Mapping[str, Any]], Mapping[str, Any]]:
    """Disables decoding of a `datasets` video column, which would need torchcodec."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return rows, {}
    if getattr(features.get("video"), "decode", False):
        import datasets

        rows = rows.cast_column("video", datasets.Video(decode=False))
    return rows, features


def _source(video: Any, row: Mapping[str, Any]) -> str | bytes | FrameFolder:
    if isinstance(video, Mapping):
        content, video = video.get("bytes"), video.get("path")
        if content is not None and not (video and os.path.exists(video)):
            video = content
    if isinstance(video, (bytes, bytearray, memoryview)):
        return bytes(video)
    if not isinstance(video, (str, os.PathLike)):
        kind = type(video).__name__
        raise ValueError(f"'video' must be a path, bytes or a dictionary with 'path' or 'bytes', got {kind}")
    path = os.fspath(video)
    start, stop = row.get("start_frame"), row.get("stop_frame")
    if start is not None and stop is not None and os.path.isdir(path):
        return FrameFolder(path, start=int(start), stop=int(stop), fps=row.get("frames_per_second"))
    return path


def _segment(row: Mapping[str, Any], source: str | bytes | FrameFolder) -> VideoSegment | None:
    start, stop = row.get("start_seconds"), row.get("stop_seconds")
    if (start is None) != (stop is None):
        raise ValueError(f"must have both 'start_seconds' and 'stop_seconds' or neither, got {start!r} and {stop!r}")
    if start is None or stop is None or isinstance(source, FrameFolder):
        return None
    return VideoSegment(float(start), float(stop))


def _labels(
    row: Mapping[str, Any], tasks: Sequence[Task], orders: Mapping[str, list[int] | None]
) -> tuple[int, ...] | None:
    labels = []
    for task in tasks:
        value, order = row[task.name], orders[task.name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(f"{task.name!r} must be a class number, an integer, got {value!r}")
        value = int(value)
        if value < 0:
            return None
        allowed = task.size if order is None else len(order)
        if value >= allowed:
            raise ValueError(f"{task.name!r} must be a class number from 0 to {allowed - 1}, got {value!r}")
        labels.append(value if order is None else order[value])
    return tuple(labels)
