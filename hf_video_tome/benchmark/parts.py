"""Where the time of a forward pass goes: linear layers, attention, merging, ..."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

PARTS = ("linear layers", "attention", "merging", "normalisation", "activation", "patch embedding", "other")
"""Kinds of work, in the order of the tables. "other" is the rest of the pass, with Python itself."""

_PART_OF_MODULE = {
    "hf_video_tome.merging": "merging",
    "hf_video_tome.models.cpu.block_attention": "attention",
    "hf_video_tome.models.attention": "attention",
    "transformers.integrations": "attention",
    "transformers.activations": "activation",
    "torch.nn.modules.conv": "patch embedding",
}
"""Modules (or packages) of Python whose code is one kind of work, whatever operators it calls."""

_PART_OF_CALLER = {
    "eager_attention_forward": "attention",
    "embed_tubelets": "patch embedding",
}
"""The same for functions by their names."""

_PART_OF_OPERATOR = {
    "linear": "linear layers",
    **dict.fromkeys(
        ("scaled_dot_product_attention", "softmax", "matmul", "__matmul__", "bmm", "baddbmm", "einsum"), "attention"
    ),
    **dict.fromkeys(("layer_norm", "rms_norm"), "normalisation"),
    **dict.fromkeys(("gelu", "relu", "silu", "tanh"), "activation"),
}
"""What an operator is for where its callers do not say."""


def part_of(operator: str, caller: FrameType | None) -> str:
    """Returns the kind of work that an operator is called for.

    Args:
        operator: Its name, as `torch.overrides` gives it.
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
    """Marks when each operator is called, starts and ends. No hooks: they would keep models off their fast path."""

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
    """Seconds that one call spends on each kind of work.

    Args:
        run: What to look into: a forward pass that is not compiled, and that has run before.
        device: Where it works. On CUDA the marks are events in the stream, elsewhere the clock is read.
        clock: Returns seconds.

    Returns:
        Seconds of each of `PARTS`. They add up to the whole call, less what finding out the parts takes.

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
