"""`frame_merge`: merges the most similar neighbouring frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ..assignment import Assignment, assign_neighbours
from ..checks import one_of
from ..schedule import ALMOST_ALL
from .registry import Context, ModeOption, all_but_one, register_mode

WEIGHTS = ("size", "similarity")
MIN_SIMILARITY = 1e-6
"""Smallest weight of a frame."""


@register_mode(
    "frame_merge",
    removals=all_but_one,
    max_share=ALMOST_ALL,
    single_layer=True,
    scopes=("time",),
    options={
        "weights": ModeOption(
            "size",
            one_of("weights", WEIGHTS),
            "Weights of the frames that are merged: the number of frames that each stands for (size), or that times "
            "the mean cosine similarity to the next frame (similarity).",
            choices=WEIGHTS,
        )
    },
)
def frame_merge(context: Context) -> Assignment:
    """Merges whole frames: r times, the two most similar neighbours become one.

    Frames (or slots of a tubelet) are compared by the mean key over their patch positions; the mean of two frames is
    weighted by their sizes. r counts frames.

    From "EarlyTom" (CVPR 2026), https://arxiv.org/abs/2605.30010, as described in secondary texts. Adapted: a fixed
    number of frames in place of thresholds and segments, and one layer that sees the whole clip in place of an encoder
    of single frames. With the option weights="similarity", frames weigh by their similarity to the next one as
    described there; the last frame has the weight of the one before it.
    """
    num_frames = context.keys.shape[2]
    size = context.tokens.size
    key = context.keys.mean(dim=1)
    weight = key.new_ones(key.shape[:2]) if size is None else size[:, 0].to(key.dtype)
    slot = torch.arange(num_frames, device=key.device).expand(key.shape[0], -1)
    for _ in range(context.r):
        key, weight, slot = _merge_most_similar(key, weight, slot)
    assignment = assign_neighbours(slot.unsqueeze(1), num_frames - context.r)
    if context.options["weights"] == "size":
        return assignment
    similarity = cosine_similarity(context.keys[:, :, :-1], context.keys[:, :, 1:], dim=-1).mean(dim=1, keepdim=True)
    importance = torch.cat((similarity, similarity[..., -1:]), dim=-1).clamp_min(MIN_SIMILARITY)
    return assignment._replace(importance=importance)


def _merge_most_similar(key: Tensor, weight: Tensor, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Merges the two most similar neighbours of M frames, the first such pair of several.

    Args:
        key: (B, M, D) float.
        weight: (B, M) float, weight of each frame in a mean.
        slot: (B, N) int64, the frame that each original frame belongs to.

    Returns:
        The same for the M - 1 frames that are left.
    """
    similarity = cosine_similarity(key[:, :-1], key[:, 1:], dim=-1)
    first = similarity.argmax(dim=-1, keepdim=True)
    frame = torch.arange(similarity.shape[1], device=key.device)
    left = frame + (frame > first).to(frame.dtype)  # all frames but the second of the pair
    partner = weight[:, 1:] * (frame == first)
    total = weight.gather(1, left) + partner
    share = (partner / total).unsqueeze(-1)
    own = key.gather(1, left.unsqueeze(-1).expand(-1, -1, key.shape[-1]))
    key = own + share * (key[:, 1:] - own)
    return key, total, slot - (slot > first).to(slot.dtype)
