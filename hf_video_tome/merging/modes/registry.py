"""The registry of modes: a mode decides which tokens of a set are removed and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..assignment import Assignment


class ModeInputs(NamedTuple):
    """All that a mode may look at.

    Attributes:
        metric: (B, S, N, D) float, what similarity is measured on (keys of the self-attention, heads aggregated), for
            N tokens in each of S sets per sample.
        size: (B, S, N) float, original tokens that each token stands for; None while all are one.
        r: Tokens to remove from each set, already capped.
        num_protected: Tokens at the start of each set that must be kept as they are.
        shared: Whether one assignment (B, 1, ...) is to serve all S sets of a sample.
        threshold: The mode's threshold, or None.
        generator: Source of randomness, or None for the global one.
    """

    metric: Tensor
    size: Tensor | None
    r: int
    num_protected: int
    shared: bool
    threshold: float | None
    generator: torch.Generator | None


class Mode(NamedTuple):
    """One entry of the registry.

    Attributes:
        name: The value of `token_merging_mode` that selects it.
        assign: The pure function that decides.
        needs_threshold: Whether `token_merging_threshold` must be given.
    """

    name: str
    assign: Callable[[ModeInputs], Assignment]
    needs_threshold: bool = False


MODES: dict[str, Mode] = {}
"""All modes by name."""


def register_mode(name: str, *, needs_threshold: bool = False) -> Callable[[Callable], Callable]:
    """Registers a function `(ModeInputs) -> Assignment` as a value of `token_merging_mode`.

    Args:
        name: The value that selects it.
        needs_threshold: Whether it cannot run without a threshold.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        ValueError: If the name is taken by another function.

    Examples:
        >>> from hf_video_tome.merging import assign, bipartite_soft_matching
        >>> @register_mode("keep_first_halves")
        ... def keep_first_halves(inputs):
        ...     scores = torch.zeros_like(inputs.metric[..., ::2, :1]).expand(-1, -1, -1, inputs.metric.shape[2] // 2)
        ...     return assign(bipartite_soft_matching(scores, inputs.r, inputs.num_protected), keep_sources=False)
        >>> del MODES["keep_first_halves"]
    """

    def decorator(function: Callable[[ModeInputs], Assignment]) -> Callable[[ModeInputs], Assignment]:
        if name in MODES and MODES[name].assign is not function:
            raise ValueError(f"the mode {name!r} is registered already")
        MODES[name] = Mode(name, function, needs_threshold)
        return function

    return decorator
