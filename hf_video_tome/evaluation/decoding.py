"""Decoding of videos into batches of views, in any number of processes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Event, Queue
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..data.sampling import ClipSampling
from ..data.video.clips import read_clips
from ..data.video.types import VideoDecodingError
from .examples import Examples

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DecodedBatch:
    """Batch of decoded videos.

    Attributes:
        number: Index of the batch.
        positions: Positions in the dataset of the readable videos.
        views: (total number of views, T, 3, h, w) uint8 frames, video by video; None if no video is readable.
        failures: Mapping from the position of each unreadable video to the reason.
    """

    number: int
    positions: tuple[int, ...]
    views: torch.Tensor | None
    failures: dict[int, str]


_TOO_LITTLE_SHARED_MEMORY = (
    "shared memory (/dev/shm) is too small for the decoded videos, so workers send them through pipes, which "
    "is slower: increase it (docker run --shm-size), or use fewer workers or smaller batches"
)


class WorkerDied(Exception):
    """Raised when a decoding process dies: a decoder crashed on a damaged video, or memory ran out."""


@dataclass(frozen=True)
class ViewDecoder(Dataset[tuple[int, Any]]):
    """Dataset of decoded views.

    Attributes:
        examples: All videos.
        sampling: Sampling of clips and views.
        transform: Transform for resizing and cropping; frames are normalised on the model's device.
        pad: Whether a video with too few frames repeats its last frame, or counts as unreadable.
        seed: Seed of random sampling.
    """

    examples: Examples
    sampling: ClipSampling
    transform: ClipTransform
    pad: bool = True
    seed: int = 0

    def __getitem__(self, position: int) -> tuple[int, Any]:
        """Decodes one video; returns the reason if it is unreadable."""
        example = self.examples[position]
        # Seeded by position, so that the clip does not depend on the worker or process.
        rng = np.random.default_rng([self.seed, position])
        try:
            clips = read_clips(example.source, self.sampling, segment=example.segment, rng=rng, pad=self.pad)
            views = [self.transform.crop_views(clip, self.sampling.num_crops) for clip in clips]
        except VideoDecodingError as error:
            return position, _one_line(error.reason or error)
        except Exception as error:  # whatever it is: the other videos can still be evaluated
            return position, _one_line(f"{type(error).__name__}: {error}")
        return position, torch.cat(views)

    def batches(
        self, batches: Mapping[int, Sequence[int]], num_workers: int = 0, pin_memory: bool = False
    ) -> Iterator[DecodedBatch]:
        """Decodes batches of videos in the background.

        Args:
            batches: Mapping from the index of each batch to the positions of its videos.
            num_workers: Number of decoding processes; 0 decodes in this one.
            pin_memory: Whether to use page-locked memory, for faster copies to a GPU.

        Yields:
            The batches, in order.

        Raises:
            WorkerDied: If a worker dies: in the generator or, by a signal, in any code running meanwhile.
            ValueError: If workers cannot be started.
        """
        loader = DataLoader(
            self,
            batch_sampler=[list(positions) for positions in batches.values()],
            num_workers=num_workers,
            collate_fn=_collate_for_main,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(self.seed),  # otherwise it advances the caller's generator
        )
        try:
            if num_workers:  # check that the loader's semaphores fit; it does not clean up if /dev/shm is full
                _ = Event(), *(Queue() for _ in range(num_workers + 1))
            decoded = iter(loader)
        except OSError as error:
            raise ValueError(
                f"{num_workers} decoding processes cannot be started ({error}): use none (num_workers=0, --workers 0)"
            ) from error
        warned = False
        # A copy: the caller may remove finished batches.
        for number, (positions, views, failures) in zip(list(batches), decoded, strict=True):
            if isinstance(views, np.ndarray):
                views = torch.from_numpy(views)
                if not warned:
                    logger.warning(_TOO_LITTLE_SHARED_MEMORY)
                warned = True
            yield DecodedBatch(number, positions, views, failures)

    def one_by_one(self, number: int, positions: Sequence[int]) -> DecodedBatch:
        """Decodes a batch with one process per video; a video whose process dies counts as unreadable.

        Args:
            number: Index of the batch.
            positions: Positions of its videos.

        Returns:
            The batch.
        """
        items: list[tuple[int, Any]] = []
        for position in positions:
            try:
                with dead_workers_noticed():
                    (batch,) = self.batches({number: [position]}, num_workers=1)
                items.append((position, batch.failures[position] if batch.views is None else batch.views))
            except WorkerDied as error:
                items.append((position, f"its decoder crashed ({error})"))
        return DecodedBatch(number, *_collate(items))


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())


@contextmanager
def dead_workers_noticed() -> Iterator[None]:
    """Converts PyTorch's errors about dead workers to `WorkerDied`; other errors pass."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        message = _one_line(error)
        # An exception raised in a worker also names the worker, but not its process.
        if "DataLoader worker (pid" in message or isinstance(error, ConnectionError):
            raise WorkerDied(message) from error
        raise


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
    """Collates views for transfer from a worker: in shared memory, or as an array, sent through a pipe.

    PyTorch would move them in its sending thread, where data that does not fit is lost and the receiver waits forever.
    """
    positions, views, failures = _collate(items)
    if views is None or get_worker_info() is None:
        return positions, views, failures
    try:
        return positions, views.share_memory_(), failures
    except RuntimeError:
        return positions, views.numpy(), failures
