"""The processes that share an evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

T = TypeVar("T")
FROM_MAIN = "(raised in the main process)"
"""Note on exceptions that are raised in all processes because the main one had them."""


def _first_difference(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
        return f"{name} is {str(one.get(name))[:100]} in one and {str(other.get(name))[:100]} in the other"
    return f"{str(one)[:100]} and {str(other)[:100]}"


class Processes:
    """Those that `accelerate launch` or torchrun started, else this one alone.

    Args:
        cpu: Whether to stay on the CPU where there is a GPU; counts for the first instance in a process.

    Attributes:
        index: Number of this process.
        count: How many there are.
        is_main: Whether this is the one that prints and writes what there is one of.
        device: Where a model of this process belongs: its own GPU if there is one.
    """

    def __init__(self, cpu: bool = False) -> None:
        from accelerate import PartialState

        started = int(os.environ.get("WORLD_SIZE", "1"))
        # accelerate takes each of several processes for the only one where it finds no accelerator and is not told
        # that it is to run on the CPU. They only meet at the end, where one may have to wait long for another.
        cpu = cpu or (started > 1 and not torch.accelerator.is_available())
        self._state: Any = PartialState(cpu=cpu, **({"timeout": timedelta(days=7)} if started > 1 else {}))
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        if self.count != started:
            raise RuntimeError(
                f"{started} processes were started (WORLD_SIZE), but accelerate sees {self.count}: they would all do "
                "the same; was its state made before, for one process?"
            )
        self.is_main = self.index == 0
        # Not "cpu:0": moving a model there copies its weights, memory that is aligned in another way changes the last
        # bit of a product, and results are to be the same on one process and on two.
        device: torch.device = self._state.device
        self.device = torch.device("cpu") if device.type == "cpu" else device

    def wait(self) -> None:
        """Waits for all the others."""
        self._state.wait_for_everyone()

    def from_main(self, action: Callable[[], T]) -> T:
        """Runs something in the main process only.

        Args:
            action: What to run; its result and its exceptions must be picklable.

        Returns:
            Its result, in all processes.

        Raises:
            Exception: The one that it raised, in all processes, so that none waits for one that has ended.
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
        """Collects a value from each process, in all of them; waits for the others.

        Args:
            value: Picklable.

        Returns:
            The values, by the index of the process.
        """
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def check_equal(self, value: object, problem: str) -> None:
        """Makes sure that all processes mean the same.

        Args:
            value: What is to be equal; JSON-safe.
            problem: What is wrong with a process whose value differs.

        Raises:
            ValueError: In all processes, if a value differs.
        """
        values = self.gather(value)
        for index, other in enumerate(values):
            if other != values[0]:
                raise ValueError(f"process {index} {problem} than process 0: {_first_difference(values[0], other)}")
