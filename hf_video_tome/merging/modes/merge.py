"""`merge`: averages each source into the most similar token."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("merge", reads=("keys", "segments"), handles_padding=True)
def merge(context: Context) -> Assignment:
    """Merges the r most similar pairs; slots hold size-weighted means.

    From "Token Merging: Your ViT But Faster" (ICLR 2023).
    """
    return assign_pairs(context.cosine_matching())
