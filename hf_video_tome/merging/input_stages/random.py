"""`random`: keeps random tubelets, the control that every input stage has to beat."""

from __future__ import annotations

import torch

from ..assignment import Assignment
from .registry import InputContext, keep_tokens, register_input_stage


@register_input_stage("random")
def random(context: InputContext) -> Assignment:
    """Keeps random tubelets of a clip, with size 1.

    Masked autoencoders do the same to their input during pre-training: "VideoMAE: Masked Autoencoders are
    Data-Efficient Learners for Self-Supervised Video Pre-Training" (NeurIPS 2022).
    """
    batch_size, num_tokens, _ = context.embeddings.shape
    device = context.embeddings.device
    if context.generator is None:  # exporters reject the argument, even if it is None
        noise = torch.rand(batch_size, num_tokens, device=device)
    else:
        noise = torch.rand(batch_size, num_tokens, device=device, generator=context.generator)
    return keep_tokens(noise.topk(context.keep, dim=-1).indices.sort(dim=-1).values, num_tokens)
