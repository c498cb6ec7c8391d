"""`time_pairs`: averages two consecutive frames, whatever they show."""

from __future__ import annotations

import torch

from ..assignment import Assignment, assign_neighbours
from .registry import Context, register_mode


@register_mode("time_pairs", reads=(), single_layer=True, scopes=("time",))
def time_pairs(context: Context) -> Assignment:
    """Merges pairs of consecutive frames: the tokens of both at a patch position become their mean.

    Pairs are frames 0 and 1, 2 and 3, and so on; r of them, evenly spread over time, merge. r counts frames, at most
    half of them; r = 0.5 merges all pairs. A control without any decision.

    From "On-device Sora: Enabling Training-Free Diffusion-based Text-to-Video Generation for Mobile Devices",
    https://arxiv.org/abs/2502.04363 (temporal dimension token merging), as described in its abstract and figures.
    Adapted: tokens stay merged; the paper copies the output of the attention back to both.
    """
    batch, _, num_frames, _ = context.keys.shape
    num_pairs = num_frames // 2
    seconds = {2 * ((2 * i + 1) * num_pairs // (2 * context.r)) + 1 for i in range(context.r)}
    slots = [frame - sum(second <= frame for second in seconds) for frame in range(num_frames)]
    slot = torch.tensor(slots, device=context.keys.device)
    return assign_neighbours(slot.expand(batch, 1, -1), num_frames - context.r)
