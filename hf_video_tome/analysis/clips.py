"""Decoded clips, and the outputs of a model for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..api import set_token_merging
from ..evaluation.decoding import ViewDecoder
from ..evaluation.examples import Examples
from ..models.pixel_dtype import pixel_dtype
from ..tasks import check_finite

if TYPE_CHECKING:
    from ..data.sampling import ClipSampling
    from ..data.transforms import ClipTransform


@dataclass(frozen=True)
class Clips:
    """Clips as a model sees them, before normalisation.

    Attributes:
        frames: (n, T, 3, H, W) uint8.
        labels: Class within each task, per clip; None if unknown.
        positions: Position of each clip in the dataset.
        failures: Reason by video_id for videos that could not be read.
    """

    frames: Tensor
    labels: tuple[tuple[int, ...] | None, ...]
    positions: tuple[int, ...]
    failures: dict[str, str]

    def __len__(self) -> int:
        return len(self.frames)


def load_clips(
    examples: Examples,
    sampling: ClipSampling,
    transform: ClipTransform,
    *,
    batch_size: int = 8,
    num_workers: int = 0,
    pad: bool = True,
    seed: int = 0,
    on_progress: Callable[[], None] = lambda: None,
) -> Clips:
    """Decodes one clip per video.

    Args:
        examples: The videos.
        sampling: How to sample frames, with one view per video.
        transform: Transform that resizes and crops frames.
        batch_size: Number of videos decoded together.
        num_workers: Number of decoding processes; 0 decodes in this process.
        pad: Whether to repeat the last frame of a video with too few frames; otherwise it counts as unreadable.
        seed: Seed of random sampling.
        on_progress: Called after each batch.

    Returns:
        The clips that could be read.

    Raises:
        ValueError: If the sampling has several views, or no video could be read.
    """
    if sampling.num_views != 1:
        raise ValueError(f"sampling must take one view of each video, got {sampling.num_views}")
    numbers = range(len(examples))
    batches = {start: numbers[start : start + batch_size] for start in range(0, len(examples), batch_size)}
    frames: list[Tensor] = []
    positions: list[int] = []
    failures: dict[str, str] = {}
    decoder = ViewDecoder(examples, sampling, transform, pad, seed)
    for batch in decoder.batches(batches, min(num_workers, len(batches))):
        failures |= {examples[position].video_id: reason for position, reason in batch.failures.items()}
        if batch.views is not None:
            frames.append(batch.views)
            positions += batch.positions
        on_progress()
    if not frames:
        raise ValueError(
            f"none of the {len(examples)} videos could be read, the first: {next(iter(failures.items()))}"
        )
    return Clips(
        torch.cat(frames), tuple(examples[position].labels for position in positions), tuple(positions), failures
    )


@contextmanager
def merging(model: Any, settings: Mapping[str, Any]) -> Iterator[None]:
    """Changes the settings of a model temporarily.

    Args:
        model: A classifier that can merge tokens.
        settings: Changes to its settings, as for `set_token_merging`.
    """
    before = model.config.token_merging_settings()
    set_token_merging(model, **settings)
    try:
        yield
    finally:
        set_token_merging(model, **before)


def run_clips(
    model: Any, transform: ClipTransform, frames: Tensor, *, batch_size: int = 8, seed: int = 0, **kwargs: Any
) -> Iterator[tuple[range, Any]]:
    """Runs a model on clips, batch by batch.

    Args:
        model: A classifier in eval mode.
        transform: Transform that normalises frames.
        frames: (n, T, 3, H, W) uint8.
        batch_size: Number of clips per batch.
        seed: Seed of the random modes; the numbers drawn for a batch do not depend on earlier ones.
        **kwargs: Passed to the model.

    Yields:
        The range of clips, and the output of the model.

    Raises:
        ValueError: If the logits are not finite.
    """
    for clips, pixel_values in normalized(model, transform, frames, batch_size):
        with seeded(pixel_values.device, seed, clips.start), torch.inference_mode():
            output = model(pixel_values, **kwargs)
        check_finite(output.logits)
        yield clips, output


def normalized(
    model: Any, transform: ClipTransform, frames: Tensor, batch_size: int
) -> Iterator[tuple[range, Tensor]]:
    """Yields batches of model inputs, on the device and in the dtype of the model, and their range of clips."""
    parameter = next(model.parameters())
    for start in range(0, len(frames), batch_size):
        batch = frames[start : start + batch_size].to(parameter.device)
        yield range(start, start + len(batch)), transform.normalize(batch).to(pixel_dtype(model))


@contextmanager
def seeded(device: torch.device, *seeds: int) -> Iterator[None]:
    """Sets the global random seed of PyTorch temporarily, on the CPU and a device."""
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(others, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        yield


def logits_of(model: Any, transform: ClipTransform, frames: Tensor, batch_size: int = 8, seed: int = 0) -> np.ndarray:
    """Computes the logits of clips: (n, outputs) float64."""
    outputs = [output.logits for _, output in run_clips(model, transform, frames, batch_size=batch_size, seed=seed)]
    return torch.cat(outputs).float().cpu().double().numpy()
