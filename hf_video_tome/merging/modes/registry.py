"""Registry of modes: a mode decides which tokens of a matched set to remove, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..assignment import Assignment
from ..layout import TokenLayout
from ..matching import Matching, cosine_matching, random_matching
from ..schedule import removals_per_layer
from ..tokens import Tokens

READABLE = ("keys", "hidden_states", "index")
"""Per-token inputs of a mode, apart from sizes and groups."""

Removals = Callable[[Sequence[int], int, int, TokenLayout], list[int]]
"""`(requested, num_tokens, num_protected, layout) -> removed`, for every layer: see `half_at_most`."""


class Context(NamedTuple):
    """Inputs of a mode, split into S matched sets per clip.

    Attributes:
        keys: (B, S, N, D) float, without gradient, keys of the layer's self-attention, aggregated over heads.
        tokens: Sizes, indices and groups, each (B, S, N) or None, and lengths (B,) or None.
        hidden_states: (B, S, N, C) float, without gradient, states after the attention; None unless the mode reads
            them.
        layout: Token layout of a clip before any merging.
        layer: Number of the layer, from 0.
        num_layers: Number of layers that can merge.
        r: Number of tokens to remove from each set, already capped: the exact number, or the most for adaptive modes.
        num_protected: Number of tokens at the start of each set that must be kept unchanged.
        shared: Whether all S sets of a clip share one assignment (B, 1, ...).
        threshold: Threshold of the mode, or None.
        generator: Random number generator, or None for the global one.
    """

    keys: Tensor
    tokens: Tokens
    layout: TokenLayout
    r: int
    hidden_states: Tensor | None = None
    layer: int = 0
    num_layers: int = 1
    num_protected: int = 0
    shared: bool = False
    threshold: float | None = None
    generator: torch.Generator | None = None

    def cosine_matching(self, threshold: Tensor | float | None = None) -> Matching:
        """Returns the `cosine_matching` of the keys, with an optional threshold on the scores."""
        length, group = self.tokens.length, self.tokens.group
        return cosine_matching(
            self.keys, self.r, self.num_protected, self.shared, length=length, group=group, threshold=threshold
        )

    def random_matching(self) -> Matching:
        """Returns a `random_matching` with as many pairs."""
        length, group = self.tokens.length, self.tokens.group
        return random_matching(
            self.keys, self.r, self.num_protected, self.shared, self.generator, length=length, group=group
        )


class Mode(NamedTuple):
    """Registered mode.

    Attributes:
        name: The value of `token_merging_mode` that selects it.
        assign: The pure function that assigns tokens to slots.
        reads: Its inputs, a subset of `READABLE`.
        removals: Caps the number of tokens that each layer is asked to remove.
        needs_threshold: Whether `token_merging_threshold` is required.
        adaptive: Whether the number of removed tokens depends on the clip.
    """

    name: str
    assign: Callable[[Context], Assignment]
    reads: tuple[str, ...]
    removals: Removals
    needs_threshold: bool
    adaptive: bool


MODES: dict[str, Mode] = {}
"""All modes by name."""


def half_at_most(requested: Sequence[int], num_tokens: int, num_protected: int, layout: TokenLayout) -> list[int]:
    """Returns the number of tokens that each layer removes by bipartite matching: at most half of its tokens.

    Args:
        requested: Number of tokens that each layer is asked to remove from each matched set.
        num_tokens: Number of tokens of a set before the first layer, including protected ones.
        num_protected: Number of tokens that never merge (such as CLS).
        layout: Token layout of a clip.

    Returns:
        One int per layer.
    """
    return removals_per_layer(requested, num_tokens, num_protected)


def register_mode(
    name: str,
    *,
    reads: Sequence[str] = ("keys",),
    removals: Removals = half_at_most,
    needs_threshold: bool = False,
    adaptive: bool = False,
) -> Callable[[Callable[[Context], Assignment]], Callable[[Context], Assignment]]:
    """Registers a function `(Context) -> Assignment` as a value of `token_merging_mode`.

    Args:
        name: The value that selects the function.
        reads: Its per-token inputs: "keys", "hidden_states", "index". Modes that read hidden states decide after the
            residual connection of the attention; all others before its output projection, which is cheaper.
        removals: Caps the number of tokens that each layer is asked to remove.
        needs_threshold: Whether a threshold is required.
        adaptive: Whether the number of removed tokens depends on the clip; its assignments then have `num_slots`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        ValueError: If the name is taken by another function, or `reads` has an unknown entry.

    Examples:
        >>> from hf_video_tome.merging import assign_pairs, bipartite_soft_matching
        >>> @register_mode("keep_first_halves")
        ... def keep_first_halves(context):
        ...     scores = torch.zeros_like(context.keys[..., ::2, :1]).expand(-1, -1, -1, context.keys.shape[2] // 2)
        ...     matching = bipartite_soft_matching(
        ...         scores, context.r, context.num_protected, length=context.tokens.length
        ...     )
        ...     return assign_pairs(matching, content="owner", sizes="owner")
        >>> del MODES["keep_first_halves"]
    """
    unknown = [item for item in reads if item not in READABLE]
    if unknown:
        raise ValueError(f"reads must be some of {', '.join(READABLE)}, got {unknown[0]!r}")

    def decorator(function: Callable[[Context], Assignment]) -> Callable[[Context], Assignment]:
        if name in MODES and MODES[name].assign is not function:
            raise ValueError(f"the mode {name!r} is registered already")
        MODES[name] = Mode(name, function, tuple(reads), removals, needs_threshold, adaptive)
        return function

    return decorator
