"""Converts checkpoints of the original Motionformer implementation (facebookresearch/Motionformer)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..models.motionformer.configuration_motionformer import MotionformerConfig
from ..models.motionformer.plain import MotionformerForVideoClassification
from .state_dict import (
    ConversionError,
    ConvertedCheckpoint,
    NameTable,
    OriginalWeights,
    attention_heads,
    rename_weights,
    square_side,
)

_LAYER = "motionformer.layers.{layer}"
_TEMPORAL = f"{_LAYER}.attention.temporal_attention"

NAMES = NameTable(
    used={
        "cls_token": "motionformer.embeddings.cls_token",
        "pos_embed": "motionformer.embeddings.position_embeddings",
        "temp_embed": "motionformer.embeddings.time_embeddings",
        "patch_embed_3d.proj.{parameter}": "motionformer.embeddings.patch_embeddings.projection.{parameter}",
        "blocks.{layer}.norm1.{parameter}": f"{_LAYER}.layernorm_before.{{parameter}}",
        "blocks.{layer}.attn.qkv.{parameter}": f"{_LAYER}.attention.qkv.{{parameter}}",
        "blocks.{layer}.attn.proj_q.{parameter}": f"{_TEMPORAL}.q_proj.{{parameter}}",
        "blocks.{layer}.attn.proj_kv.weight": f"{_TEMPORAL}.key_weight",  # the first half, see below
        "blocks.{layer}.attn.proj.{parameter}": f"{_LAYER}.attention.o_proj.{{parameter}}",
        "blocks.{layer}.norm2.{parameter}": f"{_LAYER}.layernorm_after.{{parameter}}",
        "blocks.{layer}.mlp.fc1.{parameter}": f"{_LAYER}.mlp.fc1.{{parameter}}",
        "blocks.{layer}.mlp.fc2.{parameter}": f"{_LAYER}.mlp.fc2.{{parameter}}",
        "norm.{parameter}": "motionformer.layernorm.{parameter}",
        "pre_logits.fc.{parameter}": "pre_logits.dense.{parameter}",
        "head.{parameter}": "classifier.{parameter}",
    },
    unused={
        "patch_embed.proj.*": "patches of single frames, where the model has tubelets",
        "blocks.{layer}.attn.proj_kv.bias": "a softmax does not see it, and the values are the trajectory",
    },
)
"""Names of the original weights in this package."""

SIGNS = ("patch_embed_3d.*", "temp_embed", "blocks.{layer}.attn.proj_kv.*")
"""Names that only checkpoints of this architecture have."""


def convert_original_state_dict(
    state_dict: Mapping[str, Any], *, num_attention_heads: int | None = None
) -> ConvertedCheckpoint:
    """Converts weights of the original implementation.

    Args:
        state_dict: The weights by their original names, with one head.
        num_attention_heads: Number of attention heads; inferred from the width if None, see `attention_heads`.

    Returns:
        The converted checkpoint. As in all released models, temporal attention averages the trajectory itself, so
        only the keys of `proj_kv` are used, which has keys and values in one half each.

    Raises:
        ConversionError: If the weights are of another architecture, incomplete, or cannot be converted.
    """
    weights = OriginalWeights.from_state_dict(state_dict)
    width, channels, tubelet_size, patch_size, patch_width = weights.shape(
        "patch_embed_3d.proj.weight", "width", "channels", "frames", "height", "width"
    )
    if patch_size != patch_width:
        raise ConversionError(f"patches must be square, got {patch_size} x {patch_width} pixels")
    num_places = weights.shape("pos_embed", "1", "CLS and places", "width")[1] - 1
    config_class: Any = MotionformerConfig
    config = config_class(
        image_size=square_side(num_places, "pos_embed") * patch_size,
        num_frames=weights.shape("temp_embed", "1", "tubelets", "width")[1] * tubelet_size,
        tubelet_size=tubelet_size,
        patch_size=patch_size,
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=weights.num_layers,
        num_attention_heads=attention_heads(width, num_attention_heads),
        intermediate_size=weights.shape("blocks.0.mlp.fc1.weight", "MLP width", "width")[0],
        qkv_bias=weights.has("blocks.{layer}.attn.qkv.bias"),
        use_pre_logits=weights.has("pre_logits.fc.weight"),
        num_labels=weights.shape("head.weight", "labels", "width")[0],
    )
    tensors = {
        name: tensor.chunk(2)[0] if name.endswith(".attn.proj_kv.weight") else tensor
        for name, tensor in weights.tensors.items()
    }
    converted = rename_weights(replace(weights, tensors=tensors), NAMES, config, MotionformerForVideoClassification)
    return replace(converted, assumed={"use_original_trajectory_values": "the released checkpoints, which all do"})
