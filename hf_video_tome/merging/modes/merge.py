"""`merge`: each source is averaged into the token that it resembles most."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import bipartite_soft_matching, cosine_scores
from .registry import ModeInputs, register_mode


@register_mode("merge")
def merge(inputs: ModeInputs) -> Assignment:
    """Merges the r most similar pairs; slots hold size-weighted means.

    From "Token Merging: Your ViT But Faster" (ICLR 2023).
    """
    scores = cosine_scores(inputs.metric, inputs.shared)
    return assign(bipartite_soft_matching(scores, inputs.r, inputs.num_protected), keep_sources=True)
