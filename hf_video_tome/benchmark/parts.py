"""Time of a forward pass by kind of work: linear layers, attention, merging, ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

PARTS = ("linear layers", "attention", "merging", "normalisation", "activation", "patch embedding", "other")
"""Kinds of work, in the order of the tables. "other" is the rest of the pass, including Python itself."""

_PART_OF_MODULE = {
    "hf_video_tome.merging": "merging",
    "hf_video_tome.models.cpu.block_attention": "attention",
    "hf_video_tome.models.attention": "attention",
    "transformers.integrations": "attention",
    "transformers.activations": "activation",
    "torch.nn.modules.conv": "patch embedding",
}
"""Kind of work of Python modules (or packages), whatever operators they call."""

_PART_OF_CALLER = {
    "eager_attention_forward": "attention",
    "embed_tubelets": "patch embedding",
}
"""Kind of work of functions, by name."""

_PART_OF_OPERATOR = {
    "linear": "linear layers",
    **dict.fromkeys(
        ("scaled_dot_product_attention", "softmax", "matmul", "__matmul__", "bmm", "baddbmm", "einsum"), "attention"
    ),
    **dict.fromkeys(("layer_norm", "rms_norm"), "normalisation"),
    **dict.fromkeys(("gelu", "relu", "silu", "tanh"), "activation"),
}
"""Kind of work of operators, if their callers do not determine it."""


def part_of(operator: str, caller: FrameType | None) -> str:
    """Returns the kind of work of an operator call.

    Args:
        operator: Name of the operator, as in `torch.overrides`.
        caller: The Python frame that calls it.

    Returns:
        One of `PARTS`.

    Examples:
        >>> part_of("linear", None), part_of("transpose", None)
        ('linear layers', 'other')
    """
    while caller is not None:
        if caller.f_code.co_name in _PART_OF_CALLER:
            return _PART_OF_CALLER[caller.f_code.co_name]
        module = caller.f_globals.get("__name__", "")
        for name, part in _PART_OF_MODULE.items():
            if module == name or module.startswith(f"{name}."):
                return part
        caller = caller.f_back
    return _PART_OF_OPERATOR.get(operator, "other")


class _TimedOperators(TorchFunctionMode):
    """Mode that times the call, start and end of each operator. Hooks would disable the models' fast path."""

    def __init__(self, mark: Callable[[], Any]) -> None:
        super().__init__()
        self._mark = mark
        self.marks: list[tuple[str, Any, Any, Any]] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        called = self._mark()
        part = part_of(getattr(func, "__name__", ""), sys._getframe(1))
        before = self._mark()
        result = func(*args, **(kwargs or {}))
        self.marks.append((part, called, before, self._mark()))
        return result


def time_parts(
    run: Callable[[], object], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Returns the seconds that one call spends on each kind of work.

    Args:
        run: Function to measure: a forward pass that is not compiled and has run before.
        device: Device on which it runs. CUDA is timed with events in the stream, other devices with the clock.
        clock: Clock that returns seconds.

    Returns:
        Seconds by kind of work, for each of `PARTS`. They add up to the whole call, less the measuring overhead.

    Examples:
        >>> parts = time_parts(lambda: torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).relu(),
        ...                    torch.device("cpu"))
        >>> [name for name, seconds in parts.items() if seconds]
        ['linear layers', 'activation', 'other']
    """
    on_gpu = device.type == "cuda"

    def event() -> torch.cuda.Event:
        found = torch.cuda.Event(enable_timing=True)
        found.record()
        return found

    mark: Callable[[], Any] = event if on_gpu else clock
    timed = _TimedOperators(mark)
    if on_gpu:
        torch.cuda.synchronize(device)
    began = mark()
    with timed:
        run()
    ended = mark()
    if on_gpu:
        torch.cuda.synchronize(device)

    def between(before: Any, after: Any) -> float:
        return before.elapsed_time(after) / 1000 if on_gpu else after - before

    seconds = dict.fromkeys(PARTS, 0.0)
    looking = 0.0
    for part, called, before, after in timed.marks:
        seconds[part] += between(before, after)
        looking += between(called, before)
    seconds["other"] += between(began, ended) - sum(seconds.values()) - looking
    return seconds
