"""The operations that merging saves at base size, counted on the meta device: the numbers that the docs name."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import hf_video_tome


@pytest.mark.parametrize(
    ("config_class", "head_class", "r", "ratio"),
    [  # Those of the other architectures follow from what `test_mac_count.py` counts on tiny models.
        (hf_video_tome.VideoMAEConfig, hf_video_tome.VideoMAEForVideoClassification, 150, 2.46),
        (hf_video_tome.VideoPrismVisionConfig, hf_video_tome.VideoPrismForVideoClassification, 20, 2.52),
    ],
    ids=["videomae", "videoprism"],
)
def test_r_needs_that_many_times_fewer_operations(config_class, head_class, r, ratio):
    config = config_class(num_labels=400, attn_implementation="eager")
    with torch.device("meta"):
        # The counter stumbles over parameters that are expanded, as VideoPrism's pooling query is.
        model = head_class(config).eval().requires_grad_(False)
        clip = torch.empty(1, *config.clip_shape)
    operations = []
    for value in (0, r):
        model.set_token_merging(r=value)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(clip)
        operations.append(counter.get_total_flops())
    assert operations[0] / operations[1] == pytest.approx(ratio, abs=0.005)
