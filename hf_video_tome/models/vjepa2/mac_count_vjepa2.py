"""Multiply-accumulates of V-JEPA 2 with its attentive pooler; classification does not use the predictor."""

from __future__ import annotations

from ...configuration import token_counts_of_config
from ..mac_count import MacCount, attention_products, joint_layers, patch_embedding, side_product
from .configuration_vjepa2 import VJEPA2Config

POOLER_MLP_RATIO = 4
"""The layers of the stock pooler do not read `mlp_ratio`."""


def mac_count_vjepa2(config: VJEPA2Config) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    width = config.hidden_size
    layers = joint_layers(config, int(width * config.mlp_ratio))
    tokens = token_counts_of_config(config)[-1]
    mlp = 2 * POOLER_MLP_RATIO * width**2  # per token
    self_attention = tokens * (4 * width**2 + mlp) + attention_products(tokens, tokens, width)
    # One query; its context is not projected.
    cross_attention = width**2 + 2 * tokens * width**2 + attention_products(1, tokens, width) + mlp
    return MacCount(
        embedding=patch_embedding(config, config.tubelet_size * side_product(config.patch_size), width),
        layers=layers,
        head=config.num_pooler_layers * self_attention + cross_attention + width * config.num_labels,
    )
