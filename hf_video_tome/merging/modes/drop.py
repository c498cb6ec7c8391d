"""`drop`: the most redundant tokens are left out."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import bipartite_soft_matching, cosine_scores
from .registry import ModeInputs, register_mode


@register_mode("drop")
def drop(inputs: ModeInputs) -> Assignment:
    """Discards the sources of the r most similar pairs; destinations stay as they are, sizes stay one.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    scores = cosine_scores(inputs.metric, inputs.shared)
    return assign(bipartite_soft_matching(scores, inputs.r, inputs.num_protected), keep_sources=False)
