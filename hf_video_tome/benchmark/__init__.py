"""Benchmarks of token merging against stock transformers on the same machine: speed and memory."""

from .memory import Memory, peak_memory
from .parts import PARTS, time_parts
from .results import BenchmarkResults, MeasuredVariant, machine
from .runner import run_benchmark
from .timing import Ratio, Timer, cuda_events, interleave, ratio, spread, stopwatch
from .variants import ModelPool, Variant, make_variants, supports

__all__ = [
    "PARTS",
    "BenchmarkResults",
    "MeasuredVariant",
    "Memory",
    "ModelPool",
    "Ratio",
    "Timer",
    "Variant",
    "cuda_events",
    "interleave",
    "machine",
    "make_variants",
    "peak_memory",
    "ratio",
    "run_benchmark",
    "spread",
    "stopwatch",
    "supports",
    "time_parts",
]
