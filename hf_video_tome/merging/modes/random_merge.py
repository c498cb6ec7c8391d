"""`random_merge`: the control for `merge`, with random pairs."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import random_matching
from .registry import ModeInputs, register_mode


@register_mode("random_merge")
def random_merge(inputs: ModeInputs) -> Assignment:
    """Merges r random pairs.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    matching = random_matching(inputs.metric, inputs.r, inputs.num_protected, inputs.shared, inputs.generator)
    return assign(matching, keep_sources=True)
