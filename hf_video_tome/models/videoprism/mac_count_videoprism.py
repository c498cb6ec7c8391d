"""Multiply-accumulates of VideoPrism."""

from __future__ import annotations

from math import prod

from ..mac_count import LayerMacCount, MacCount, attention_products, merging_layers, patch_embedding
from .configuration_videoprism import VideoPrismVisionConfig


def mac_count_videoprism(config: VideoPrismVisionConfig) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    width, frames = config.hidden_size, config.token_layout.num_frames
    layers, left = [], config.token_layout.num_tokens
    for layer in merging_layers(config, width, config.num_attention_heads, config.intermediate_size):
        left = layer.left
        places = layer.tokens // frames
        layers.append(_layer(config, f"spatial layer {layer.number}", frames, places, left, layer.matching))
    layers += [
        _layer(config, f"temporal layer {index}", left // frames, frames, left)
        for index in range(config.num_temporal_layers)
    ]
    # One query pools all tokens, in the width of the MLP.
    inner = config.intermediate_size
    pooler = 2 * width * inner + 2 * left * width * inner + attention_products(1, left, inner)
    return MacCount(
        embedding=patch_embedding(config, prod(config.tubelet_size), width),
        layers=tuple(layers),
        head=pooler + width * config.num_labels,
    )


def _layer(
    config: VideoPrismVisionConfig, name: str, sequences: int, length: int, left: int, matching: int = 0
) -> LayerMacCount:
    """Counts a layer with separate attention in several sequences: frames or patch positions."""
    width, tokens = config.hidden_size, sequences * length
    return LayerMacCount(
        name=name,
        tokens=tokens,
        projections=4 * tokens * width**2,
        attention=attention_products(length, length, width, batch=sequences),
        matching=matching,
        mlp=2 * left * width * config.intermediate_size,
    )
