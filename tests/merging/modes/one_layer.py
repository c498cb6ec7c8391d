"""One layer on one clip, and what the methods for partitions share: plain Python loops for comparison."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from hf_video_tome.merging import MODES, Assignment, AttentionStatistics, Context, TokenLayout, Tokens
from tests.merging import reference


def assign(
    mode: str,
    keys: Tensor,
    r: int,
    *,
    index: list[int] | None = None,
    layout: TokenLayout | None = None,
    attention: AttentionStatistics | None = None,
    options: dict[str, Any] | None = None,
    **context: Any,
) -> Assignment:
    """Assigns tokens with keys (N, D), or (S, N, D) for S sets, of one clip."""
    keys = keys.view(1, -1, *keys.shape[-2:])
    layout = layout or TokenLayout(context.get("num_protected", 0), keys.shape[1], keys.shape[2])
    return MODES[mode].assign(
        Context(
            keys=keys,
            tokens=Tokens(index=torch.tensor([[index or list(range(keys.shape[2]))]])),
            layout=layout,
            r=r,
            attention=attention,
            options=MODES[mode].complete_options(options),
            **context,
        )
    )


def groups(assignment: Assignment) -> list[list[int]]:
    """Members of each slot, its owner first."""
    slot, owners = assignment.slot[0, 0].tolist(), assignment.owner[0, 0].tolist()
    if assignment.num_slots is not None:
        owners = owners[: int(assignment.num_slots[0, 0])]
    return [[owner, *(i for i, own in enumerate(slot) if own == n and i != owner)] for n, owner in enumerate(owners)]


def check_partition(assignment: Assignment, num_tokens: int, r: int, num_protected: int = 0) -> None:
    """Every token is in one slot, owners ascend, and protected tokens stay alone."""
    members = groups(assignment)
    assert len(members) == num_tokens - r
    assert sorted(chain.from_iterable(members)) == list(range(num_tokens))
    assert sorted(group[0] for group in members) == [group[0] for group in members]
    assert members[:num_protected] == [[i] for i in range(num_protected)]
    assert sorted([*assignment.moved[0, 0].tolist(), *(group[0] for group in members)]) == list(range(num_tokens))


def energies(keys: list[list[float]], margin: float) -> list[float]:
    def f(w: float) -> float:
        return w if w >= margin else math.exp(w - margin) - 1

    return [sum(f(reference.cosine(a, b)) for b in keys) / len(keys) for a in keys]


def merged_into_nearest(keys: list[list[float]], sources: list[int], others: list[int]) -> list[list[int]]:
    """Groups of all tokens after each source has merged into the most similar of some others."""
    members = {i: [i] for i in range(len(keys)) if i not in sources}
    for source in sorted(sources):
        best = max(sorted(others), key=lambda other: reference.cosine(keys[source], keys[other]))
        members[best].append(source)
    return [members[owner] for owner in sorted(members)]


def directions(*degrees: float) -> Tensor:
    """Keys (N, 2) that point in these directions."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def draw(num_tokens: int, seed: int, dim: int = 4) -> Tensor:
    return torch.randn(num_tokens, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
