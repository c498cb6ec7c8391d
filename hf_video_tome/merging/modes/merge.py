"""`merge`: each source is averaged into the token that it resembles most."""

from __future__ import annotations

from ..assignment import Assignment, assign
from ..matching import cosine_matching
from .registry import ModeInputs, register_mode


@register_mode("merge")
def merge(inputs: ModeInputs) -> Assignment:
    """Merges the r most similar pairs; slots hold size-weighted means.

    From "Token Merging: Your ViT But Faster" (ICLR 2023).
    """
    matching = cosine_matching(inputs.metric, inputs.r, inputs.num_protected, inputs.shared)
    return assign(matching, keep_sources=True)
