"""Registry of input stages: an input stage decides which tubelets of a clip enter the first layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..assignment import Assignment, assign_kept
from ..layout import TokenLayout
from ..tubelet_changes import assign_runs, keep_above, keep_largest


class InputContext(NamedTuple):
    """Inputs of an input stage.

    Attributes:
        embeddings: (B, N, C) float, without gradient, patch tokens with position embeddings, frame by frame.
        pixel_values: (B, T, C, H, W) float, without gradient, normalised clips; None if only embeddings are known.
        layout: Token layout of a clip.
        keep: Number of tokens to keep per clip, without prefix tokens; with a threshold, the most.
        generator: Random number generator, or None for the global one.
        threshold: Change above which tubelets are kept, in normalised pixels; None for a fixed number.
        tubelet_shape: Frames, height and width of a tubelet.
    """

    embeddings: Tensor
    pixel_values: Tensor | None
    layout: TokenLayout
    keep: int
    generator: torch.Generator | None = None
    threshold: float | None = None
    tubelet_shape: tuple[int, int, int] = (1, 1, 1)

    @property
    def clips(self) -> Tensor:
        """`pixel_values`, for stages that need them.

        Raises:
            ValueError: If the model passed none.
        """
        if self.pixel_values is None:
            raise ValueError("pixel_values must be the clips for an input stage that compares tubelets, got None")
        return self.pixel_values


class InputStage(NamedTuple):
    """Registered input stage.

    Attributes:
        name: The value of `token_merging_input` that selects it.
        assign: Returns an assignment of (B, 1, N) patch tokens; the slot owners enter the first layer.
        takes_threshold: Whether it supports `token_merging_input_threshold`.
    """

    name: str
    assign: Callable[[InputContext], Assignment]
    takes_threshold: bool


INPUT_STAGES: dict[str, InputStage] = {}
"""All input stages by name."""


Function = Callable[[InputContext], Assignment]


def register_input_stage(name: str, *, takes_threshold: bool = False) -> Callable[[Function], Function]:
    """Registers a function `(InputContext) -> Assignment` as a value of `token_merging_input`.

    Args:
        name: The value that selects the function.
        takes_threshold: Whether it supports a threshold; its assignments then have `num_slots`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        ValueError: If the name is taken by another function.
    """

    def decorator(function: Function) -> Function:
        if name in INPUT_STAGES and INPUT_STAGES[name].assign is not function:
            raise ValueError(f"the input stage {name!r} is registered already")
        INPUT_STAGES[name] = InputStage(name, function, takes_threshold)
        return function

    return decorator


def keep_tokens(kept: Tensor, num_tokens: int) -> Assignment:
    """Builds the assignment that keeps some tokens unchanged, with size 1, and drops all others.

    Args:
        kept: (B, K) int64, positions of the tokens to keep, in ascending order.
        num_tokens: Number of tokens per clip.

    Returns:
        The assignment, with one set per clip.

    Examples:
        >>> keep_tokens(torch.tensor([[0, 2]]), 4).slot.tolist()
        [[[0, -1, 1, -1]]]
    """
    return assign_kept(kept[:, None], num_tokens)


def keep_changed(context: InputContext, change: Tensor) -> Assignment:
    """Keeps the first slot and the tubelets that changed most, or by more than the threshold if one is set.

    Each kept tubelet enters unchanged, with its run length as size: the number of slots until the next kept tubelet at
    its patch position. See `assign_runs`.

    Args:
        context: Inputs of the stage.
        change: (B, T' - 1, P) float, change of each tubelet of all slots but the first.

    Returns:
        The assignment, with one set per clip.
    """
    if context.threshold is not None:
        return assign_runs(keep_above(change, context.threshold))
    return assign_runs(keep_largest(change, context.keep), context.keep)
