"""The registry of modes: a mode decides which tokens of a set are removed and what becomes of them."""

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
"""What a mode can read of each token, apart from sizes and groups."""

Removals = Callable[[Sequence[int], int, int, TokenLayout], list[int]]
"""`(requested, num_tokens, num_protected, layout) -> removed`, for every layer: see `half_at_most`."""


class Context(NamedTuple):
    """All that a mode may look at, taken apart into S matched sets per clip.

    Attributes:
        keys: (B, S, N, D) float, without gradient, keys of the layer's self-attention with their heads aggregated.
        tokens: Sizes (B, S, N), indices (B, S, N) and groups (B, S, N), each or None, and the lengths (B,).
        hidden_states: (B, S, N, C) float, without gradient, states after the attention; None unless the mode reads
            them.
        layout: Layout of the clip's tokens before anything merged.
        layer: Number of the layer, from 0.
        num_layers: Number of layers that can merge.
        r: Tokens to remove from each set, capped already: exactly so many, or of adaptive modes at most.
        num_protected: Tokens at the start of each set that must be kept as they are.
        shared: Whether one assignment (B, 1, ...) is to serve all S sets of a clip.
        threshold: The mode's threshold, or None.
        generator: Source of randomness, or None for the global one.
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
        """Returns the `cosine_matching` of the keys, above a threshold where there is one."""
        length, group = self.tokens.length, self.tokens.group
        return cosine_matching(
            self.keys, self.r, self.num_protected, self.shared, length=length, group=group, threshold=threshold
        )

    def random_matching(self) -> Matching:
        """Returns the `random_matching` of as many tokens."""
        length, group = self.tokens.length, self.tokens.group
        return random_matching(
            self.keys, self.r, self.num_protected, self.shared, self.generator, length=length, group=group
        )


class Mode(NamedTuple):
    """One entry of the registry.

    Attributes:
        name: The value of `token_merging_mode` that selects it.
        assign: The pure function that decides.
        reads: What it looks at: some of `READABLE`.
        removals: How many tokens each layer removes of those that it is asked to remove.
        needs_threshold: Whether `token_merging_threshold` must be given.
        adaptive: Whether the number of tokens that it removes depends on the clip.
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
    """Tokens that each layer removes by matching tokens at even with tokens at odd positions: at most half of them.

    Args:
        requested: Tokens that each layer is asked to remove from each matched set.
        num_tokens: Tokens of a set before the first layer, protected ones included.
        num_protected: Tokens that are never merged away (such as CLS).
        layout: Layout of the clip's tokens.

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
        name: The value that selects it.
        reads: What it looks at of each token: "keys", "hidden_states", "index". Modes that read hidden states decide
            after the attention's residual, all others before its output projection, where there is less to compute.
        removals: How many tokens each layer removes of those that it is asked to remove.
        needs_threshold: Whether it cannot run without a threshold.
        adaptive: Whether the number of tokens that it removes depends on the clip: its assignments have `num_slots`.

    Returns:
        The decorator, which returns the function unchanged.

    Raises:
        ValueError: If the name is taken by another function, or it reads what there is not.

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
