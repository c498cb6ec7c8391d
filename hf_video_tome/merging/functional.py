"""One merging step on the sequence of a layer, and the pooling that follows the last one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .assignment import Assignment, keep_states, merge_sizes, merge_states
from .layout import SHARED_SCOPES, TokenLayout
from .matching import aggregate_heads
from .modes import MODES, ModeInputs
from .schedule import max_removable, removals_per_layer
from .state import TokenMergingState


class MergeSettings(NamedTuple):
    """How tokens are merged, apart from how many.

    Attributes:
        mode: Name of an entry of `MODES`.
        threshold: Threshold of the mode, or None.
        scope: "clip", "frame", "tube" or "time".
        head_aggregation: "mean" or "concat" of the heads' keys.
        proportional_attention: Whether log(size) is added to the attention logits.
        pooling: "weighted" or "mean": whether a mean over the last tokens weighs them by size.
        position: "destination" or "centroid", where merged tokens lie; of no account where the state has no positions.
    """

    mode: str = "merge"
    threshold: float | None = None
    scope: str = "clip"
    head_aggregation: str = "mean"
    proportional_attention: bool = True
    pooling: str = "weighted"
    position: str = "destination"


def merge_tokens(
    hidden_states: Tensor,
    metric: Tensor,
    r: int,
    state: TokenMergingState,
    layout: TokenLayout,
    settings: MergeSettings,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, TokenMergingState]:
    """Removes r tokens from each matched set of a sequence.

    Args:
        hidden_states: (B, N, C) float.
        metric: Float metric per token in float32 or better: (B, N, D) in the order of the sequence, or (B, S, n, D)
            where it is taken apart into the matched sets already.
        r: Tokens to remove from each set; capped at half of those that are not protected. 0 changes nothing.
        state: The state before.
        layout: Where the tokens lie.
        settings: How to merge.
        generator: Source of randomness of the random modes; the global one when None.

    Returns:
        The states (B, M, C), differentiable in `hidden_states`, and the new state.

    Examples:
        >>> x = torch.randn(2, 17, 8)
        >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=4, num_patches=4)
        >>> merged, state = merge_tokens(x, x, 5, TokenMergingState(), layout, MergeSettings())
        >>> merged.shape, state.size.sum(dim=1).tolist()
        (torch.Size([2, 12, 8]), [17.0, 17.0])
    """
    merge = decide_merge(metric, r, state, layout, settings, generator)
    return merge.apply(hidden_states), merge.state


class TokenMerge(NamedTuple):
    """One merging step that is decided: it can be applied to anything that there is one of per token.

    Merging is a weighted mean, so it can come before or after a linear layer: before, there is less to compute.

    Attributes:
        state: The tokens after the step.
        layout: Where the tokens lay in the unmerged sequence.
        scope: The scope of the matching.
        assignment: Where every token goes, of each set or of all of them; None where nothing is removed.
        weight: (B, S, n) or (B, 1, n) float as the assignment, share of each token in its slot; None where slots hold
            one token each.
        prefix_only: Whether only the prefix tokens are kept, because nothing else is read.
    """

    state: TokenMergingState
    layout: TokenLayout
    scope: str
    assignment: Assignment | None = None
    weight: Tensor | None = None
    prefix_only: bool = False

    def apply(self, x: Tensor) -> Tensor:
        """Merges: (B, N, C) float, one entry per token before, to (B, M, C); differentiable."""
        if self.prefix_only:
            return x[:, : self.layout.num_prefix_tokens]
        if self.assignment is None:
            return x
        num_sets = self.layout.num_sets(self.scope)
        if self.assignment.owner.shape[1] < num_sets and self.layout.has_aligned_sets(self.scope):
            kept, rows = self.layout.split_aligned(x, self.scope)
            return self.layout.join_aligned(kept, _merge_sets(rows, self.weight, self.assignment), self.scope)
        prefix, sets = self.layout.split(x, self.scope)
        weight = None if self.weight is None else self.weight.expand(-1, num_sets, -1)
        merged = _merge_sets(sets, weight, self.assignment.expand_sets(num_sets))
        return self.layout.join(prefix, merged, self.scope)


def _merge_sets(x: Tensor, weight: Tensor | None, assignment: Assignment) -> Tensor:
    """Carries an assignment out: (B, S, N, C) -> (B, S, M, C)."""
    return keep_states(x, assignment) if weight is None else merge_states(x, weight, assignment)


def decide_merge(
    metric: Tensor,
    r: int,
    state: TokenMergingState,
    layout: TokenLayout,
    settings: MergeSettings,
    generator: torch.Generator | None = None,
) -> TokenMerge:
    """Decides which r tokens of each matched set are removed and what becomes of them.

    Args:
        metric: As for `merge_tokens`.
        r: As for `merge_tokens`.
        state: The state before.
        layout: Where the tokens lie.
        settings: How to merge.
        generator: Source of randomness of the random modes; the global one when None.

    Returns:
        The step, to be applied.

    Examples:
        >>> x = torch.randn(2, 16, 8)
        >>> merge = decide_merge(x, 5, TokenMergingState(), TokenLayout(0, 4, 4), MergeSettings())
        >>> linear = torch.nn.Linear(8, 3)
        >>> torch.allclose(merge.apply(linear(x)), linear(merge.apply(x)), atol=1e-6)
        True
    """
    scope = settings.scope
    if metric.ndim == 3:
        _, metric = layout.split(metric, scope)
    batch_size, num_sets, set_tokens, _ = metric.shape
    num_protected = layout.num_prefix_tokens if scope == "clip" else 0
    r = min(r, max_removable(set_tokens, num_protected))
    if r == 0:
        return TokenMerge(state, layout, scope)
    prefix_size, size = (None, None) if state.size is None else layout.split(state.size, scope)
    # Detached rather than under `no_grad`: programs of torch.export that switch gradients off cannot be saved.
    assignment = MODES[settings.mode].assign(
        ModeInputs(
            metric=metric.detach(),
            size=size,
            r=r,
            num_protected=num_protected,
            shared=scope in SHARED_SCOPES,
            threshold=settings.threshold,
            generator=generator,
        )
    )
    # Where one assignment serves all sets, tokens at equal positions of them have equal sizes.
    size = None if size is None else size[:, : assignment.owner.shape[1]]
    new_size: Tensor | None = None
    weight: Tensor | None = None
    if assignment.averaged:
        slot_size, weight = merge_sizes(size, assignment, dtype=metric.dtype)
        if prefix_size is None and scope != "clip":
            prefix_size = slot_size.new_ones(batch_size, layout.num_prefix_tokens)
        new_size = layout.join(prefix_size, slot_size.expand(-1, num_sets, -1), scope)
    elif size is not None:
        new_size = layout.join(prefix_size, size.gather(-1, assignment.owner).expand(-1, num_sets, -1), scope)
    source = None if state.source is None else _follow(state.source, assignment.expand_sets(num_sets), layout, scope)
    merge = TokenMerge(TokenMergingState(new_size, source), layout, scope, assignment, weight)
    if state.position is None:
        return merge
    position = state.position.expand(batch_size, -1, -1)
    mover = merge if settings.position == "centroid" else merge._replace(weight=None)
    return merge._replace(state=merge.state._replace(position=mover.apply(position)))


def _follow(source: Tensor, assignment: Assignment, layout: TokenLayout, scope: str) -> Tensor:
    """Updates the map from original to current tokens by one assignment: (B, N0) -> (B, N0), O(N)."""
    slot = layout.sequence_index(assignment.slot, assignment.owner.shape[-1], scope)
    prefix = None
    if scope != "clip":
        prefix = torch.arange(layout.num_prefix_tokens, device=slot.device).expand(slot.shape[0], -1)
    moved_to = layout.join(prefix, slot, scope)
    return torch.where(source < 0, source, moved_to.gather(1, source.clamp_min(0)))


def token_counts(requested: list[int], layout: TokenLayout, scope: str) -> list[int]:
    """Tokens of the sequence before the first and after each layer, known before anything runs.

    Args:
        requested: Tokens that each layer is asked to remove from each matched set.
        layout: Where the tokens lie.
        scope: "clip", "frame", "tube" or "time".

    Returns:
        L + 1 ints; entry i is the length of `hidden_states[i]`.

    Examples:
        >>> token_counts([150] * 12, TokenLayout(0, 8, 196), "clip")[-4:]
        [218, 109, 55, 28]
    """
    left, num_protected = layout.set_size(scope)
    counts = [layout.sequence_length(left, scope)]
    for removed in removals_per_layer(requested, left, num_protected):
        left -= removed
        counts.append(layout.sequence_length(left, scope))
    return counts


def mean_pool(x: Tensor, size: Tensor | None = None) -> Tensor:
    """Mean over tokens, weighted by their sizes where given.

    The weighted mean of merged tokens is the plain mean of the tokens that they stand for.

    Args:
        x: (B, N, C) float states.
        size: (B, N) float sizes, or None for a plain mean.

    Returns:
        (B, C) in the dtype of x.

    Examples:
        >>> mean_pool(torch.tensor([[[1.0], [4.0]]]), torch.tensor([[2.0, 1.0]])).tolist()
        [[2.0]]
    """
    if size is None:
        return x.mean(1)
    weight = size / size.sum(dim=1, keepdim=True)
    return (x.to(weight.dtype) * weight.unsqueeze(-1)).sum(dim=1).to(x.dtype)


class TokenMergingStep(NamedTuple):
    """What one layer needs to know: how many tokens to remove, and of what.

    Attributes:
        r: Tokens to remove from each matched set.
        state: The tokens that come into the layer.
        layout: Where they lie.
        settings: How to merge.
        prefix_only: Whether nothing is read of what the layer returns but the prefix tokens, so that it need not
            return more. Nothing merges then.
    """

    r: int
    state: TokenMergingState
    layout: TokenLayout
    settings: MergeSettings
    prefix_only: bool = False

    @property
    def attention_size(self) -> Tensor | None:
        """(B, N) sizes for proportional attention; None where it adds nothing."""
        return self.state.size if self.settings.proportional_attention else None

    @property
    def set_sizes(self) -> Tensor | None:
        """(B, S, n) `attention_size` of the tokens of each matched set."""
        return None if self.attention_size is None else self.layout.split(self.attention_size, self.settings.scope)[1]

    @property
    def merges_frames(self) -> bool:
        """Whether frames become fewer, each with all its places (scope "time"), rather than places."""
        return self.settings.scope == "time"

    def grid(self, num_tokens: int) -> tuple[int, int]:
        """Frames, and places in each of them, of a sequence of so many tokens: see `TokenLayout.grid`."""
        return self.layout.grid(num_tokens, self.settings.scope)

    def decide(self, keys: Tensor, num_frames: int | None = None) -> TokenMerge:
        """Decides by the layer's attention keys which of its tokens merge: see `decide_merge`.

        Args:
            keys: (B, H, N, D) float; with `num_frames` (B * num_frames, H, P, D), without prefix tokens.
            num_frames: Frames of a clip, where each of them was attended to by itself.

        Returns:
            The step, to be applied to whatever the layer has of each token.
        """
        if self.r == 0 or self.prefix_only:
            return TokenMerge(self.state, self.layout, self.settings.scope, prefix_only=self.prefix_only)
        metric = aggregate_heads(keys, self.settings.head_aggregation)
        if num_frames is not None:
            metric = metric.unflatten(0, (-1, num_frames))
            metric = metric.transpose(1, 2) if self.merges_frames else metric
        return decide_merge(metric, self.r, self.state, self.layout, self.settings)


class TokenMergingPlan(NamedTuple):
    """What all layers of one forward call will do, decided before the first of them runs.

    Attributes:
        requested: Tokens that each layer is asked to remove from each matched set.
        layout: Where the tokens lie.
        settings: How to merge.
        prefix_only: Whether only the prefix tokens are read of what the last layer returns.
    """

    requested: list[int]
    layout: TokenLayout
    settings: MergeSettings
    prefix_only: bool = False

    @property
    def merges(self) -> bool:
        """Whether any layer removes anything."""
        return any(self.requested)

    def step(self, layer: int, state: TokenMergingState) -> TokenMergingStep:
        """The step of one layer, given the tokens that come into it."""
        prefix_only = self.prefix_only and layer == len(self.requested) - 1
        return TokenMergingStep(self.requested[layer], state, self.layout, self.settings, prefix_only)
