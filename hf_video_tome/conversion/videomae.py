"""Converts checkpoints of the original VideoMAE implementation (MCG-NJU/VideoMAE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers.models.videomae import modeling_videomae as stock

from ..models.videomae.configuration_videomae import VideoMAEConfig
from .state_dict import (
    ConversionError,
    ConvertedCheckpoint,
    NameTable,
    OriginalWeights,
    attention_heads,
    positive_int,
    rename_weights,
)

_LAYER = "videomae.encoder.layer.{layer}"

NAMES = NameTable(
    used={
        "patch_embed.proj.{parameter}": "videomae.embeddings.patch_embeddings.projection.{parameter}",
        "blocks.{layer}.norm1.{parameter}": f"{_LAYER}.layernorm_before.{{parameter}}",
        "blocks.{layer}.attn.qkv.weight": (
            f"{_LAYER}.attention.attention.query.weight",
            f"{_LAYER}.attention.attention.key.weight",
            f"{_LAYER}.attention.attention.value.weight",
        ),
        "blocks.{layer}.attn.q_bias": f"{_LAYER}.attention.attention.query.bias",
        "blocks.{layer}.attn.v_bias": f"{_LAYER}.attention.attention.value.bias",
        "blocks.{layer}.attn.proj.{parameter}": f"{_LAYER}.attention.output.dense.{{parameter}}",
        "blocks.{layer}.norm2.{parameter}": f"{_LAYER}.layernorm_after.{{parameter}}",
        "blocks.{layer}.mlp.fc1.{parameter}": f"{_LAYER}.intermediate.dense.{{parameter}}",
        "blocks.{layer}.mlp.fc2.{parameter}": f"{_LAYER}.output.dense.{{parameter}}",
        "norm.{parameter}": "videomae.layernorm.{parameter}",
        "fc_norm.{parameter}": "fc_norm.{parameter}",
        "head.{parameter}": "classifier.{parameter}",
    },
    unused={
        "pos_embed": "fixed sine and cosine positions, which are computed",
        "decoder.*": "decoder of pre-training",
        "encoder_to_decoder.*": "decoder of pre-training",
        "mask_token": "decoder of pre-training",
    },
    refused={
        "blocks.{layer}.gamma_*": "layer scale, which VideoMAE in transformers does not have",
        "blocks.{layer}.attn.qkv.bias": "a bias of the keys, which VideoMAE does not have",
    },
)
"""Names of the original weights in transformers."""

SIGNS = ("blocks.{layer}.attn.q_bias", "encoder_to_decoder.*")
"""Names that only checkpoints of this architecture have."""


def convert_original_state_dict(
    state_dict: Mapping[str, Any],
    *,
    num_frames: int | None = None,
    image_size: int | None = None,
    num_attention_heads: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ConvertedCheckpoint:
    """Converts weights of the original implementation.

    Args:
        state_dict: The weights by their original names, with one head.
        num_frames: Number of frames of a clip; taken from `settings` if None, else 16.
        image_size: Side length of a frame in pixels; taken from `settings` if None, else 224.
        num_attention_heads: Number of attention heads; inferred from the width if None, see `attention_heads`.
        settings: Settings of the training.

    Returns:
        The converted checkpoint.

    Raises:
        ConversionError: If the weights are of another architecture, incomplete, or cannot be converted.
    """
    weights = OriginalWeights.from_state_dict(state_dict)
    width, channels, tubelet_size, *patch_size = weights.shape(
        "patch_embed.proj.weight", "width", "channels", "frames", "height", "width"
    )
    settings = {"num_segments": 1, **(settings or {})}
    assumed: dict[str, str] = {}

    def choose(name: str, given: int | None, trained: int | None, usual: int, divisor: int) -> int:
        value = given or trained or usual
        if given is None:
            assumed[name] = "the usual value" if trained is None else "the settings of the training in the file"
        if value % divisor:
            raise ConversionError(f"{name} must be a multiple of {divisor}, the size of a patch, got {value}")
        return value

    trained_frames = positive_int(settings, "num_frames", "num_segments")
    config_class: Any = VideoMAEConfig
    config = config_class(
        num_frames=choose("num_frames", num_frames, trained_frames, 16, tubelet_size),
        image_size=choose("image_size", image_size, positive_int(settings, "input_size"), 224, max(patch_size)),
        patch_size=patch_size[0] if patch_size[0] == patch_size[1] else patch_size,
        num_channels=channels,
        tubelet_size=tubelet_size,
        hidden_size=width,
        num_hidden_layers=weights.num_layers,
        num_attention_heads=attention_heads(width, num_attention_heads),
        intermediate_size=weights.shape("blocks.0.mlp.fc1.weight", "MLP width", "width")[0],
        layer_norm_eps=1e-6,
        qv_bias=weights.has("blocks.{layer}.attn.q_bias"),
        use_mean_pooling=weights.has("fc_norm.{parameter}"),
        num_labels=weights.shape("head.weight", "labels", "width")[0],
    )
    _check_positions(weights, config)
    converted = rename_weights(weights, NAMES, config, stock.VideoMAEForVideoClassification)
    return replace(converted, assumed=assumed)


def _check_positions(weights: OriginalWeights, config: VideoMAEConfig) -> None:
    """Checks that position embeddings were not learned, because VideoMAE in transformers computes its own."""
    if "pos_embed" not in weights.tensors:
        return
    stored, shape = weights.tensors["pos_embed"], (1, config.token_layout.num_tokens, config.hidden_size)
    if stored.shape != shape:
        raise ConversionError(
            f"pos_embed must have the shape {shape} for clips of {config.num_frames} x {config.image_size} x "
            f"{config.image_size}, got {tuple(stored.shape)}: give the num_frames and the image_size of the "
            "training"
        )
    expected = stock.get_sinusoid_encoding_table(*shape[1:])
    if not torch.allclose(stored.to(expected), expected, atol=1e-3):  # larger than rounding in half precision
        raise ConversionError("pos_embed was learned, while VideoMAE in transformers has fixed positions only")
