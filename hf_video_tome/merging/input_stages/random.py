"""`random`: keeps random tubelets, the control that every input stage has to beat."""

from __future__ import annotations

import torch

from ..assignment import Assignment
from ..noise import uniform_noise
from .registry import InputContext, keep_changed, register_input_stage


@register_input_stage("random")
def random(context: InputContext) -> Assignment:
    """Keeps the first slot and random tubelets of all others, with their run lengths as sizes.

    It differs from `run_length` and `temporal_difference` in nothing but the scores, which are noise.
    """
    shape = (len(context.embeddings), context.layout.num_frames - 1, context.layout.num_patches)
    like = context.embeddings.new_empty(0, dtype=torch.float32)
    return keep_changed(context, uniform_noise(shape, like, context.generator))
