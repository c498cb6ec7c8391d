"""Multiply-accumulates of TimeSformer."""

from __future__ import annotations

from ..mac_count import LayerMacCount, MacCount, attention_products, merging_layers, patch_embedding, side_product
from .configuration_timesformer import TimesformerConfig


def mac_count_timesformer(config: TimesformerConfig) -> MacCount:
    """Counts the MACs of one clip: see `hf_video_tome.mac_count`."""
    width = config.hidden_size
    # With "space_only", transformers classifies each frame separately.
    num_answers = config.num_frames if config.attention_type == "space_only" else 1
    return MacCount(
        embedding=patch_embedding(config, side_product(config.patch_size), width),
        layers=_divided_layers(config) if config.attention_type == "divided_space_time" else _joint_layers(config),
        head=num_answers * width * config.num_labels,
    )


def _divided_layers(config: TimesformerConfig) -> tuple[LayerMacCount, ...]:
    """Counts layers with temporal attention per patch position, then spatial attention per frame with a CLS copy."""
    width, plan = config.hidden_size, config.token_merging_plan()
    layers = []
    for layer in merging_layers(config, width, config.num_attention_heads, config.intermediate_size):
        frames, places = plan.layout.grid(layer.tokens, plan.settings.scope)
        over_time = attention_products(frames, frames, width, batch=places)
        over_space = attention_products(1 + places, 1 + places, width, batch=frames)
        # Queries, keys, values and output; temporal attention has an additional linear layer.
        projections = (5 * frames * places + 4 * frames * (1 + places)) * width**2
        layers.append(
            LayerMacCount(
                name=f"layer {layer.number}",
                tokens=layer.tokens,
                projections=projections,
                attention=over_time + over_space,
                matching=layer.matching,
                mlp=2 * layer.left * width * config.intermediate_size,
            )
        )
    return tuple(layers)


def _joint_layers(config: TimesformerConfig) -> tuple[LayerMacCount, ...]:
    """Counts layers that cannot merge: attention to all tokens, or within each frame with its own CLS token."""
    width, layout = config.hidden_size, config.token_layout
    joint = config.attention_type == "joint_space_time"
    batch, tokens = (1, layout.num_tokens) if joint else (layout.num_frames, 1 + layout.num_patches)
    return tuple(
        LayerMacCount(
            name=f"layer {index}",
            tokens=batch * tokens,
            projections=4 * batch * tokens * width**2,
            attention=attention_products(tokens, tokens, width, batch=batch),
            matching=0,
            mlp=2 * batch * tokens * width * config.intermediate_size,
        )
        for index in range(config.num_hidden_layers)
    )
