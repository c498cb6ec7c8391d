"""Time of several things that are compared: taken in turn, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

Timer = Callable[[Callable[[], object]], float]
"""Runs a function once and returns the seconds that it took."""


def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Timer:
    """A timer that reads a clock before and after.

    Args:
        clock: Returns seconds.

    Examples:
        >>> ticks = iter([10.0, 12.5])
        >>> stopwatch(lambda: next(ticks))(lambda: None)
        2.5
    """

    def timer(run: Callable[[], object]) -> float:
        began = clock()
        run()
        return clock() - began

    return timer


def cuda_events(device: torch.device) -> Timer:
    """A timer of what a function makes a GPU do, by events in its stream; returns when the GPU is done."""

    def timer(run: Callable[[], object]) -> float:
        with torch.cuda.device(device):
            torch.cuda.synchronize()
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
        return start.elapsed_time(end) / 1000

    return timer


def timer_of(device: torch.device) -> Timer:
    """The timer for what runs on a device: events on GPUs of CUDA, else the clock."""
    return cuda_events(device) if device.type == "cuda" else stopwatch()


def interleave(
    runs: Sequence[Callable[[], Callable[[], object]]],
    rounds: int,
    timer: Timer,
    advance: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """Times functions in turn: A B C, A B C, ...

    Args:
        runs: For each thing to be timed a function that gets it ready, which is not timed, and returns what is.
        rounds: How often each is timed.
        timer: Times one call.
        advance: Called after each.

    Returns:
        For each of the runs its seconds, one per round.

    Examples:
        >>> order = []
        >>> _ = interleave([lambda: lambda: order.append("A"), lambda: lambda: order.append("B")], 2, stopwatch())
        >>> order
        ['A', 'B', 'A', 'B']
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for index, prepare in enumerate(runs):
            seconds[index].append(timer(prepare()))
            advance()
    return seconds


class Ratio(NamedTuple):
    """How many times faster one thing is than another.

    Attributes:
        median: Of the ratios in each round.
        low: Lower quartile of them.
        high: Upper quartile of them.
    """

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value, that value.

    Examples:
        >>> quartiles([5.0, 1.0, 2.0, 4.0, 3.0])
        (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratio(baseline: Sequence[float], seconds: Sequence[float]) -> Ratio:
    """How many times faster than a baseline, round by round: what slows a whole round cancels.

    Args:
        baseline: Seconds of the baseline, one per round.
        seconds: Seconds of the other in the same rounds.

    Returns:
        Median and quartiles of baseline / seconds.

    Examples:
        >>> ratio([2.0, 4.0, 2.0], [1.0, 2.0, 2.0])
        Ratio(median=2.0, low=1.5, high=2.0)
    """
    low, median, high = quartiles([base / own for base, own in zip(baseline, seconds, strict=True)])
    return Ratio(median, low, high)


def spread(seconds: Sequence[float]) -> float:
    """Interquartile range relative to the median: half of all rounds lie in it.

    Examples:
        >>> spread([9.0, 10.0, 11.0])
        0.1
    """
    low, median, high = quartiles(seconds)
    return (high - low) / median
