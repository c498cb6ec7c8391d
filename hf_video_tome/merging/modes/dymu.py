"""`dymu`: merges every pair that is more similar than the threshold of its layer."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("dymu", reads=("keys", "segments"), needs_thresholds=True, adaptive=True, handles_padding=True)
def dymu(context: Context) -> Assignment:
    """Merges every pair that is more similar than the threshold of its layer, r at most; slots hold weighted means.

    The number of merged tokens depends on the clip; thresholds are calibrated on unlabelled clips. From "DyMU: Dynamic
    Merging and Virtual Unmerging for Efficient VLMs" (NeurIPS 2025), https://arxiv.org/abs/2504.17040: its merging in
    the encoder, as described there, but with cosine similarities of the keys in place of inner products.
    """
    return assign_pairs(context.cosine_matching(context.threshold))
