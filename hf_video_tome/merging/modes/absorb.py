"""`absorb`: the most dispensable tokens merge into the most similar of all others, at one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..assignment import Assignment, assign_heirs
from ..checks import one_of
from ..energy import energy, margin_of_layer
from ..noise import uniform_noise
from ..schedule import ALMOST_ALL
from ..similarity import descending_order, nearest, unit_vectors
from ..tokens import gather_tokens
from .registry import Context, ModeOption, all_but_one, register_mode

SCORES = ("energy", "norm", "attention", "random")


def _reads(options: Mapping[str, Any]) -> tuple[str, ...]:
    further = {"norm": "hidden_states", "attention": "attention"}.get(options["score"])
    return ("keys",) if further is None else ("keys", further)


@register_mode(
    "absorb",
    reads=_reads,
    removals=all_but_one,
    max_share=ALMOST_ALL,
    single_layer=True,
    options={
        "score": ModeOption(
            "energy",
            one_of("score", SCORES),
            "Which tokens merge into others: those in the largest groups of similar keys (energy), with the smallest "
            "hidden states (norm), that receive the least attention (attention), or any (random, the control).",
            choices=SCORES,
        )
    },
)
def absorb(context: Context) -> Assignment:
    """Merges the r tokens with the lowest score into the most similar of all others; slots hold size-weighted means.

    No token that merges into another receives any, and all others may. One layer can remove any number of tokens.

    A free form of "Accelerating Transformers with Spectrum-Preserving Token Merging" (NeurIPS 2024),
    https://arxiv.org/abs/2405.16148, our own: tokens of low energy, which the paper protects by leaving them out,
    receive others here; scores other than the energy are not from the paper.
    """
    first = context.num_protected
    vectors = unit_vectors(context.keys[..., first:, :], context.shared)
    num_tokens = vectors.shape[2]
    order = descending_order(-_score(context, vectors))
    source, others = order[..., : context.r], order[..., context.r :].sort(dim=-1).values
    _, best = nearest(gather_tokens(vectors, source), gather_tokens(vectors, others))
    position = torch.arange(num_tokens, device=vectors.device).expand_as(order)
    heir = position.scatter(-1, source, others.gather(-1, best))
    return assign_heirs(heir, num_tokens - context.r).behind(first)


def _score(context: Context, vectors: Tensor) -> Tensor:
    """Returns the score of each token, protected ones apart: (B, S, N), or (B, 1, N) if the sets share one."""
    first, score = context.num_protected, context.options["score"]
    if score == "energy":
        return -energy(vectors, margin_of_layer(context.layer, context.num_layers))
    if score == "random":
        return uniform_noise(tuple(vectors.shape[:-1]), vectors, context.generator)
    if score == "norm":
        assert context.hidden_states is not None  # read with this option
        states = context.hidden_states
        value = states.to(torch.promote_types(states.dtype, torch.float32)).norm(dim=-1)
    else:
        assert context.attention is not None  # read with this option
        value = context.attention.received().unsqueeze(1)
    return (value.mean(dim=1, keepdim=True) if context.shared else value)[..., first:]
