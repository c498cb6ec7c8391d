"""Modes and an input stage that do what no method of the package does yet: they prove that the doors are open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hf_video_tome.merging import (
    INPUT_STAGES,
    MODES,
    Assignment,
    Context,
    InputContext,
    assign_pairs,
    bipartite_soft_matching,
    register_input_stage,
    register_mode,
)

ADAPTIVE_MODES = ("above", "drop_above")


@contextmanager
def toy_methods() -> Iterator[None]:
    """Registers them for as long as the block lasts."""
    modes, stages = dict(MODES), dict(INPUT_STAGES)
    register_mode("above", needs_threshold=True, adaptive=True)(above)
    register_mode("drop_above", needs_threshold=True, adaptive=True)(drop_above)
    register_mode("smallest", reads=("keys", "hidden_states", "index"))(smallest)
    register_input_stage("long")(long)
    try:
        yield
    finally:
        for registry, before in ((MODES, modes), (INPUT_STAGES, stages)):
            registry.clear()
            registry.update(before)


def above(context: Context) -> Assignment:
    """Merges all pairs with a similarity above the threshold, r at most."""
    return assign_pairs(context.cosine_matching(context.threshold))


def drop_above(context: Context) -> Assignment:
    """Drops the sources of these pairs."""
    return assign_pairs(context.cosine_matching(context.threshold), content="owner", sizes="owner")


def smallest(context: Context) -> Assignment:
    """Drops tokens at even positions with the smallest states."""
    assert context.hidden_states is not None
    assert context.tokens.index is not None
    norm = context.hidden_states.float().norm(dim=-1)
    scores = (-norm[..., ::2]).unsqueeze(-1).expand(*norm[..., ::2].shape, norm.shape[-1] // 2)
    if context.shared:
        scores = scores.mean(dim=1, keepdim=True)
    return assign_pairs(
        bipartite_soft_matching(scores, context.r, context.num_protected, length=context.tokens.length),
        content="owner",
        sizes="owner",
    )


def long(context: InputContext) -> Assignment:
    """Keeps the tubelets whose embeddings are longer than the mean of their clip, and `keep` at most."""
    norm = context.embeddings.float().norm(dim=-1)
    order = norm.argsort(dim=-1, descending=True, stable=True)
    count = (norm > norm.mean(dim=-1, keepdim=True)).sum(dim=-1).clamp(1, context.keep)
    num_tokens = norm.shape[1]
    rank = order.argsort(dim=-1)
    is_kept = rank < count.unsqueeze(-1)
    owner = (~is_kept).to(torch.int8).argsort(dim=-1, stable=True)
    slots = torch.arange(num_tokens).expand_as(owner)
    slot = torch.full_like(owner, -1).scatter(-1, owner, slots).where(is_kept, -1)
    return Assignment(
        slot[:, None], owner[:, None], owner[:, None, :0], content="owner", sizes="owner", num_slots=count[:, None]
    )
