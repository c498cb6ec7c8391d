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
    # CLS and 4 x 16 tokens
    "timesformer": {**_COMMON, "patch_size": 8},
}

PIXEL_SHAPE = (BATCH_SIZE, 4, 3, 32, 32)
