"""`pitome`: merges tokens of large groups of similar ones; keeps those that are unlike others."""

from __future__ import annotations

import torch

from ..assignment import Assignment, assign_heirs
from ..energy import energy, margin_of_layer
from ..similarity import descending_order, nearest, unit_vectors
from ..tokens import gather_tokens
from .registry import Context, register_mode


@register_mode("pitome")
def pitome(context: Context) -> Assignment:
    """Merges every other one of the 2r tokens with the highest energy into the most similar of the rest of them.

    The energy of a token is high if it belongs to a large group of similar tokens. All other tokens are kept. Slots
    hold size-weighted means.

    From "Accelerating Transformers with Spectrum-Preserving Token Merging" (NeurIPS 2024),
    https://arxiv.org/abs/2405.16148, as described there: energy, margin, ranks and matching; not compared with its
    authors' code. Tokens are compared by the keys of the layer, aggregated over heads, and go on in their order.
    """
    r, first = context.r, context.num_protected
    vectors = unit_vectors(context.keys[..., first:, :], context.shared)
    score = energy(vectors, margin_of_layer(context.layer, context.num_layers))
    ranked = descending_order(score)[..., : 2 * r]
    source, candidate = ranked[..., ::2], ranked[..., 1::2].sort(dim=-1).values
    _, best = nearest(gather_tokens(vectors, source), gather_tokens(vectors, candidate))
    position = torch.arange(vectors.shape[2], device=vectors.device).expand_as(score)
    heir = position.scatter(-1, source, candidate.gather(-1, best))
    return assign_heirs(heir, vectors.shape[2] - r).behind(first)
