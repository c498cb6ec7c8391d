"""Interleaved timing, so that a busy machine slows all compared functions equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch

Timer = Callable[[Callable[[], object]], float]
"""Function that runs another function once and returns its seconds."""


def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Timer:
    """Returns a timer that reads a clock before and after a call.

    Args:
        clock: Clock that returns seconds.

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
    """Returns a timer of GPU work, based on events in the stream; it waits until the GPU is done."""

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
    """Returns the timer for a device: events on CUDA, otherwise the clock."""
    return cuda_events(device) if device.type == "cuda" else stopwatch()


@dataclass
class ProcessorTime:
    """Wall-clock and processor time, summed over all `with` blocks.

    The thread that runs a model on the CPU only waits for the processor: it computes, or spins until its helpers are
    done. If its processor time is less than the wall-clock time, something else took the rest: another process, or a
    limit on the container. Neither ratios of times nor their spread show that.

    Attributes:
        wall_seconds: Wall-clock time.
        thread_seconds: Processor time of the thread that runs the model.
        process_seconds: Processor time of all threads of the process; at most `wall_seconds` times their number.

    Examples:
        >>> import time
        >>> with (processor := ProcessorTime()):
        ...     time.sleep(0.05)
        >>> processor.share < 0.5
        True
    """

    wall_seconds: float = 0.0
    thread_seconds: float = 0.0
    process_seconds: float = 0.0

    def __enter__(self) -> ProcessorTime:
        self._add(-1)
        return self

    def __exit__(self, *_: object) -> None:
        self._add(1)

    def _add(self, sign: int) -> None:
        self.wall_seconds += sign * time.perf_counter()
        self.thread_seconds += sign * time.thread_time()
        self.process_seconds += sign * time.process_time()

    @property
    def share(self) -> float | None:
        """Share of the time that the thread had a processor, 0 to 1; None before the first `with` block."""
        return min(self.thread_seconds / self.wall_seconds, 1.0) if self.wall_seconds > 0 else None

    @staticmethod
    def total(times: Iterable[ProcessorTime | None]) -> ProcessorTime:
        """Returns the sum of several times, ignoring None."""
        known = [time for time in times if time is not None]
        return ProcessorTime(
            sum(time.wall_seconds for time in known),
            sum(time.thread_seconds for time in known),
            sum(time.process_seconds for time in known),
        )


LEAST_SHARE = 0.9
"""Share of processor time below which the machine counts as busy."""


def busy_warning(share: float | None) -> str | None:
    """Returns a warning about times measured on a busy machine.

    Args:
        share: Share of processor time, see `ProcessorTime.share`.

    Returns:
        The warning; None if the machine was free or the share is unknown.

    Examples:
        >>> busy_warning(0.995)
        >>> busy_warning(0.55)[:68]
        'The machine was busy: the model had a processor for 55 % of the time'
    """
    if share is None or share >= LEAST_SHARE:
        return None
    return (
        f"The machine was busy: the model had a processor for {100 * share:.0f} % of the time, as other processes or "
        "a limit on the container took the rest. Times and speed-ups are not those of a free machine: measure again "
        "when nothing else runs, or with fewer threads."
    )


def interleave(
    runs: Sequence[Callable[[], Callable[[], object]]],
    rounds: int,
    timer: Timer,
    advance: Callable[[], None] = lambda: None,
    processor: Sequence[ProcessorTime] | None = None,
) -> list[list[float]]:
    """Times functions in turn: A B C, A B C, ...

    Args:
        runs: Functions that prepare, untimed, and return the function to time.
        rounds: Number of times each function is timed.
        timer: Timer of one call.
        advance: Called after each call.
        processor: Processor time counters, one per run.

    Returns:
        Seconds of each run, one per round.

    Examples:
        >>> order = []
        >>> _ = interleave([lambda: lambda: order.append("A"), lambda: lambda: order.append("B")], 2, stopwatch())
        >>> order
        ['A', 'B', 'A', 'B']
    """
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for index, prepare in enumerate(runs):
            run = prepare()
            with nullcontext() if processor is None else processor[index]:
                seconds[index].append(timer(run))
            advance()
    return seconds


class Ratio(NamedTuple):
    """Speed-up: ratio of times over all rounds.

    Attributes:
        median: Median of the per-round ratios.
        low: Lower quartile of the per-round ratios.
        high: Upper quartile of the per-round ratios.
    """

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Returns the lower quartile, median and upper quartile; for a single value, that value.

    Examples:
        >>> quartiles([5.0, 1.0, 2.0, 4.0, 3.0])
        (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def ratio(baseline: Sequence[float], seconds: Sequence[float]) -> Ratio:
    """Returns the speed-up over a baseline, computed per round: a slowdown of a whole round cancels out.

    Args:
        baseline: Seconds of the baseline, one per round.
        seconds: Seconds to compare, from the same rounds.

    Returns:
        Median and quartiles of baseline / seconds.

    Examples:
        >>> ratio([2.0, 4.0, 2.0], [1.0, 2.0, 2.0])
        Ratio(median=2.0, low=1.5, high=2.0)
    """
    low, median, high = quartiles([base / own for base, own in zip(baseline, seconds, strict=True)])
    return Ratio(median, low, high)


def spread(seconds: Sequence[float]) -> float:
    """Returns the interquartile range relative to the median.

    Examples:
        >>> spread([9.0, 10.0, 11.0])
        0.1
    """
    low, median, high = quartiles(seconds)
    return (high - low) / median
