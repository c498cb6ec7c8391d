"""`random_merge`: merges random pairs, the control for `merge`."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("random_merge", reads=("keys", "segments"), handles_padding=True)
def random_merge(context: Context) -> Assignment:
    """Merges r random pairs.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    return assign_pairs(context.random_matching())
