"""`static_runs`: tokens that stay similar in a whole segment of the clip become one; adaptive."""

from __future__ import annotations

import torch
from torch import Tensor

from ..assignment import Assignment, assign_heirs
from ..schedule import ALMOST_ALL
from ..similarity import unit_vectors
from ..static_segments import static_tokens
from ..threshold import missing_threshold
from ..time_neighbours import earlier_neighbours, join_best
from .registry import Context, register_mode
from .runs import all_but_one_frame


@register_mode(
    "static_runs",
    reads=("keys", "index"),
    removals=all_but_one_frame,
    max_share=ALMOST_ALL,
    single_layer=True,
    scopes=("clip",),
    needs_threshold=True,
    adaptive=True,
)
def static_runs(context: Context) -> Assignment:
    """Merges tokens over time at patch positions that are static in a whole segment of the clip.

    A position is static if the similarity from frame to frame exceeds the threshold throughout the segment. Segments
    are chosen for each clip, by dynamic programming, to save as many tokens as possible; slots hold size-weighted
    means. If more than r tokens could merge, the r that are most similar to the token before do.

    From "HoliTom: Holistic Token Merging for Fast Video Large Language Models" (NeurIPS 2025),
    https://arxiv.org/abs/2505.21334, its temporal merging as described there, with a threshold of 0.8; not compared
    with its authors' code. Adapted: keys of a layer inside the encoder, a limit r, and tokens missing from the grid.
    """
    if context.threshold is None:
        raise missing_threshold("static_runs")
    first, layout = context.num_protected, context.layout
    assert context.tokens.index is not None  # read
    index = context.tokens.index[..., first:]
    neighbour, similarity = earlier_neighbours(unit_vectors(context.keys[..., first:, :]), index, layout)
    if index.device.type != "meta":  # no values, for counting operations: there are none here
        similarity = similarity.where(_merges(index, similarity > context.threshold, context), -torch.inf)
    return assign_heirs(join_best(neighbour, similarity, context.r, layout.num_frames)).behind(first)


def _merges(index: Tensor, is_similar: Tensor, context: Context) -> Tensor:
    """Returns which tokens merge into an earlier one: (B, 1, N) bool."""
    frames, patches = context.layout.num_frames, context.layout.num_patches
    empty = torch.zeros((index.shape[0], frames * patches), dtype=torch.bool, device=index.device)
    tokens = index.squeeze(1)
    is_present, similar = (
        empty.scatter(-1, tokens, mask).view(-1, frames, patches)
        for mask in (torch.ones_like(tokens, dtype=torch.bool), is_similar.squeeze(1))
    )
    merges = static_tokens(is_present, similar).to(index.device)
    return merges.flatten(1).gather(-1, tokens).unsqueeze(1)
