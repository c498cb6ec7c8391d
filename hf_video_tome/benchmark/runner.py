"""Benchmark runner."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .._compat import many_graphs
from ..api import mac_count, token_counts
from ..models import ARCHITECTURES
from .memory import Memory, peak_memory, weight_bytes
from .parts import time_parts
from .results import OUT_OF_MEMORY, MeasuredVariant
from .timing import ProcessorTime, Timer, interleave, timer_of
from .variants import ModelPool, Variant


class BenchmarkError(ValueError):
    """Raised when a variant cannot run here; the message says which and why."""


def run_benchmark(
    stock: nn.Module,
    variants: Sequence[Variant],
    *,
    device: torch.device,
    batch_sizes: Sequence[int] = (1,),
    warmup: int = 2,
    rounds: int = 10,
    with_memory: bool = True,
    with_parts: bool = False,
    seed: int = 0,
    timer: Timer | None = None,
    advance: Callable[[], None] = lambda: None,
) -> list[MeasuredVariant]:
    """Benchmarks variants of a model in turn on random clips, in eval mode and without gradients.

    For each batch size, each variant runs once, then all of them run in turn (A B C, A B C, ...), first for `warmup`
    untimed rounds. A variant that does not fit in GPU memory is skipped and marked.

    Args:
        stock: A stock classifier of transformers.
        variants: Variants to measure; see `make_variants`.
        device: Device to run on.
        batch_sizes: Numbers of clips per forward pass.
        warmup: Number of untimed rounds.
        rounds: Number of timed rounds.
        with_memory: Whether to measure the peak memory of one pass of each variant.
        with_parts: Whether to time one more pass of each uncompiled variant by kind of work.
        seed: Seed of the clips.
        timer: Timer of a pass; None uses CUDA events on CUDA and a stopwatch elsewhere.
        advance: Called after each pass: `num_passes` times, less those of skipped variants.

    Returns:
        The measurements, in the order of `variants` for each batch size.

    Raises:
        BenchmarkError: If a variant cannot run: it cannot be compiled, its settings conflict with its attention
            implementation, or its config is invalid.

    Examples:
        >>> import transformers
        >>> config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                      num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> model = transformers.VideoMAEForVideoClassification(config)
        >>> stock, merging = run_benchmark(
        ...     model, [Variant("float32", "sdpa"), Variant("float32", "sdpa", {"r": 8})],
        ...     device=torch.device("cpu"), rounds=3,
        ... )
        >>> len(stock.seconds), merging.token_counts
        (3, [32, 24, 16])
    """
    config: Any = stock.config
    architecture = ARCHITECTURES[config.model_type]
    shape = architecture.config_class.from_stock(config).clip_shape
    generator = torch.Generator().manual_seed(seed)
    pool = ModelPool(stock, device)
    timer = timer or timer_of(device)
    measured: list[MeasuredVariant] = []
    # Every setting has its own graph: with torch's limit, the last ones would run uncompiled.
    with torch.inference_mode(), many_graphs(2 * len(variants) * len(batch_sizes)):
        for batch_size in batch_sizes:
            clips = torch.randn(batch_size, *shape, generator=generator)
            inputs = {variant.dtype: clips.to(device, getattr(torch, variant.dtype)) for variant in variants}

            def prepared(
                variant: Variant, inputs: dict[str, torch.Tensor] = inputs
            ) -> Callable[[], Callable[[], object]]:
                def prepare() -> Callable[[], object]:
                    run, own = pool.runner(variant), inputs[variant.dtype]
                    return lambda: run(own)

                return prepare

            entries = []
            for variant in variants:
                entries.append(_first_pass(pool, variant, batch_size, prepared(variant), timer, device, with_memory))
                advance()
            running = [entry for entry in entries if entry.failure is None]
            runs = [prepared(entry.variant) for entry in running]
            interleave(runs, warmup, timer, advance)
            processor = [ProcessorTime() for _ in runs]
            measurements = zip(interleave(runs, rounds, timer, advance, processor), processor, strict=True)
            for entry in entries:
                if not entry.failure:
                    seconds, processor_time = next(measurements)
                    entry = replace(entry, seconds=seconds, processor_time=processor_time)
                if with_parts and not entry.failure and not entry.variant.compiled:
                    entry = replace(entry, parts=time_parts(prepared(entry.variant)(), device))
                measured.append(entry)
    return measured


def num_passes(num_variants: int, num_batch_sizes: int, warmup: int, rounds: int) -> int:
    """Returns how often `run_benchmark` calls `advance` if all variants run."""
    return num_variants * num_batch_sizes * (1 + warmup + rounds)


def _first_pass(
    pool: ModelPool,
    variant: Variant,
    batch_size: int,
    prepare: Callable[[], Callable[[], object]],
    timer: Timer,
    device: torch.device,
    with_memory: bool,
) -> MeasuredVariant:
    """Runs a variant for the first time, with error handling, and once more to measure its memory."""
    model = pool.model(variant)
    if variant.settings is None:
        merging = ARCHITECTURES[model.config.model_type].config_class.from_stock(model.config)
        merging.update_token_merging(r=0)
    else:
        merging = model.config
    macs = mac_count(merging)
    entry: dict[str, Any] = {
        "variant": variant,
        "batch_size": batch_size,
        "requested_per_layer": statistics.fmean(merging.check_token_merging()),
        "num_tokens": merging.token_layout.num_tokens,
        "token_counts": token_counts(merging),
        "macs": macs.to_dict(),
        "mac_ratio": mac_count(merging, **merging.unmerged_settings).total / macs.total,
        "seconds": [],
    }
    memory = None
    try:
        first_seconds = timer(prepare())
        if with_memory:
            peak = peak_memory(prepare(), device)
            memory = None if peak is None else Memory(peak, weight_bytes(model))
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return MeasuredVariant(**entry, failure=OUT_OF_MEMORY)
    except Exception as error:
        # Any error of a stock model is due to its config or this machine; ours may have a bug.
        expected = (Exception,) if variant.is_stock else (ValueError, ImportError)
        if not isinstance(error, (*expected, RuntimeError) if variant.compiled else expected):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise BenchmarkError(f"{variant.name} cannot run here: {reason}") from error
    return MeasuredVariant(**entry, first_seconds=first_seconds, memory=memory)
