"""The videos of an evaluation: from the rows of any data set to batches of decoded views."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import Event, Queue
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data.class_names import class_numbers
from ..data.sampling import ClipSampling
from ..data.video.clips import VideoSegment, read_clips
from ..data.video.frame_folder import FrameFolder
from ..data.video.types import VideoDecodingError
from ..tasks import Task, match_labels

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One video to classify.

    Attributes:
        video_id: Its name, unique in the data set.
        source: Path, bytes or frame folder.
        segment: The stretch of it to look at; None for all of it.
        labels: The right output within each task; None where it is unknown.
    """

    video_id: str
    source: str | bytes | FrameFolder
    segment: VideoSegment | None
    labels: tuple[int, ...] | None


@dataclass(frozen=True)
class Examples:
    """The videos of a data set, ready to be classified.

    Attributes:
        videos: All of them, in the order of the data set.
        matched_by: For each task "name" or "number": how the data set's classes were matched with the outputs.
    """

    videos: tuple[Example, ...]
    matched_by: dict[str, str]

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, position: int) -> Example:
        return self.videos[position]

    def spread(self, limit: int | None) -> Examples:
        """Gives at most so many of them, spread evenly over the data set."""
        if limit is None or limit >= len(self.videos):
            return self
        chosen = (self.videos[index * len(self.videos) // limit] for index in range(limit))
        return replace(self, videos=tuple(chosen))

    def digest(self) -> str:
        """Fingerprint of which videos with which labels these are, wherever their files lie."""
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
    """Reads the rows of a data set and checks them; no video is touched.

    Columns: `video` (a path, bytes, or `{"path", "bytes"}` as in a `datasets.Video(decode=False)` column), one column
    of class numbers for each task, and optionally `video_id` (else the path, else the row's number), `start_seconds`
    and `stop_seconds` (a stretch of a longer video), `start_frame`, `stop_frame` and `frames_per_second` (the same,
    where `video` is a folder of frames). Negative or missing class numbers mean that the answer is unknown.

    Args:
        rows: A `datasets.Dataset` or `IterableDataset`, or any rows. The videos of a `datasets.Video` column are not
            decoded.
        tasks: What the classifier answers.
        id2label: The classifier's names of its outputs.
        by_name: Whether classes are matched by name, see `match_labels`.

    Returns:
        One example for each row, in order.

    Raises:
        ValueError: If a column is missing, a class number is out of range, or a video_id is not unique.

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
        if "video" not in row:
            raise ValueError(f"row {number} of the data set has no column 'video', only {', '.join(map(repr, row))}")
        source = _source(row["video"], row, number)
        video_id = row.get("video_id")
        if video_id is None:
            video_id = source if isinstance(source, str) else f"{number:08d}"
        if video_id in seen:
            raise ValueError(f"row {number} of the data set has the video_id {video_id!r}, which an earlier row has")
        seen.add(video_id)
        segment = _segment(row, source, number)
        examples.append(Example(video_id, source, segment, _labels(row, number, tasks, orders)))
    if not examples:
        raise ValueError("the data set has no rows")
    return Examples(tuple(examples), matched_by)


def _undecoded(rows: Any) -> tuple[Iterable[Mapping[str, Any]], Mapping[str, Any]]:
    """Switches off the decoding of a `datasets` video column, which would need torchcodec."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return rows, {}
    if getattr(features.get("video"), "decode", False):
        import datasets

        rows = rows.cast_column("video", datasets.Video(decode=False))
    return rows, features


def _source(video: Any, row: Mapping[str, Any], number: int) -> str | bytes | FrameFolder:
    if isinstance(video, Mapping):
        content, video = video.get("bytes"), video.get("path")
        if content is not None and not (video and os.path.exists(video)):
            video = content
    if isinstance(video, (bytes, bytearray, memoryview)):
        return bytes(video)
    if not isinstance(video, (str, os.PathLike)):
        raise ValueError(
            f"row {number} of the data set: 'video' must be a path, bytes or a dictionary with 'path' or 'bytes', got "
            f"{type(video).__name__}"
        )
    path = os.fspath(video)
    start, stop = row.get("start_frame"), row.get("stop_frame")
    if start is not None and stop is not None and os.path.isdir(path):
        return FrameFolder(path, start=int(start), stop=int(stop), fps=row.get("frames_per_second"))
    return path


def _segment(row: Mapping[str, Any], source: str | bytes | FrameFolder, number: int) -> VideoSegment | None:
    start, stop = row.get("start_seconds"), row.get("stop_seconds")
    if (start is None) != (stop is None):
        raise ValueError(
            f"row {number} of the data set must have both of 'start_seconds' and 'stop_seconds' or none, got "
            f"{start!r} and {stop!r}"
        )
    if start is None or stop is None or isinstance(source, FrameFolder):
        return None
    try:
        return VideoSegment(float(start), float(stop))
    except (TypeError, ValueError) as error:
        raise ValueError(f"row {number} of the data set: {error}") from None


def _labels(
    row: Mapping[str, Any], number: int, tasks: Sequence[Task], orders: Mapping[str, list[int] | None]
) -> tuple[int, ...] | None:
    labels = []
    for task in tasks:
        if task.name not in row:
            raise ValueError(
                f"row {number} of the data set has no column {task.name!r}, which the classifier answers; it has "
                f"{', '.join(map(repr, row))}"
            )
        value, order = row[task.name], orders[task.name]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise ValueError(
                f"row {number} of the data set: {task.name!r} must be a class number, an integer, got {value!r}"
            )
        value = int(value)
        if value < 0:
            return None
        allowed = task.size if order is None else len(order)
        if value >= allowed:
            raise ValueError(
                f"row {number} of the data set: {task.name!r} must be a class number from 0 to {allowed - 1}, got "
                f"{value!r}"
            )
        labels.append(value if order is None else order[value])
    return tuple(labels)


@dataclass(frozen=True)
class DecodedBatch:
    """Videos that go through the model together.

    Attributes:
        number: Number of the batch.
        positions: Position in the data set of each video that could be read.
        views: (sum of the views, T, 3, h, w) uint8 frames, video after video; None where no video could be read.
        failures: From the position of each video that could not be read to the reason.
    """

    number: int
    positions: tuple[int, ...]
    views: torch.Tensor | None
    failures: dict[int, str]


_TOO_LITTLE_SHARED_MEMORY = (
    "shared memory (/dev/shm) is too small for the decoded videos, so they come from the workers through pipes, which "
    "is slower: give it more (docker run --shm-size), or take fewer workers or smaller batches"
)


class WorkerDied(Exception):
    """A process that decodes has died: a decoder that crashes on a damaged video, or too little memory."""


class _Views(Dataset[tuple[int, Any]]):
    """Decodes one video; what is wrong with it is a result like any other."""

    def __init__(
        self, examples: Examples, sampling: ClipSampling, transform: ClipTransform, pad: bool, seed: int
    ) -> None:
        self.examples, self.sampling, self.transform, self.pad, self.seed = examples, sampling, transform, pad, seed

    def __getitem__(self, position: int) -> tuple[int, Any]:
        example = self.examples[position]
        # By position, so that the clip does not depend on which worker or process decodes it.
        rng = np.random.default_rng([self.seed, position])
        try:
            clips = read_clips(example.source, self.sampling, segment=example.segment, rng=rng, pad=self.pad)
            views = [self.transform.crop_views(clip, self.sampling.num_crops) for clip in clips]
        except VideoDecodingError as error:
            return position, _one_line(error.reason or error)
        except Exception as error:  # whatever it is: the other videos can still be counted
            return position, _one_line(f"{type(error).__name__}: {error}")
        return position, torch.cat(views)


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


def decode_batches(
    examples: Examples,
    batches: Mapping[int, Sequence[int]],
    sampling: ClipSampling,
    transform: ClipTransform,
    *,
    num_workers: int = 0,
    pad: bool = True,
    seed: int = 0,
    pin_memory: bool = False,
) -> Iterator[DecodedBatch]:
    """Decodes batches of videos ahead of whoever takes them.

    Args:
        examples: All videos.
        batches: From the number of each batch to the positions of its videos.
        sampling: Which frames to take.
        transform: How they are resized and cropped; the normalisation is left to the device of the model.
        num_workers: Processes that decode; 0 decodes in this one.
        pad: Whether a video with too few frames repeats its last one, or counts as one that cannot be read.
        seed: Of random sampling.
        pin_memory: Whether to hand over page-locked memory, from which copies to a GPU are faster.

    Yields:
        The batches, in order.

    Raises:
        WorkerDied: If a worker dies. It comes out of the generator or, by a signal, out of whatever runs meanwhile.
        ValueError: If workers cannot be started.
    """
    numbers = list(batches)
    loader = DataLoader(
        _Views(examples, sampling, transform, pad, seed),
        batch_sampler=[list(batches[number]) for number in numbers],
        num_workers=num_workers,
        collate_fn=_collate_for_main,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),  # else it draws from the caller's random numbers
    )
    try:
        if num_workers:  # as many semaphores as the loader takes, which leaves a mess where /dev/shm is full
            _ = Event(), *(Queue() for _ in range(num_workers + 1))
        decoded = iter(loader)
    except OSError as error:
        raise ValueError(
            f"{num_workers} processes that decode cannot be started ({error}): go without (num_workers=0, --workers 0)"
        ) from error
    warned = False
    for number, (positions, views, failures) in zip(numbers, decoded, strict=True):
        if isinstance(views, np.ndarray):
            views = torch.from_numpy(views)
            if not warned:
                logger.warning(_TOO_LITTLE_SHARED_MEMORY)
            warned = True
        yield DecodedBatch(number, positions, views, failures)


@contextmanager
def dead_workers_noticed() -> Iterator[None]:
    """Turns what PyTorch raises when a worker dies into `WorkerDied`; all else passes."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        message = _one_line(error)
        # An exception that a worker sends names its worker too, but not its process.
        if "DataLoader worker (pid" in message or isinstance(error, ConnectionError):
            raise WorkerDied(message) from error
        raise


def decode_batch_in_isolation(
    examples: Examples,
    number: int,
    positions: Sequence[int],
    sampling: ClipSampling,
    transform: ClipTransform,
    *,
    pad: bool = True,
    seed: int = 0,
) -> DecodedBatch:
    """Decodes a batch with a process for each video; one that dies with its process counts as unreadable.

    Args:
        examples: All videos.
        number: Number of the batch.
        positions: Positions of its videos.
        sampling: As for `decode_batches`.
        transform: As for `decode_batches`.
        pad: As for `decode_batches`.
        seed: As for `decode_batches`.

    Returns:
        The batch.
    """
    items: list[tuple[int, Any]] = []
    for position in positions:
        try:
            with dead_workers_noticed():
                (batch,) = decode_batches(
                    examples, {number: [position]}, sampling, transform, num_workers=1, pad=pad, seed=seed
                )
            items.append((position, batch.failures[position] if batch.views is None else batch.views))
        except WorkerDied as error:
            items.append((position, f"its decoder crashed ({error})"))
    return DecodedBatch(number, *_collate(items))


def _collate(
    items: Sequence[tuple[int, Any]],
) -> tuple[tuple[int, ...], torch.Tensor | None, dict[int, str]]:
    read = [(position, views) for position, views in items if isinstance(views, torch.Tensor)]
    failures = {position: reason for position, reason in items if not isinstance(reason, torch.Tensor)}
    return (
        tuple(position for position, _ in read),
        torch.cat([views for _, views in read]) if read else None,
        failures,
    )


def _collate_for_main(
    items: Sequence[tuple[int, Any]],
) -> tuple[tuple[int, ...], torch.Tensor | np.ndarray | None, dict[int, str]]:
    """Collates so that a worker can hand the views over: in shared memory, else as an array, which takes a pipe.

    PyTorch would move them in the thread that sends them: what does not fit is lost there, and waited for for ever.
    """
    positions, views, failures = _collate(items)
    if views is None or get_worker_info() is None:
        return positions, views, failures
    try:
        return positions, views.share_memory_(), failures
    except RuntimeError:
        return positions, views.numpy(), failures
