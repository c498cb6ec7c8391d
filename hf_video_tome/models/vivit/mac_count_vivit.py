"""Multiply-accumulates of ViViT."""

from __future__ import annotations

from math import prod

from ..mac_count import MacCount, joint_layers, patch_embedding
from .configuration_vivit import VivitConfig


def mac_count_vivit(config: VivitConfig) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    return MacCount(
        embedding=patch_embedding(config, prod(config.tubelet_size), config.hidden_size),
        layers=joint_layers(config, config.intermediate_size),
        head=config.hidden_size * config.num_labels,
    )
