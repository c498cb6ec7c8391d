"""How many times as fast a model is with each of some settings as without merging."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..benchmark.timing import interleave, ratio, timer_of
from ..configuration import PREFIX, TokenMergingConfigMixin
from .clips import merging

BENCHMARK_FORMAT = 1
_REFERENCES = ("stock_sdpa", "stock_eager")
"""The stock models that speed-ups are relative to: the first that was measured."""


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
        on_progress: Called after each pass that counts.

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
    runs = [partial(prepare, changes) for changes in ({"r": 0}, *merging_ones)]
    with merging(model, {}), torch.inference_mode():
        interleave(runs, 1, timer_of(clips.device))
        baseline, *others = interleave(runs, rounds, timer_of(clips.device), on_progress)
    ratios = iter(ratio(baseline, own).median for own in others)
    return [next(ratios) if merges(changes) else 1.0 for changes in settings]


def read_speed_ups(
    path: str | os.PathLike[str], settings: Sequence[Mapping[str, Any]], dtype: str = "float32"
) -> tuple[list[float], dict[str, Any]]:
    """Takes speed-ups over the stock model from the `results.json` of a benchmark.

    Args:
        path: The file, or the folder with it.
        settings: Those of an evaluation, as in its `results.json`: `changes`, `resolved` and `token_counts` each.
        dtype: Dtype of the models that count.

    Returns:
        For each of the settings the median speed-up over stock transformers, 1 for one that merges nothing; and what
        they are relative to with the conditions of the benchmark.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not such a file, or does not have exactly one entry for each of the settings.
    """
    file = Path(path)
    file = file / "results.json" if file.is_dir() else file
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != BENCHMARK_FORMAT or "results" not in content:
        raise ValueError(f"{file} must be the results.json of a benchmark in format {BENCHMARK_FORMAT}")
    entries = [
        entry
        for entry in content["results"]
        if entry["settings"] is not None and entry.get("speedup") and entry["dtype"] == dtype and not entry["compiled"]
    ]
    reference = next((name for name in _REFERENCES if any(entry["speedup"][name] for entry in entries)), None)
    speed_ups = []
    for setting in settings:
        if setting["token_counts"][-1] == setting["token_counts"][0]:
            speed_ups.append(1.0)
            continue
        found = [entry for entry in entries if reference and entry["speedup"][reference] and _is_of(entry, setting)]
        if len(found) != 1:
            raise ValueError(
                f"{file} must have one entry in {dtype}, not compiled, for the settings {setting['changes']}, got "
                f"{len(found)}" + (" (of several batch sizes or attentions)" if len(found) > 1 else "")
            )
        speed_ups.append(float(found[0]["speedup"][reference]["median"]))
    return speed_ups, {"relative_to": reference, "benchmark": content.get("conditions", {})}


def _is_of(entry: Mapping[str, Any], setting: Mapping[str, Any]) -> bool:
    """Whether an entry of a benchmark was measured with the settings of an evaluation."""
    defaults = {field.name.removeprefix(PREFIX): field.default for field in fields(TokenMergingConfigMixin)}
    resolved, changes, measured = setting["resolved"], setting["changes"], entry["settings"]
    said = all(resolved.get(name) == value for name, value in measured.items())
    unsaid = all(value in (None, defaults.get(name)) for name, value in changes.items() if name not in measured)
    return said and unsaid and entry["token_counts"] == setting["token_counts"]
