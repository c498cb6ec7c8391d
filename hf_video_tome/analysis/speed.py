"""How many times as fast a model is with each of some settings as without merging."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .clips import merging


def measure_speed_ups(
    model: Any,
    settings: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    rounds: int = 10,
    seed: int = 0,
    on_progress: Callable[[], None] = lambda: None,
) -> list[float]:
    """Times forward passes on random clips, all settings in turn, so that a busy machine slows all of them alike.

    Args:
        model: A classifier that can merge tokens, in eval mode. Its settings are as before afterwards.
        settings: The settings, as for `set_token_merging`.
        batch_size: Clips that go through the model together.
        rounds: How often each is timed, after one pass that is not.
        seed: Of the clips.
        on_progress: Called after each round.

    Returns:
        For each of the settings the median over the rounds of the time without merging over its own.
    """
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    clips = torch.rand(batch_size, *model.config.clip_shape, generator=generator).to(parameter.device, parameter.dtype)

    def seconds(changes: Mapping[str, Any]) -> float:
        with merging(model, changes), torch.inference_mode():
            began = time.perf_counter()
            model(clips)
            if clips.device.type != "cpu":
                torch.accelerator.synchronize(clips.device)
            return time.perf_counter() - began

    everything = [{"r": 0}, *settings]
    for changes in everything:
        seconds(changes)
    measured: list[list[float]] = []
    for _ in range(rounds):
        measured.append([seconds(changes) for changes in everything])
        on_progress()
    return [statistics.median(times[0] / times[number] for times in measured) for number in range(1, len(everything))]
