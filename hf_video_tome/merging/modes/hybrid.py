"""`hybrid`: averages similar pairs, and discards the destination of dissimilar ones."""

from __future__ import annotations

import torch

from ..assignment import Assignment, assign_pairs
from ..threshold import missing_threshold
from .registry import Context, register_mode


@register_mode("hybrid", reads=("keys", "segments"), handles_padding=True, needs_threshold=True)
def hybrid(context: Context) -> Assignment:
    """Merges the r most similar pairs, but first discards destinations of pairs with a score below the threshold.

    The sources of such a destination replace it. The paper's thresholds are 0.8 for VideoMAE and 0.4 for ViViT.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    if context.threshold is None:
        raise missing_threshold("hybrid")
    matching = context.cosine_matching()
    weak = matching.score < context.threshold
    if matching.is_pair is not None:
        weak = weak & matching.is_pair
    weak_pairs = torch.zeros((*weak.shape[:-1], context.keys.shape[2]), dtype=torch.int64, device=weak.device)
    weak_pairs = weak_pairs.scatter_add(-1, matching.destination, weak.to(torch.int64))
    return assign_pairs(matching, discarded=weak_pairs > 0)
