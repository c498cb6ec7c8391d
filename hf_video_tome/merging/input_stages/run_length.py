"""`run_length`: keeps tubelets that changed since the previous slot, last frame against first frame."""

from __future__ import annotations

from ..assignment import Assignment
from ..tubelet_changes import last_to_first_change
from .registry import InputContext, keep_changed, register_input_stage


@register_input_stage("run_length", takes_threshold=True)
def run_length(context: InputContext) -> Assignment:
    """Keeps tubelets whose last frame differs most from the first frame of the previous tubelet.

    From "Don't Look Twice: Faster Video Transformers with Run-Length Tokenization" (NeurIPS 2024),
    https://arxiv.org/abs/2411.05222: score, first slot and positions as described there. Adapted: a run length counts
    as the size of its token instead of being embedded; the number of tubelets is fixed unless a threshold is set; and
    batches are padded instead of packed.
    """
    return keep_changed(context, last_to_first_change(context.clips, context.tubelet_shape))
