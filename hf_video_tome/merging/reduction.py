"""A decided merge; apply it to any per-token tensor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .assignment import Assignment
from .layout import TokenLayout
from .modes import Context
from .slot_means import keep_states, merge_sizes, merge_states, merge_states_with_norm
from .tokens import Tokens, is_real


class Reduction(NamedTuple):
    """A decided merge; apply it to any per-token tensor.

    A mean is linear, so it can be applied before or after a linear layer; before is cheaper. A mean that preserves
    norms is not: it is applied to the states after the residual connection.

    Attributes:
        tokens: The tokens after the merge.
        layout: Token layout of a clip before any merging.
        scope: The scope of the matching.
        assignment: Slot of every token, per set or shared by all sets; None if nothing is removed.
        weight: (B, S, n) or (B, 1, n) float, like the assignment, share of each token in its slot; None if slots hold
            their owners.
        num_kept: Number of tokens at the start to keep if nothing else is read; None for all.
        undecided: The inputs of the mode so far, if the decision has to wait for hidden states.
    """

    tokens: Tokens
    layout: TokenLayout
    scope: str
    assignment: Assignment | None = None
    weight: Tensor | None = None
    num_kept: int | None = None
    undecided: Context | None = None

    def apply(self, x: Tensor) -> Tensor:
        """Merges a float tensor with one entry per token, (B, N, C) -> (B, M, C); differentiable in x."""
        if self.num_kept is not None:
            return x[:, : self.num_kept]
        if self.assignment is None:
            return x
        num_sets = self.layout.num_sets(self.scope)
        is_linear = self.assignment.content != "norm_preserving"
        if is_linear and self.assignment.owner.shape[1] < num_sets and self.layout.has_aligned_sets(self.scope):
            kept, rows = self.layout.split_aligned(x, self.scope)
            return self.layout.join_aligned(kept, _merge_sets(rows, self.weight, self.assignment), self.scope)
        prefix, sets = self.layout.split(x, self.scope)
        weight = None if self.weight is None else self.weight.expand(-1, num_sets, -1)
        merged = _merge_sets(sets, weight, self.assignment.expand_sets(num_sets))
        return self.layout.join(prefix, merged, self.scope)


def _merge_sets(x: Tensor, weight: Tensor | None, assignment: Assignment) -> Tensor:
    """Applies an assignment: (B, S, N, C) -> (B, S, M, C)."""
    if weight is None:
        return keep_states(x, assignment)
    if assignment.content == "norm_preserving":
        return merge_states_with_norm(x, weight, assignment)
    return merge_states(x, weight, assignment)


def reduce_tokens(
    assignment: Assignment,
    tokens: Tokens,
    layout: TokenLayout,
    scope: str,
    dtype: torch.dtype,
    position: str = "destination",
) -> Reduction:
    """Builds the reduction for an assignment and updates the token state.

    Args:
        assignment: Slot of every token of each matched set.
        tokens: The tokens before the merge.
        layout: Token layout of a clip.
        scope: "clip", "frame", "tube" or "time".
        dtype: Float dtype of sizes, float32 or better.
        position: "destination" or "centroid", where merged tokens are located.

    Returns:
        The reduction.
    """
    num_sets, batch_size = layout.num_sets(scope), assignment.slot.shape[0]
    prefix_size, size = (None, None) if tokens.size is None else layout.split(tokens.size, scope)
    if size is not None:
        # If all sets share an assignment, tokens at the same position have the same size in all of them.
        size = size[:, : assignment.owner.shape[1]]
    slot_size: Tensor | None = None
    weight: Tensor | None = None
    if assignment.content != "owner" or assignment.sizes == "summed":
        slot_size, weight = merge_sizes(size, assignment, dtype)
        if assignment.content == "owner":
            weight = None
    if assignment.sizes == "owner":
        if size is not None:
            slot_size = size.gather(-1, assignment.owner)
        elif assignment.num_slots is not None:
            slot_size = torch.ones(assignment.owner.shape, dtype=dtype, device=assignment.owner.device)
        if slot_size is not None and assignment.num_slots is not None:
            slot_size = slot_size * is_real(assignment.num_slots, slot_size.shape[-1])
    if slot_size is not None:
        if prefix_size is None and scope != "clip":
            prefix_size = slot_size.new_ones(batch_size, layout.num_prefix_tokens)
        slot_size = layout.join(prefix_size, slot_size.expand(-1, num_sets, -1), scope)

    every = assignment.expand_sets(num_sets)
    after = Tokens(
        size=slot_size,
        source=None if tokens.source is None else _follow(tokens.source, every, layout, scope),
        index=None if tokens.index is None else _of_owners(tokens.index, every, layout, scope, empty=-1),
        group=None if tokens.group is None else _of_owners(tokens.group, every, layout, scope),
        length=None if assignment.num_slots is None else assignment.num_slots[:, 0],
    )
    reduction = Reduction(after, layout, scope, assignment, weight)
    if tokens.position is None:
        return reduction
    # The positions are averaged even if the states keep their norm.
    plain = reduction._replace(assignment=assignment._replace(content="mean"))
    mover = plain if position == "centroid" else plain._replace(weight=None)
    moved = mover.apply(tokens.position.expand(batch_size, -1, -1))
    return reduction._replace(tokens=after._replace(position=moved))


def _of_owners(x: Tensor, assignment: Assignment, layout: TokenLayout, scope: str, empty: int = 0) -> Tensor:
    """Returns the values of the slot owners: (B, N) int64 -> (B, M)."""
    prefix, sets = layout.split(x, scope)
    kept = sets.gather(-1, assignment.owner)
    if assignment.num_slots is not None:
        kept = kept.where(is_real(assignment.num_slots, kept.shape[-1]), empty)
    return layout.join(prefix, kept, scope)


def _follow(source: Tensor, assignment: Assignment, layout: TokenLayout, scope: str) -> Tensor:
    """Applies one assignment to the map from original to current tokens: (B, N0) -> (B, N0), in O(N)."""
    slot = layout.sequence_index(assignment.slot, assignment.owner.shape[-1], scope)
    prefix = None
    if scope != "clip":
        prefix = torch.arange(layout.num_prefix_tokens, device=slot.device).expand(slot.shape[0], -1)
    moved_to = layout.join(prefix, slot, scope)
    return torch.where(source < 0, source, moved_to.gather(1, source.clamp_min(0)))
