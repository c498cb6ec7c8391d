"""Result of a mode: the slot of every token in a matched set, and the content and size of each slot."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .matching import Matching
from .tokens import is_real, marked_first

Content = Literal["mean", "norm_preserving", "owner"]
"""Content of a slot: the size-weighted mean of its tokens, that mean with the norm of the longest, or its owner."""

Sizes = Literal["summed", "owner"]
"""Size of a slot: the sum of the sizes of its tokens, or the size of its owner alone."""


class Assignment(NamedTuple):
    """Assignment of the tokens of a matched set to output slots.

    Attributes:
        slot: (B, S, N) int64, output slot of each token; -1 for discarded tokens.
        owner: (B, S, M) int64, position of the token that owns each slot, in output order.
        moved: (B, S, N - M) int64, positions of the tokens that own no slot.
        content: Content of a slot.
        sizes: Size of a slot.
        num_slots: (B, S) int64, number of filled slots of each set if it varies; the slots after them are empty. None
            if all M are filled.
        importance: (B, S, N) float > 0, by which the sizes are multiplied for a mean; None for all ones.

    S is 1 if all sets of a clip share one assignment (scopes "tube" and "time").
    """

    slot: Tensor
    owner: Tensor
    moved: Tensor
    content: Content = "mean"
    sizes: Sizes = "summed"
    num_slots: Tensor | None = None
    importance: Tensor | None = None

    def expand_sets(self, num_sets: int) -> Assignment:
        """Returns the assignment expanded to `num_sets` sets, without copying."""
        shape = (-1, num_sets, -1)
        return self._replace(
            slot=self.slot.expand(shape),
            owner=self.owner.expand(shape),
            moved=self.moved.expand(shape),
            importance=None if self.importance is None else self.importance.expand(shape),
        )

    def behind(self, num_prefix_tokens: int) -> Assignment:
        """Returns the assignment for sets that begin with prefix tokens, which are kept unchanged."""
        if num_prefix_tokens == 0:
            return self
        prefix = torch.arange(num_prefix_tokens, device=self.slot.device).expand(*self.slot.shape[:-1], -1)
        shifted = self.slot + num_prefix_tokens
        return self._replace(
            slot=torch.cat((prefix, shifted.where(self.slot >= 0, -1)), dim=-1),
            owner=torch.cat((prefix, self.owner + num_prefix_tokens), dim=-1),
            moved=self.moved + num_prefix_tokens,
            num_slots=None if self.num_slots is None else self.num_slots + num_prefix_tokens,
            importance=None if self.importance is None else pad(self.importance, (num_prefix_tokens, 0), value=1.0),
        )

    def without_empty_slots(self, refusal: str) -> Assignment:
        """Returns the assignment without the slots that are empty in all sets.

        Args:
            refusal: Error message for models that need a fixed number of slots.

        Raises:
            ValueError: If the number of slots varies while a model is compiled or exported.
        """
        if self.num_slots is None:
            return self
        refuse_to_compile(refusal)
        width = int(self.num_slots.max())
        return self._replace(
            owner=self.owner[..., :width], moved=torch.cat((self.owner[..., width:], self.moved), dim=-1)
        )


def refuse_to_compile(refusal: str) -> None:
    """Raises an error while a model is compiled or exported.

    Args:
        refusal: The error message.

    Raises:
        ValueError: If a model is compiled or exported.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        raise ValueError(refusal)


def assign_kept(kept: Tensor, num_tokens: int) -> Assignment:
    """Builds the assignment that keeps some tokens unchanged and drops all others.

    Args:
        kept: (B, S, M) int64, positions of the tokens to keep, in ascending order.
        num_tokens: Number of tokens of each set.

    Returns:
        The `Assignment`.

    Examples:
        >>> assign_kept(torch.tensor([[[0, 2]]]), 4).slot.tolist()
        [[[0, -1, 1, -1]]]
    """
    slots = torch.arange(kept.shape[-1], device=kept.device).expand_as(kept)
    slot = kept.new_full((*kept.shape[:-1], num_tokens), -1).scatter(-1, kept, slots)
    moved = marked_first(slot < 0)[..., : num_tokens - kept.shape[-1]]
    return Assignment(slot, kept, moved, content="owner", sizes="owner")


def assign_neighbours(slot: Tensor, num_slots: int) -> Assignment:
    """Builds the assignment that merges runs of neighbouring tokens; the first token of a run owns its slot.

    Args:
        slot: (B, S, N) int64, slot of each token, which rises by 0 or 1 from token to token.
        num_slots: Number of slots.

    Returns:
        The `Assignment`.

    Examples:
        >>> assignment = assign_neighbours(torch.tensor([[[0, 0, 1, 2]]]), 3)
        >>> assignment.owner.tolist(), assignment.moved.tolist()
        ([[[0, 2, 3]]], [[[1]]])
    """
    joins_previous = pad(slot[..., 1:] == slot[..., :-1], (1, 0))
    order = marked_first(~joins_previous)
    return Assignment(slot, order[..., :num_slots], order[..., num_slots:])


def assign_pairs(
    matching: Matching, *, content: Content = "mean", sizes: Sizes = "summed", discarded: Tensor | None = None
) -> Assignment:
    """Builds the assignment for a matching.

    Args:
        matching: The pairs; each field is (B, S, ...).
        content: Content of a slot. With "owner", sources are discarded.
        sizes: Size of a slot. With "owner", sources belong to no slot.
        discarded: (B, S, N) bool, further tokens that belong to no slot; the slots that they own are kept.

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


def assign_heirs(heir: Tensor, num_slots: int | None = None) -> Assignment:
    """Builds the assignment that merges each token into another one, in ascending order of the owners.

    Args:
        heir: (B, S, N) int64, position of the token that each token merges into: its own if it owns a slot.
        num_slots: Number of tokens that are their own heirs in each set; None if it varies.

    Returns:
        The `Assignment`, with `num_slots` if it varies.

    Examples:
        >>> assignment = assign_heirs(torch.tensor([[[2, 1, 2, 1]]]), num_slots=2)
        >>> assignment.slot.tolist(), assignment.owner.tolist(), assignment.moved.tolist()
        ([[[1, 0, 1, 0]]], [[[1, 2]]], [[[0, 3]]])
    """
    num_tokens = heir.shape[-1]
    is_owner = heir == torch.arange(num_tokens, device=heir.device)
    slot = (is_owner.cumsum(dim=-1) - 1).gather(-1, heir)
    order = marked_first(is_owner)
    width = num_tokens if num_slots is None else num_slots
    counts = is_owner.sum(dim=-1) if num_slots is None else None
    return Assignment(slot, order[..., :width], order[..., width:], num_slots=counts)
