"""Multiply-accumulates of Motionformer."""

from __future__ import annotations

from ..mac_count import LayerMacCount, MacCount, attention_products, merging_layers, patch_embedding, side_product
from .configuration_motionformer import MotionformerConfig


def mac_count_motionformer(config: MotionformerConfig) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    width = config.hidden_size
    pre_logits = width**2 if config.use_pre_logits else 0
    return MacCount(
        embedding=patch_embedding(config, config.tubelet_size * side_product(config.patch_size), width),
        layers=tuple(_layers(config)),
        head=pre_logits + width * config.num_labels,
    )


def _layers(config: MotionformerConfig) -> list[LayerMacCount]:
    """Counts layers with trajectory attention: tokens attend to each frame, then to their own trajectory."""
    width, heads, plan = config.hidden_size, config.num_attention_heads, config.token_merging_plan()
    # Linear layers of patches in temporal attention: queries, keys and, in the paper's version, values.
    num_temporal = 2 if config.use_original_trajectory_values else 3
    layers = []
    for layer in merging_layers(config, width, heads, config.intermediate_size):
        frames, places = plan.layout.grid(layer.tokens, plan.settings.scope)
        patches = frames * places
        over_space = attention_products(1, layer.tokens, width)  # of CLS
        over_space += attention_products(patches, places, width, batch=frames)
        # Keys are not computed: each head multiplies its queries with whole points of the trajectory.
        over_time = patches * frames * heads * width
        over_time += patches * frames * (width if config.use_original_trajectory_values else heads * width)
        layers.append(
            LayerMacCount(
                name=f"layer {layer.number}",
                tokens=layer.tokens,
                projections=(3 * layer.tokens + layer.projected + num_temporal * patches) * width**2,
                attention=over_space + over_time,
                matching=layer.matching,
                mlp=2 * layer.left * width * config.intermediate_size,
            )
        )
    return layers
