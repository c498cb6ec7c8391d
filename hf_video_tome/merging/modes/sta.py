"""`sta`: prunes tokens that repeat earlier ones and have a small state, in three layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..assignment import Assignment, assign_kept
from ..similarity import autocast_disabled, descending_order, nearest, unit_vectors
from ..tokens import gather_tokens
from .registry import Context, SetShape, register_mode

GROUPS = (8, 4, 2)
"""Number of equal groups of each stage."""


def _groups_by_layer(num_layers: int) -> dict[int, int]:
    """Returns the number of groups in each layer that prunes: 0, L / 3 and 2 L / 3, rounded down.

    With fewer than three layers, several stages would be in one: only the first of them is.

    Examples:
        >>> _groups_by_layer(12), _groups_by_layer(8), _groups_by_layer(1)
        ({0: 8, 4: 4, 8: 2}, {0: 8, 2: 4, 5: 2}, {0: 8})
    """
    layers: dict[int, int] = {}
    for stage, groups in enumerate(GROUPS):
        layers.setdefault(stage * num_layers // len(GROUPS), groups)
    return layers


def sta_removals(requested: Sequence[int], shape: SetShape) -> list[int]:
    """Returns the number of tokens that each layer removes: r from each group, at most half of it.

    Args:
        requested: r of each layer.
        shape: Shape of a set before the first layer.

    Returns:
        One int per layer: 8 r, 4 r and 2 r at layers 0, L / 3 and 2 L / 3, and 0 for all others.

    Examples:
        >>> from hf_video_tome.merging import TokenLayout
        >>> sta_removals([64] * 12, SetShape(1568, 0, TokenLayout(0, 8, 196)))
        [512, 0, 0, 0, 256, 0, 0, 0, 128, 0, 0, 0]
    """
    groups_by_layer = _groups_by_layer(len(requested))
    left = shape.num_tokens - shape.num_protected
    removals = []
    for layer, r in enumerate(requested):
        groups = groups_by_layer.get(layer, 0)
        removals.append(groups * min(r, left // groups // 2) if groups else 0)
        left -= removals[-1]
    return removals


@register_mode(
    "sta",
    reads=("keys", "hidden_states"),
    removals=sta_removals,
    num_groups=GROUPS[0],
    scopes=("clip",),
    averages=False,
)
def sta(context: Context) -> Assignment:
    """Prunes r tokens of each of 8, 4 and 2 equal groups at layers 0, L / 3 and 2 L / 3 (rounded down).

    The groups are runs of time, visited forward, backward and forward. In the first one, the tokens at even positions
    that are most similar to one at an odd position are pruned. In every other, a token accumulates the redundancy of
    the tokens that are left of the group before, by similarity of keys; those with the highest redundancy and the
    smallest states (sum of absolute values) are pruned. Pruned tokens belong to no slot.

    From "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation" (ICCV 2023),
    https://arxiv.org/abs/2308.04549, as described there and settled from words about its code. Adapted: it prunes
    between attention and MLP rather than at the end of a layer, and sets a CLS token aside; "backward" is the order of
    the groups, not of the tokens within them.
    """
    assert context.hidden_states is not None  # it reads them
    start, num_groups = context.num_protected, _groups_by_layer(context.num_layers)[context.layer]
    batch, sets, num_tokens, _ = context.keys.shape
    size, rest = divmod(num_tokens - start, num_groups)
    if rest:
        raise ValueError(f"the number of patch tokens must be a multiple of {num_groups}, got {num_tokens - start}")
    r, backward = context.r // num_groups, num_groups == GROUPS[1]
    keys = unit_vectors(context.keys[:, :, start:])
    groups = keys.unflatten(2, (num_groups, size)).unbind(2)
    semantics = _semantics(context.hidden_states[:, :, start:].unflatten(2, (num_groups, size)).to(keys.dtype))
    kept: dict[int, Tensor] = {}
    redundancy = previous = keys[:, :, :0]
    for group in reversed(range(num_groups)) if backward else range(num_groups):
        own = groups[group]
        if not kept:
            best, _ = nearest(own[:, :, ::2], own[:, :, 1::2])
            even = torch.arange(0, size, 2, device=own.device).expand_as(best)
            score = own.new_full((batch, sets, size), -torch.inf).scatter(-1, even, best)
            redundancy = torch.ones_like(score)
        else:
            with autocast_disabled(own):
                repeats = (own @ previous.transpose(-1, -2)).softmax(dim=-2)
                redundancy = (repeats @ redundancy.unsqueeze(-1)).squeeze(-1)
            score = redundancy * (1 - semantics[:, :, group])
        left = descending_order(score)[..., r:].sort(dim=-1).values
        previous, redundancy = gather_tokens(own, left), redundancy.gather(-1, left)
        redundancy = redundancy / redundancy.sum(dim=-1, keepdim=True)
        kept[group] = left + (start + group * size)
    prefix = torch.arange(start, device=keys.device).expand(batch, sets, -1)
    return assign_kept(torch.cat([prefix, *(kept[group] for group in range(num_groups))], dim=-1), num_tokens)


def _semantics(states: Tensor) -> Tensor:
    """Returns the sum of absolute values of each state, scaled to [0, 1] within its group: (..., n, C) -> (..., n)."""
    total = states.abs().sum(dim=-1)
    low, high = total.amin(dim=-1, keepdim=True), total.amax(dim=-1, keepdim=True)
    return (total - low) / (high - low).clamp_min(torch.finfo(total.dtype).tiny)
