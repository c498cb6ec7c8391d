"""The processes that share an evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch

T = TypeVar("T")


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

        # They only meet at the end, where one may have to wait long for another.
        distributed = {"timeout": timedelta(days=7)} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}
        self._state: Any = PartialState(cpu=cpu, **distributed)
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
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
            raise outcome[1]
        return outcome[0]
