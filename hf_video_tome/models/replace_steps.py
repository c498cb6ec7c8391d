"""Replaces the merging steps that the layers of any model receive, to record or change their decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from ..merging.step import Step


@contextmanager
def replaced_steps(model: nn.Module, replace: Callable[[Step], Step]) -> Iterator[None]:
    """Replaces the `Step` that each layer of a model receives, for the calls inside a `with` block.

    Args:
        model: A model that can merge tokens, or a wrapper around one.
        replace: Returns the replacement, an instance of a subclass.
    """

    def before(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        step = kwargs.get("step")
        # A layer passes its step on to its attention.
        return (args, {**kwargs, "step": replace(step)}) if type(step) is Step else None

    handles = [module.register_forward_pre_hook(before, with_kwargs=True) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
