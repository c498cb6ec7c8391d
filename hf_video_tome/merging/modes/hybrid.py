"""`hybrid`: pairs that are alike are averaged, pairs that are not lose their destination."""

from __future__ import annotations

import torch

from ..assignment import Assignment, assign
from ..matching import cosine_matching
from .registry import ModeInputs, register_mode


@register_mode("hybrid", needs_threshold=True)
def hybrid(inputs: ModeInputs) -> Assignment:
    """Merges, but first discards each destination that any of its pairs reaches with a score below the threshold.

    The sources of such a destination take its place. The paper's thresholds: 0.8 for VideoMAE, 0.4 for ViViT.

    From "Video, How Do Your Tokens Merge?" (CVPRW 2025).
    """
    if inputs.threshold is None:
        raise ValueError("threshold must be a cosine similarity in [-1, 1] for the mode 'hybrid', got None")
    matching = cosine_matching(inputs.metric, inputs.r, inputs.num_protected, inputs.shared)
    weak = (matching.score < inputs.threshold).to(torch.int64)
    num_tokens = inputs.metric.shape[2]
    weak_pairs = weak.new_zeros((*weak.shape[:-1], num_tokens)).scatter_add(-1, matching.destination, weak)
    return assign(matching, keep_sources=True, discarded=weak_pairs > 0)
