"""`random_drop`: discards random tokens, the control for `drop`."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("random_drop", reads=("keys", "segments"), handles_padding=True, averages=False)
def random_drop(context: Context) -> Assignment:
    """Discards r random tokens at even positions.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    return assign_pairs(context.random_matching(), content="owner", sizes="owner")
