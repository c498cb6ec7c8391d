"""`runs`: tokens that stay similar from frame to frame become one, at one layer."""

from __future__ import annotations

from collections.abc import Sequence

from ..assignment import Assignment, assign_heirs
from ..checks import at_least
from ..schedule import ALMOST_ALL
from ..similarity import unit_vectors
from ..time_neighbours import earlier_neighbours, join_best
from .registry import Context, ModeOption, SetShape, all_but, register_mode


def all_but_one_frame(requested: Sequence[int], shape: SetShape) -> list[int]:
    """Returns the number of tokens that each layer removes if as many are left as a frame has: see `all_but`."""
    return all_but(requested, shape.num_tokens, shape.num_protected + shape.layout.num_patches)


@register_mode(
    "runs",
    reads=("keys", "index"),
    removals=all_but_one_frame,
    max_share=ALMOST_ALL,
    single_layer=True,
    scopes=("clip",),
    options={
        "window": ModeOption(
            0,
            at_least("window", 0),
            "Rows and columns by which the content of a patch may move from frame to frame (an int >= 0), for moving "
            "cameras. 0 compares tokens at the same patch position only.",
            choices=(0, 1),
        )
    },
)
def runs(context: Context) -> Assignment:
    """Merges the r tokens that are most similar to their neighbour in the frame before into its run.

    The first token of a run owns its slot, which holds the size-weighted mean. Where earlier layers or an input stage
    removed tokens, the latest token before stands for them.

    Our form of the temporal merging of "HoliTom: Holistic Token Merging for Fast Video Large Language Models"
    (NeurIPS 2025), https://arxiv.org/abs/2505.21334: a fixed number of tokens, and runs for each patch position by
    itself rather than for whole segments (see `static_runs`). The window is from "COVE: Unleashing the Diffusion
    Feature Correspondence for Consistent Video Editing" (NeurIPS 2024), https://arxiv.org/abs/2406.08850, adapted: it
    chains tokens to the best match in a window of the frame before, and never copies them back.
    """
    first = context.num_protected
    assert context.tokens.index is not None  # read
    index = context.tokens.index[..., first:]
    vectors = unit_vectors(context.keys[..., first:, :])
    neighbour, similarity = earlier_neighbours(vectors, index, context.layout, context.options["window"])
    heir = join_best(neighbour, similarity, context.r, context.layout.num_frames)
    return assign_heirs(heir, index.shape[-1] - context.r).behind(first)
