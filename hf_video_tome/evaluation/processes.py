"""Distributed processes of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

T = TypeVar("T")
FROM_MAIN = "(raised in the main process)"
"""Note added to exceptions of the main process when they are raised in all processes."""


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
        return f"{name} is {str(one.get(name))[:100]} in one and {str(other.get(name))[:100]} in the other"
    return f"{str(one)[:100]} and {str(other)[:100]}"


class Processes:
    """Processes started by `accelerate launch` or torchrun, or this one alone.

    Args:
        cpu: Whether to use the CPU even if there is a GPU; only the first instance in a process counts.

    Attributes:
        index: Index of this process.
        count: Number of processes.
        is_main: Whether this process prints and writes the shared files.
        device: Device for a model of this process: its own GPU if available.
    """

    def __init__(self, cpu: bool = False) -> None:
        from accelerate import PartialState

        started = int(os.environ.get("WORLD_SIZE", "1"))
        # Without an accelerator, accelerate treats each process as the only one unless told to use the CPU. Processes
        # synchronise only at the end, where one may have to wait long for another.
        cpu = cpu or (started > 1 and not torch.accelerator.is_available())
        self._state: Any = PartialState(cpu=cpu, **({"timeout": timedelta(days=7)} if started > 1 else {}))
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        if self.count != started:
            raise RuntimeError(
                f"{started} processes were started (WORLD_SIZE), but accelerate sees {self.count}: each would do all "
                "of the work; was its state created before, for a single process?"
            )
        self.is_main = self.index == 0
        # Not "cpu:0": moving a model there copies its weights, and a different memory alignment changes the last bit
        # of products, but results must not depend on the number of processes.
        device: torch.device = self._state.device
        self.device = torch.device("cpu") if device.type == "cpu" else device

    def wait(self) -> None:
        """Waits for all other processes."""
        self._state.wait_for_everyone()

    def from_main(self, action: Callable[[], T]) -> T:
        """Runs a function in the main process only.

        Args:
            action: The function; its result and exceptions must be picklable.

        Returns:
            Its result, in all processes.

        Raises:
            Exception: The function's exception, in all processes, so that none waits for a finished one.
        """
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as error:
                if self.count == 1:
                    raise
                outcome[1] = error
        if self.count > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(outcome)
        if outcome[1] is not None:
            outcome[1].add_note(FROM_MAIN)
            raise outcome[1]
        return outcome[0]

    def gather(self, value: T) -> list[T]:
        """Gathers a value from each process; waits for all of them.

        Args:
            value: Picklable value of this process.

        Returns:
            The values, by process index.
        """
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def check_equal(self, value: object, problem: str) -> None:
        """Checks that a value is equal in all processes.

        Args:
            value: JSON-safe value of this process.
            problem: Error text for a process with a different value.

        Raises:
            ValueError: In all processes, if a value differs.
        """
        values = self.gather(value)
        for index, other in enumerate(values):
            if other != values[0]:
                raise ValueError(f"process {index} {problem} than process 0: {_first_difference(values[0], other)}")
