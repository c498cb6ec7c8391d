"""The operations that merging saves at base size, counted on the meta device: the numbers that the docs name."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import hf_video_tome


@pytest.mark.parametrize(
    ("config_class", "head_class", "r", "ratio"),
    [
        (hf_video_tome.VideoMAEConfig, hf_video_tome.VideoMAEForVideoClassification, 150, 2.43),
        (hf_video_tome.VivitConfig, hf_video_tome.VivitForVideoClassification, 300, 2.52),
    ],
    ids=["videomae", "vivit"],
)
def test_the_paper_r_needs_that_many_times_fewer_operations(config_class, head_class, r, ratio):
    config = config_class(num_labels=400, attn_implementation="eager")
    with torch.device("meta"):
        model = head_class(config).eval()
        clip = torch.empty(1, config.num_frames, 3, 224, 224)
    operations = []
    for value in (0, r):
        model.set_token_merging(r=value)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(clip)
        operations.append(counter.get_total_flops())
    assert operations[0] / operations[1] == pytest.approx(ratio, abs=0.005)
