"""The smallest models that still have several heads, layers, frames and patches; shared by all tests."""

from __future__ import annotations

from typing import Any

BATCH_SIZE = 3
NUM_LABELS = 7

# Weights are drawn wide enough that merging visibly changes the logits: a test that compares them can then fail.
_COMMON: dict[str, Any] = {
    "image_size": 32,
    "num_frames": 4,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.2,
    "num_labels": NUM_LABELS,
}

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    # 2 x 16 tokens
    "videomae": {**_COMMON, "patch_size": 8, "tubelet_size": 2},
    # CLS and 2 x 16 tokens
    "vivit": {**_COMMON, "tubelet_size": [2, 8, 8]},
    # CLS and 2 x 16 tokens
    "motionformer": {**_COMMON, "patch_size": 8, "tubelet_size": 2},
    # CLS and 4 x 16 tokens
    "timesformer": {**_COMMON, "patch_size": 8},
    # 2 x 16 tokens; heads of 16 channels, of which each axis turns 4
    "vjepa2": {
        "crop_size": 32,
        "frames_per_clip": 4,
        "patch_size": 8,
        "tubelet_size": 2,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "mlp_ratio": 1.5,
        "initializer_range": 0.2,
        "num_pooler_layers": 1,
        "pred_hidden_size": 24,
        "pred_num_attention_heads": 2,
        "pred_num_hidden_layers": 1,
        "pred_num_mask_tokens": 2,
        "num_labels": NUM_LABELS,
    },
    # 4 x 16 tokens
    "videoprism_vision_model": {
        "image_size": 32,
        "num_frames": 4,
        "tubelet_size": [1, 8, 8],
        "hidden_size": 32,
        "num_spatial_layers": 3,
        "num_temporal_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "num_labels": NUM_LABELS,
    },
}

PIXEL_SHAPE = (BATCH_SIZE, 4, 3, 32, 32)
