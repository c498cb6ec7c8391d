"""Converts checkpoints of the original TimeSformer implementation (facebookresearch/TimeSformer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.models.timesformer import modeling_timesformer as stock

from ..models.timesformer.configuration_timesformer import TimesformerConfig
from .state_dict import (
    ConversionError,
    ConvertedCheckpoint,
    NameTable,
    OriginalWeights,
    attention_heads,
    rename_weights,
    square_side,
)

_LAYER = "timesformer.encoder.layer.{layer}"

NAMES = NameTable(
    used={
        "cls_token": "timesformer.embeddings.cls_token",
        "pos_embed": "timesformer.embeddings.position_embeddings",
        "time_embed": "timesformer.embeddings.time_embeddings",
        "patch_embed.proj.{parameter}": "timesformer.embeddings.patch_embeddings.projection.{parameter}",
        "blocks.{layer}.temporal_norm1.{parameter}": f"{_LAYER}.temporal_layernorm.{{parameter}}",
        "blocks.{layer}.temporal_attn.qkv.{parameter}": f"{_LAYER}.temporal_attention.attention.qkv.{{parameter}}",
        "blocks.{layer}.temporal_attn.proj.{parameter}": f"{_LAYER}.temporal_attention.output.dense.{{parameter}}",
        "blocks.{layer}.temporal_fc.{parameter}": f"{_LAYER}.temporal_dense.{{parameter}}",
        "blocks.{layer}.norm1.{parameter}": f"{_LAYER}.layernorm_before.{{parameter}}",
        "blocks.{layer}.attn.qkv.{parameter}": f"{_LAYER}.attention.attention.qkv.{{parameter}}",
        "blocks.{layer}.attn.proj.{parameter}": f"{_LAYER}.attention.output.dense.{{parameter}}",
        "blocks.{layer}.norm2.{parameter}": f"{_LAYER}.layernorm_after.{{parameter}}",
        "blocks.{layer}.mlp.fc1.{parameter}": f"{_LAYER}.intermediate.dense.{{parameter}}",
        "blocks.{layer}.mlp.fc2.{parameter}": f"{_LAYER}.output.dense.{{parameter}}",
        "norm.{parameter}": "timesformer.layernorm.{parameter}",
        "head.{parameter}": "classifier.{parameter}",
    },
)
"""Names of the original weights in transformers."""

SIGNS = ("time_embed", "blocks.{layer}.temporal_attn.*")
"""Names that only checkpoints of this architecture have."""


def convert_original_state_dict(
    state_dict: Mapping[str, Any], *, num_attention_heads: int | None = None
) -> ConvertedCheckpoint:
    """Converts weights of the original implementation.

    Args:
        state_dict: The weights by their original names, with one head.
        num_attention_heads: Number of attention heads; inferred from the width if None, see `attention_heads`.

    Returns:
        The converted checkpoint.

    Raises:
        ConversionError: If the weights are of another architecture, incomplete, or cannot be converted.
    """
    weights = OriginalWeights.from_state_dict(state_dict)
    width, channels, patch_size, patch_width = weights.shape(
        "patch_embed.proj.weight", "width", "channels", "height", "width"
    )
    if patch_size != patch_width:
        raise ConversionError(f"patches must be square, got {patch_size} x {patch_width} pixels")
    divided = weights.has("blocks.{layer}.temporal_attn.*")
    if not divided and "time_embed" not in weights.tensors:
        raise ConversionError(
            "the checkpoint has no time_embed: with attention in space only, the original averages over the frames, "
            "which TimeSformer in transformers does not"
        )
    num_places = weights.shape("pos_embed", "1", "CLS and places", "width")[1] - 1
    config_class: Any = TimesformerConfig
    config = config_class(
        image_size=square_side(num_places, "pos_embed") * patch_size,
        patch_size=patch_size,
        num_channels=channels,
        num_frames=weights.shape("time_embed", "1", "frames", "width")[1],
        hidden_size=width,
        num_hidden_layers=weights.num_layers,
        num_attention_heads=attention_heads(width, num_attention_heads),
        intermediate_size=weights.shape("blocks.0.mlp.fc1.weight", "MLP width", "width")[0],
        layer_norm_eps=1e-6,
        qkv_bias=weights.has("blocks.{layer}.attn.qkv.bias"),
        attention_type="divided_space_time" if divided else "joint_space_time",
        num_labels=weights.shape("head.weight", "labels", "width")[0],
    )
    return rename_weights(weights, NAMES, config, stock.TimesformerForVideoClassification)
