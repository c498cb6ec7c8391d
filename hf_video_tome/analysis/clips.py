"""Decoded clips, and a model's answers and merges on them."""

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
from ..tasks import check_finite

if TYPE_CHECKING:
    from ..data.sampling import ClipSampling
    from ..data.transforms import ClipTransform


@dataclass(frozen=True)
class Clips:
    """Clips as a model sees them, before normalisation.

    Attributes:
        frames: (n, T, 3, H, W) uint8.
        labels: The right output within each task of each clip; None where it is unknown.
        positions: Position in the data set of each clip.
        failures: From the video_id of each video that could not be read to the reason.
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
    """Decodes one clip of each video.

    Args:
        examples: The videos.
        sampling: Which frames to take; one view of each video.
        transform: How they are resized and cropped.
        batch_size: Videos decoded together.
        num_workers: Processes that decode; 0 decodes in this one.
        pad: Whether a video with too few frames repeats its last one, or counts as one that cannot be read.
        seed: Of random sampling.
        on_progress: Called after each batch.

    Returns:
        The clips that could be read.

    Raises:
        ValueError: If several views are asked for, or no video could be read.
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
    """Lets a model merge with other settings for a while.

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
        seed: Of the random modes, which draw the same numbers for a batch whatever ran before.
        **kwargs: Passed to the model.

    Yields:
        Which clips they were, and what the model returned.

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
    """Gives batches of clips as a model takes them, on its device and in its dtype, and which clips they are."""
    parameter = next(model.parameters())
    for start in range(0, len(frames), batch_size):
        batch = frames[start : start + batch_size].to(parameter.device)
        yield range(start, start + len(batch)), transform.normalize(batch).to(parameter.dtype)


@contextmanager
def seeded(device: torch.device, *seeds: int) -> Iterator[None]:
    """Sets PyTorch's global random numbers, on the CPU and a device, for a while."""
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(others, device_type="cuda" if device.type == "cpu" else device.type):
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        yield


def logits_of(model: Any, transform: ClipTransform, frames: Tensor, batch_size: int = 8, seed: int = 0) -> np.ndarray:
    """Logits of clips: (n, outputs) float64."""
    outputs = [output.logits for _, output in run_clips(model, transform, frames, batch_size=batch_size, seed=seed)]
    return torch.cat(outputs).float().cpu().double().numpy()
