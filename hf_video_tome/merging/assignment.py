"""What becomes of the matched tokens: the common form that every mode answers in, and how it is carried out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .matching import Matching


class Assignment(NamedTuple):
    """Where every token of a set goes.

    Attributes:
        slot: (B, S, N) int64, the output slot of each token; -1 where its content is discarded.
        owner: (B, S, M) int64, the position of the token that each output slot is named after, in output order.
        moved: (B, S, N - M) int64, positions of the tokens that own no slot.
        averaged: Whether slots hold averages. False promises that each slot holds its owner and nothing else.

    S is 1 where one assignment serves all sets of a sample (scopes "tube" and "time").
    """

    slot: Tensor
    owner: Tensor
    moved: Tensor
    averaged: bool

    def expand_sets(self, num_sets: int) -> Assignment:
        """The same assignment for each of `num_sets` sets, without copying."""
        shape = (-1, num_sets, -1)
        return Assignment(
            self.slot.expand(shape), self.owner.expand(shape), self.moved.expand(shape), averaged=self.averaged
        )


def assign(matching: Matching, *, keep_sources: bool, discarded: Tensor | None = None) -> Assignment:
    """Builds the assignment that a matching leads to.

    Args:
        matching: The pairs, each field (B, S, ...).
        keep_sources: Whether sources join their destination's slot (merging) or are discarded (dropping).
        discarded: (B, S, N) bool, further tokens whose content is discarded while their slot stays.

    Returns:
        The `Assignment`.
    """
    num_slots = matching.kept.shape[-1]
    num_tokens = num_slots + matching.source.shape[-1]
    slots = torch.arange(num_slots, device=matching.kept.device).expand_as(matching.kept)
    slot = slots.new_full((*slots.shape[:-1], num_tokens), -1).scatter(-1, matching.kept, slots)
    if keep_sources:
        slot = slot.scatter(-1, matching.source, slot.gather(-1, matching.destination))
    if discarded is not None:
        slot = slot.masked_fill(discarded, -1)
    return Assignment(slot=slot, owner=matching.kept, moved=matching.source, averaged=keep_sources)


def _gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Picks tokens: x (B, S, N, C), index (B, S, n) -> (B, S, n, C)."""
    return x.gather(2, index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))


def merge_sizes(size: Tensor | None, assignment: Assignment, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sizes after merging, and the weight of each token in its slot.

    Args:
        size: (B, S, N) float, how many original tokens each token stands for; None for all ones.
        assignment: Where every token goes.
        dtype: Dtype of the sizes where `size` is None.

    Returns:
        The sizes (B, S, M) of the slots, and the weights (B, S, N): size / size of the slot, zero where discarded. The
        weights of each slot sum to one.
    """
    slot, alive = assignment.slot.clamp_min(0), assignment.slot >= 0
    size = alive.to(dtype) if size is None else size * alive
    slot_size = size.new_zeros(assignment.owner.shape).scatter_add(-1, slot, size)
    return slot_size, size / slot_size.gather(-1, slot)


def merge_states(x: Tensor, weight: Tensor, assignment: Assignment) -> Tensor:
    """Weighted mean of the tokens of each slot; differentiable in x.

    Sums are taken in float32 or better: in half precision, hundreds of small terms would get lost.

    Args:
        x: (B, S, N, C) float states.
        weight: (B, S, N) float, weights that sum to one in each slot.
        assignment: Where every token goes.

    Returns:
        (B, S, M, C) in the dtype of x.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        return _sum_bags(x.to(dtype), weight.to(dtype), assignment).to(x.dtype)
    weight = weight.to(dtype).unsqueeze(-1)

    def weighted(index: Tensor) -> Tensor:
        return _gather_tokens(x, index).to(dtype) * _gather_tokens(weight, index)

    target = assignment.slot.clamp_min(0).gather(-1, assignment.moved)
    index = target.unsqueeze(-1).expand(*target.shape, x.shape[-1])
    return weighted(assignment.owner).scatter_add(2, index, weighted(assignment.moved)).to(x.dtype)


def _sum_bags(x: Tensor, weight: Tensor, assignment: Assignment) -> Tensor:
    """`merge_states` as one kernel, which reads every token once and writes every slot once: several times faster."""
    num_slots = assignment.owner.shape[-1]
    num_sets = assignment.slot[..., 0].numel()
    first_slot = torch.arange(0, num_sets * num_slots, num_slots, device=x.device).view(*assignment.slot.shape[:-1], 1)
    slot, order = (assignment.slot.clamp_min(0) + first_slot).flatten().sort(stable=True)
    offsets = torch.searchsorted(slot, torch.arange(num_sets * num_slots, device=x.device))
    sums = embedding_bag(
        order, x.flatten(0, 2), offsets, mode="sum", per_sample_weights=weight.flatten().index_select(0, order)
    )
    return sums.view(*x.shape[:2], num_slots, x.shape[-1])


def keep_states(x: Tensor, assignment: Assignment) -> Tensor:
    """States of the slots where nothing is averaged: those of their owners, (B, S, N, C) -> (B, S, M, C)."""
    return _gather_tokens(x, assignment.owner)
