"""Multiply-accumulates of VideoMAE."""

from __future__ import annotations

from ..mac_count import MacCount, joint_layers, patch_embedding, side_product
from .configuration_videomae import VideoMAEConfig


def mac_count_videomae(config: VideoMAEConfig) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    width = config.hidden_size
    # Without mean pooling, the layout treats the first patch as a prefix token, but it is embedded like all others.
    first_patch = config.token_layout.num_prefix_tokens
    volume = config.tubelet_size * side_product(config.patch_size)
    return MacCount(
        embedding=patch_embedding(config, volume, width) + first_patch * config.num_channels * volume * width,
        layers=joint_layers(config, config.intermediate_size),
        head=width * config.num_labels,
    )
