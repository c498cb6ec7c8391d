"""Registry of modes: a mode decides which tokens of a matched set to remove, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..assignment import Assignment
from ..attention_statistics import AttentionStatistics
from ..layout import TokenLayout
from ..matching import Matching, cosine_matching, random_matching
from ..schedule import MAX_SHARE, removals_per_layer
from ..setting_error import SettingError
from ..tokens import Tokens
from ..values import shown

READABLE = ("keys", "hidden_states", "index", "segments", "attention", "mlp")
"""Inputs of a mode, apart from sizes and lengths."""


class SetShape(NamedTuple):
    """Shape of a matched set, for counting how many tokens a mode removes from it.

    Attributes:
        num_tokens: Number of tokens of a set before the first layer, including protected ones.
        num_protected: Number of tokens that never merge (such as CLS).
        layout: Token layout of a clip before any merging.
        scope: "clip", "frame", "tube" or "time".
        options: Options of the mode, complete.
        segments: The setting `segments`.
    """

    num_tokens: int
    num_protected: int
    layout: TokenLayout
    scope: str = "clip"
    options: Mapping[str, Any] = {}
    segments: int | None = None


Removals = Callable[[Sequence[int], SetShape], list[int]]
"""`(requested, shape) -> removed`, for every layer: see `half_at_most`."""


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
        threshold: Threshold of the mode, or of this layer; or None.
        generator: Random number generator, or None for the global one.
        options: Options of the mode, complete.
        segments: The setting `segments`, for modes that read it.
        attention: Statistics of the layer's attention, for modes that read it.
        mlp: The normalisation and MLP of the layer without its residual connection, (B, N, C) -> (B, N, C), for modes
            that read it.
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
    options: Mapping[str, Any] = {}
    segments: int | None = None
    attention: AttentionStatistics | None = None
    mlp: Callable[[Tensor], Tensor] | None = None

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


class ModeOption(NamedTuple):
    """Option of a mode, one entry of `token_merging_mode_options`.

    Attributes:
        default: Value if it is not given.
        check: Returns a value in its JSON-safe form, or raises a `SettingError`.
        help: Effect and allowed values, for users.
        choices: Values to compare when settings are searched; none if the default will do.
    """

    default: Any
    check: Callable[[Any], Any]
    help: str
    choices: tuple[Any, ...] = ()


Reads = tuple[str, ...] | Callable[[Mapping[str, Any]], tuple[str, ...]]
"""Inputs of a mode; a function of its options if they decide."""


class Mode(NamedTuple):
    """Registered mode.

    Attributes:
        name: The value of `token_merging_mode` that selects it.
        assign: The pure function that assigns tokens to slots.
        reads: Its inputs, a subset of `READABLE`; a function of its options if they decide.
        removals: Caps the number of tokens that each layer is asked to remove.
        needs_threshold: Whether `token_merging_threshold` is required.
        needs_thresholds: Whether `token_merging_thresholds`, one per layer, is required.
        adaptive: Whether the number of removed tokens depends on the clip.
        handles_padding: Whether it reads `tokens.length`; otherwise each clip of a padded batch is assigned alone.
        averages: Whether slots hold means, so that `token_merging_average` applies.
        max_share: Largest share of its tokens that a layer can remove; below 1, so that tokens are left.
        single_layer: Whether a scalar r is removed by layer 0 alone.
        num_groups: Number of equal groups of a set by which r counts.
        scopes: Scopes that the mode supports; None for all.
        default_segments: Number of segments if `token_merging_segments` is not set, or None.
        options: Its options by name.
    """

    name: str
    assign: Callable[[Context], Assignment]
    reads: Reads
    removals: Removals
    needs_threshold: bool
    needs_thresholds: bool
    adaptive: bool
    handles_padding: bool
    averages: bool
    max_share: float
    single_layer: bool
    num_groups: int
    scopes: tuple[str, ...] | None
    default_segments: int | None
    options: Mapping[str, ModeOption]

    def inputs(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the inputs that the mode reads with complete options."""
        return self.reads(options) if callable(self.reads) else self.reads

    def complete_options(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns the options with defaults for those that are not given.

        Raises:
            SettingError: If the mode has no such option, or a value is invalid.
        """
        given = given or {}
        for name in given:
            if name not in self.options:
                allowed = f"options of this mode: {', '.join(self.options)}" if self.options else "None for this mode"
                raise SettingError("mode_options", name, allowed, given={"mode": self.name})
        try:
            return {
                name: option.check(given[name]) if name in given else option.default
                for name, option in self.options.items()
            }
        except SettingError as error:
            raise error.renamed("mode_options[{!r}]".format) from None


MODES: dict[str, Mode] = {}
"""All modes by name."""


def half_at_most(requested: Sequence[int], shape: SetShape) -> list[int]:
    """Returns the number of tokens that each layer removes by bipartite matching: at most half of its tokens.

    Args:
        requested: Number of tokens that each layer is asked to remove from each matched set.
        shape: Shape of a set before the first layer.

    Returns:
        One int per layer.
    """
    return removals_per_layer(requested, shape.num_tokens, shape.num_protected)


def all_but(requested: Sequence[int], num_tokens: int, num_left: int) -> list[int]:
    """Returns the number of tokens that each layer removes if only some have to be left after the last one.

    Args:
        requested: Number of tokens that each layer is asked to remove from each matched set.
        num_tokens: Number of tokens of a set before the first layer.
        num_left: Number of tokens that have to be left.

    Returns:
        One int per layer.

    Examples:
        >>> all_but([10, 10], num_tokens=16, num_left=4)
        [10, 2]
    """
    removals = []
    for r in requested:
        removals.append(min(r, max(num_tokens - num_left, 0)))
        num_tokens -= removals[-1]
    return removals


def all_but_one(requested: Sequence[int], shape: SetShape) -> list[int]:
    """Returns the number of tokens that each layer removes if only one, besides protected ones, has to be left."""
    return all_but(requested, shape.num_tokens, shape.num_protected + 1)


def register_mode(
    name: str,
    *,
    reads: Sequence[str] | Callable[[Mapping[str, Any]], tuple[str, ...]] = ("keys",),
    removals: Removals = half_at_most,
    needs_threshold: bool = False,
    needs_thresholds: bool = False,
    adaptive: bool = False,
    handles_padding: bool = False,
    averages: bool = True,
    max_share: float = MAX_SHARE,
    single_layer: bool = False,
    num_groups: int = 1,
    scopes: tuple[str, ...] | None = None,
    default_segments: int | None = None,
    options: Mapping[str, ModeOption] | None = None,
) -> Callable[[Callable[[Context], Assignment]], Callable[[Context], Assignment]]:
    """Registers a function `(Context) -> Assignment` as a value of `token_merging_mode`.

    Args:
        name: The value that selects the function.
        reads: Its inputs: "keys", "hidden_states", "index", "segments", "attention", "mlp"; a function of the complete
            options if these decide. Modes that read hidden states or the MLP decide after the residual connection of
            the attention; all others before its output projection, which is cheaper.
        removals: Caps the number of tokens that each layer is asked to remove.
        needs_threshold: Whether a threshold is required.
        needs_thresholds: Whether one threshold per layer is required.
        adaptive: Whether the number of removed tokens depends on the clip; its assignments then have `num_slots`.
        handles_padding: Whether it reads `tokens.length` and sets `num_slots` for padded batches; otherwise each clip
            of such a batch is assigned alone.
        averages: Whether slots hold means, so that `token_merging_average` applies.
        max_share: Largest r if it is a share.
        single_layer: Whether a scalar r is removed by layer 0 alone.
        num_groups: Number of equal groups of a set by which r counts: a share is one of a group, and sets that cannot
            be divided into so many are refused.
        scopes: Scopes that the mode supports, None for all. If the architecture's default is not among them, the first
            is the default.
        default_segments: Number of segments if `token_merging_segments` is not set; architectures may have another.
        options: Its options by name, for `token_merging_mode_options`.

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
    unknown = [] if callable(reads) else [item for item in reads if item not in READABLE]
    if unknown:
        raise ValueError(f"reads must be some of {', '.join(READABLE)}, got {unknown[0]!r}")
    if not 0 < max_share < 1:
        raise ValueError(f"max_share must be a number in (0, 1), got {shown(max_share)}")

    def decorator(function: Callable[[Context], Assignment]) -> Callable[[Context], Assignment]:
        if name in MODES and MODES[name].assign is not function:
            raise ValueError(f"the mode {name!r} is registered already")
        MODES[name] = Mode(
            name,
            function,
            reads if callable(reads) else tuple(reads),
            removals,
            needs_threshold,
            needs_thresholds,
            adaptive,
            handles_padding,
            averages,
            max_share,
            single_layer,
            num_groups,
            scopes,
            default_segments,
            dict(options or {}),
        )
        return function

    return decorator
