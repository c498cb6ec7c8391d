"""`random_drop`: the control for `drop`, with random tokens."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import random_matching
from .registry import ModeInputs, register_mode


@register_mode("random_drop")
def random_drop(inputs: ModeInputs) -> Assignment:
    """Discards r random tokens of those at even positions.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    matching = random_matching(inputs.metric, inputs.r, inputs.num_protected, inputs.shared, inputs.generator)
    return assign(matching, keep_sources=False)
