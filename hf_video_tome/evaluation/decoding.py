"""From the videos of an evaluation to batches of decoded views, in any number of processes."""

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


@dataclass(frozen=True)
class ViewDecoder(Dataset[tuple[int, Any]]):
    """Decodes the views of videos.

    Attributes:
        examples: All videos.
        sampling: Which frames to take.
        transform: How they are resized and cropped; the normalisation is left to the device of the model.
        pad: Whether a video with too few frames repeats its last one, or counts as one that cannot be read.
        seed: Of random sampling.
    """

    examples: Examples
    sampling: ClipSampling
    transform: ClipTransform
    pad: bool = True
    seed: int = 0

    def __getitem__(self, position: int) -> tuple[int, Any]:
        """Decodes one video; what is wrong with it is a result like any other."""
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

    def batches(
        self, batches: Mapping[int, Sequence[int]], num_workers: int = 0, pin_memory: bool = False
    ) -> Iterator[DecodedBatch]:
        """Decodes batches of videos ahead of whoever takes them.

        Args:
            batches: From the number of each batch to the positions of its videos.
            num_workers: Processes that decode; 0 decodes in this one.
            pin_memory: Whether to hand over page-locked memory, from which copies to a GPU are faster.

        Yields:
            The batches, in order.

        Raises:
            WorkerDied: If a worker dies. It comes out of the generator or, by a signal, of whatever runs meanwhile.
            ValueError: If workers cannot be started.
        """
        loader = DataLoader(
            self,
            batch_sampler=[list(positions) for positions in batches.values()],
            num_workers=num_workers,
            collate_fn=_collate_for_main,
            pin_memory=pin_memory,
            generator=torch.Generator().manual_seed(self.seed),  # else it draws from the caller's random numbers
        )
        try:
            if num_workers:  # as many semaphores as the loader takes, which leaves a mess where /dev/shm is full
                _ = Event(), *(Queue() for _ in range(num_workers + 1))
            decoded = iter(loader)
        except OSError as error:
            raise ValueError(
                f"{num_workers} processes that decode cannot be started ({error}): go without (num_workers=0, "
                "--workers 0)"
            ) from error
        warned = False
        # Of a copy: whoever takes a batch may strike it off.
        for number, (positions, views, failures) in zip(list(batches), decoded, strict=True):
            if isinstance(views, np.ndarray):
                views = torch.from_numpy(views)
                if not warned:
                    logger.warning(_TOO_LITTLE_SHARED_MEMORY)
                warned = True
            yield DecodedBatch(number, positions, views, failures)

    def one_by_one(self, number: int, positions: Sequence[int]) -> DecodedBatch:
        """Decodes a batch with a process for each video; one that dies with its process counts as unreadable.

        Args:
            number: Number of the batch.
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
    """Turns what PyTorch raises when a worker dies into `WorkerDied`; all else passes."""
    try:
        yield
    except (RuntimeError, ConnectionError) as error:
        message = _one_line(error)
        # An exception that a worker sends names its worker too, but not its process.
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
