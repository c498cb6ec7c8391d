"""`drop`: the most redundant tokens are left out."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import cosine_matching
from .registry import ModeInputs, register_mode


@register_mode("drop")
def drop(inputs: ModeInputs) -> Assignment:
    """Discards the sources of the r most similar pairs; destinations stay as they are, sizes stay one.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    matching = cosine_matching(inputs.metric, inputs.r, inputs.num_protected, inputs.shared)
    return assign(matching, keep_sources=False)
