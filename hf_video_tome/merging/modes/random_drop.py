"""`random_drop`: the control for `drop`, with random tokens."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import bipartite_soft_matching, random_scores
from .registry import ModeInputs, register_mode


@register_mode("random_drop")
def random_drop(inputs: ModeInputs) -> Assignment:
    """Discards r random tokens of those at even positions.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    scores = random_scores(inputs.metric, inputs.shared, inputs.generator)
    return assign(bipartite_soft_matching(scores, inputs.r, inputs.num_protected), keep_sources=False)
