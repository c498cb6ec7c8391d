"""How many times as fast a model is with each of some settings as without merging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ..benchmark import BenchmarkResults
from ..benchmark.timing import ProcessorTime, interleave, ratio, timer_of
from ..configuration import TokenMergingConfigMixin, token_counts_of_config
from .clips import merging


def measure_speed_ups(
    model: Any,
    settings: Sequence[Mapping[str, Any]],
    *,
    batch_size: int = 8,
    rounds: int = 10,
    seed: int = 0,
    on_progress: Callable[[], None] = lambda: None,
    processor: ProcessorTime | None = None,
) -> list[float]:
    """Times forward passes on random clips, all settings in turn, so that a busy machine slows all of them alike.

    Args:
        model: A classifier that can merge tokens, in eval mode. Its settings are restored afterwards.
        settings: The settings, as for `set_token_merging`.
        batch_size: Number of clips per batch.
        rounds: How often each is timed, after one pass that is not.
        seed: Of the clips.
        on_progress: Called after each pass that counts.
        processor: Counts the processor time of the passes that count.

    Returns:
        For each of the settings the median over the rounds of the time without merging over its own; 1 for one that
        merges nothing.
    """
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    clips = torch.rand(batch_size, *model.config.clip_shape, generator=generator).to(parameter.device, parameter.dtype)

    def merges(changes: Mapping[str, Any]) -> bool:
        with merging(model, changes):
            return bool(model.config.token_merging_plan().merges)

    def prepare(changes: Mapping[str, Any]) -> Callable[[], object]:
        model.set_token_merging(**{**before, **changes})
        return lambda: model(clips)

    before = model.config.token_merging_settings()
    merging_ones = [changes for changes in settings if merges(changes)]
    runs = [partial(prepare, changes) for changes in (model.config.unmerged_settings, *merging_ones)]
    with merging(model, {}), torch.inference_mode():
        interleave(runs, 1, timer_of(clips.device))
        baseline, *others = interleave(
            runs, rounds, timer_of(clips.device), on_progress, [processor or ProcessorTime()] * len(runs)
        )
    ratios = iter(ratio(baseline, own).median for own in others)
    return [next(ratios) if merges(changes) else 1.0 for changes in settings]


def speed_ups_of(
    results: BenchmarkResults, configs: Sequence[TokenMergingConfigMixin], dtype: str = "float32"
) -> tuple[list[float], dict[str, Any]]:
    """Takes speed-ups over the stock model from a benchmark of the same model.

    Args:
        results: The benchmark.
        configs: The config of the model with each of some settings.
        dtype: Dtype of the models that count.

    Returns:
        For each of the settings the median speed-up over stock transformers, 1 for one that merges nothing; and what
        they are relative to with the conditions of the benchmark.

    Raises:
        ValueError: If it is of another model, or does not have exactly one entry for each of the settings.
    """
    speed_ups = []
    for config in configs:
        results.check_model(config)
        if token_counts_of_config(config)[-1] == config.token_layout.num_tokens:
            speed_ups.append(1.0)
            continue
        found = results.speedup(results.measured_with(config, dtype))
        if found is None:
            raise ValueError(f"the benchmark has no stock model in {dtype} to compare with")
        speed_ups.append(found.median)
    return speed_ups, {"relative_to": f"stock_{results.reference_attention}", "benchmark": results.conditions}
