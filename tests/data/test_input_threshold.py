"""Grey levels in the units of a processor."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import VivitImageProcessor

from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data import ClipTransform, input_threshold
from hf_video_tome.data.processor_settings import IMAGENET_STD

PROCESSORS: dict[str, Any] = {
    "transform": ClipTransform(),
    "offset": VivitImageProcessor(),
    "settings": {"image_processor_type": "VideoMAEImageProcessor", "image_std": [0.1, 0.2, 0.3]},
    "not normalised": ClipTransform(mean=None, std=None, rescale_factor=1.0),
    "checkpoint": checkpoint_path("videomae-moving-digits"),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_it_is_the_change_that_the_processor_makes_of_it(name):
    """Of pixels whose normalised changes, averaged over channels, are those of one mean deviation."""
    processor = PROCESSORS[name]
    transform = processor
    if isinstance(processor, VivitImageProcessor):
        transform = ClipTransform.from_dict(processor.to_dict())
    elif isinstance(processor, dict):
        transform = ClipTransform.from_dict(processor)
    elif not isinstance(processor, ClipTransform):
        transform = ClipTransform.from_pretrained(processor)
    frames = torch.tensor([100, 120], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    first, second = transform.normalize(frames)
    std = torch.ones(3) if transform.std is None else torch.tensor(transform.std)
    change = ((second - first).abs().mean(dim=(1, 2)) * std / std.mean()).mean()
    assert input_threshold(processor, 20) == pytest.approx(change.item(), rel=1e-4)


def test_the_default_of_the_paper_is_a_tenth():
    assert input_threshold(ClipTransform()) == pytest.approx(5.8 / 255 / (sum(IMAGENET_STD) / 3))
    assert input_threshold(ClipTransform()) == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize("grey_levels", [-1, 256, math.nan, "5.8", True])
def test_what_is_no_grey_level_is_refused(grey_levels):
    with pytest.raises(ValueError, match="grey_levels must be a number in 0 to 255"):
        input_threshold(ClipTransform(), grey_levels)
