"""`drop`: discards the most redundant tokens."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("drop", reads=("keys", "segments"), handles_padding=True, averages=False)
def drop(context: Context) -> Assignment:
    """Discards the sources of the r most similar pairs; destinations and sizes are unchanged.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    return assign_pairs(context.cosine_matching(), content="owner", sizes="owner")
