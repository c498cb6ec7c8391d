"""Peak memory of one forward pass."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

HOW = {
    "cuda": "torch.cuda.max_memory_allocated in one pass, less what was allocated before it",
    "cpu": "largest sum of what torch's CPU allocator hands out and takes back in one pass (torch.profiler); what "
    "oneDNN and other libraries allocate by themselves is not seen",
}
"""Measuring method of `peak_memory`, by device type."""


@dataclass(frozen=True)
class Memory:
    """Memory of one forward pass.

    Attributes:
        peak_bytes: Peak memory beyond that in use before: activations and temporary copies, without weights and
            inputs.
        weight_bytes: Bytes of the model's parameters and buffers.
    """

    peak_bytes: int
    weight_bytes: int


def weight_bytes(model: nn.Module) -> int:
    """Returns the bytes of a model's parameters and buffers."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def peak_memory(run: Callable[[], object], device: torch.device) -> int | None:
    """Returns the peak memory of a function, beyond that in use before.

    Args:
        run: Function to measure; run it once before, so that memory it keeps does not count.
        device: Device on which it runs.

    Returns:
        Bytes, measured as described in `HOW`; None on unsupported devices.

    Examples:
        >>> peak_memory(lambda: torch.zeros(1000000).add(1), torch.device("cpu")) // 1000000
        8
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        return None
    with _no_profiler_messages(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [
        (event["ts"], event["args"]["Bytes"])
        for event in events
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 0
    ]
    return peak_of_changes(size for _, size in sorted(changes, key=lambda change: change[0]))


@contextmanager
def _no_profiler_messages() -> Iterator[None]:
    """Suppresses messages that some torch versions' profiler writes directly to the process's stderr."""
    saved = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def peak_of_changes(changes: Iterable[int]) -> int:
    """Returns the largest running sum of allocations (positive) and releases (negative).

    Examples:
        >>> peak_of_changes([4, 3, -4, 2])
        7
    """
    return max(accumulate(changes, initial=0))
