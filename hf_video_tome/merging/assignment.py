"""What a mode answers: where every token of a matched set goes, what a slot holds and how sizes count."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .matching import Matching
from .tokens import is_real

Content = Literal["mean", "owner"]
"""What a slot holds: the size-weighted mean of its tokens, or the token that owns it."""

Sizes = Literal["summed", "owner"]
"""How many original tokens a slot stands for: all that its tokens stand for, or those of its owner alone."""


class Assignment(NamedTuple):
    """Where every token of a matched set goes.

    Attributes:
        slot: (B, S, N) int64, the output slot that stands for each token; -1 where none does.
        owner: (B, S, M) int64, the position of the token that each output slot is named after, in output order.
        moved: (B, S, N - M) int64, positions of the tokens that own no slot.
        content: What a slot holds.
        sizes: How many original tokens a slot stands for.
        num_slots: (B, S) int64, slots that each set really has, where that depends on its content: those behind are
            empty. None: all M.

    S is 1 where one assignment serves all sets of a clip (scopes "tube" and "time").
    """

    slot: Tensor
    owner: Tensor
    moved: Tensor
    content: Content = "mean"
    sizes: Sizes = "summed"
    num_slots: Tensor | None = None

    def expand_sets(self, num_sets: int) -> Assignment:
        """Returns the same assignment for each of `num_sets` sets, without copying."""
        shape = (-1, num_sets, -1)
        return self._replace(
            slot=self.slot.expand(shape), owner=self.owner.expand(shape), moved=self.moved.expand(shape)
        )

    def behind(self, num_prefix_tokens: int) -> Assignment:
        """Returns the same assignment for sets that begin with prefix tokens, which stay as they are."""
        if num_prefix_tokens == 0:
            return self
        prefix = torch.arange(num_prefix_tokens, device=self.slot.device).expand(*self.slot.shape[:-1], -1)
        shifted = self.slot + num_prefix_tokens
        return self._replace(
            slot=torch.cat((prefix, shifted.where(self.slot >= 0, -1)), dim=-1),
            owner=torch.cat((prefix, self.owner + num_prefix_tokens), dim=-1),
            moved=self.moved + num_prefix_tokens,
            num_slots=None if self.num_slots is None else self.num_slots + num_prefix_tokens,
        )

    def without_empty_slots(self, refusal: str) -> Assignment:
        """Returns the same assignment without the slots that are empty in all sets.

        Args:
            refusal: What to say where the number of slots has to be known beforehand.

        Raises:
            ValueError: If the number depends on content while a model is compiled or exported.
        """
        if self.num_slots is None:
            return self
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            raise ValueError(refusal)
        width = int(self.num_slots.max())
        return self._replace(
            owner=self.owner[..., :width], moved=torch.cat((self.owner[..., width:], self.moved), dim=-1)
        )


def assign_pairs(
    matching: Matching, *, content: Content = "mean", sizes: Sizes = "summed", discarded: Tensor | None = None
) -> Assignment:
    """Builds the assignment that a matching leads to.

    Args:
        matching: The pairs, each field (B, S, ...).
        content: What a slot holds. With "owner", sources are discarded.
        sizes: How sizes count. With "owner", no slot stands for a source.
        discarded: (B, S, N) bool, further tokens that no slot stands for, while their own slot stays.

    Returns:
        The `Assignment`.
    """
    num_slots = matching.kept.shape[-1]
    num_tokens = num_slots + matching.moved.shape[-1]
    slots = torch.arange(num_slots, device=matching.kept.device).expand_as(matching.kept)
    if matching.num_kept is not None:
        slots = slots.where(is_real(matching.num_kept, num_slots), -1)
    slot = slots.new_full((*slots.shape[:-1], num_tokens), -1).scatter(-1, matching.kept, slots)
    heir = slot.gather(-1, matching.destination) if sizes == "summed" else matching.source.new_full((), -1)
    if matching.is_pair is not None:
        heir = heir.where(matching.is_pair, slot.gather(-1, matching.source))
    if sizes == "summed" or matching.is_pair is not None:
        slot = slot.scatter(-1, matching.source, heir)
    if discarded is not None:
        slot = slot.masked_fill(discarded, -1)
    return Assignment(slot, matching.kept, matching.moved, content, sizes, matching.num_kept)
