"""`vid_tldr`: averages similar pairs, with small weights for tokens that attend everywhere."""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode

MIN_SALIENCY = 1e-6
"""Weight of background tokens; above zero, so that a slot of background tokens is their mean."""


@register_mode("vid_tldr", reads=("keys", "attention"), scopes=("clip",))
def vid_tldr(context: Context) -> Assignment:
    """Merges the r most similar pairs into means weighted by saliency times size.

    The sharpness of a token is the negative entropy of its attention, averaged over heads: low for background tokens,
    which attend everywhere. Its saliency rises from 0 at the mean sharpness of the clip to 1 at the highest, and is 0
    below the mean. The paper merges in the first layers only, for example r = [200, 200, 200, 100] in UMT-B.

    From "vid-TLDR: Training Free Token Merging for Light-weight Video Transformer" (CVPR 2024),
    https://arxiv.org/abs/2403.13347, as described there: not compared with its authors' code. Adapted: saliency weighs
    the mean of one layer, and sizes add up as in "merge"; the paper's mass also carries the saliency on. Its scaling
    of the sharpness to [0, 1] changes no saliency and is left out.
    """
    assert context.attention is not None  # it reads it
    sharpness = context.attention.negative_entropy()[:, None, context.num_protected :]
    mean, highest = sharpness.mean(dim=-1, keepdim=True), sharpness.amax(dim=-1, keepdim=True)
    saliency = (sharpness - mean) / (highest - mean).clamp_min(torch.finfo(sharpness.dtype).tiny)
    importance = pad(saliency.clamp_min(MIN_SALIENCY), (context.num_protected, 0), value=1.0)
    return assign_pairs(context.cosine_matching())._replace(importance=importance)
