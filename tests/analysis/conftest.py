"""Tiny models and clips that all analyses are tried on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hf_video_tome.analysis import Clips
from hf_video_tome.data import ClipTransform
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS


def make_model(model_type: str = "videomae", **changes: Any) -> Any:
    """A tiny classifier with random weights, in eval mode."""
    architecture = ARCHITECTURES[model_type]
    torch.manual_seed(0)
    config = architecture.config_class(**TINY_CONFIGS[model_type], **changes)
    return architecture.head_class(config).eval()


def make_clips(count: int, classes: int = 3) -> Clips:
    """Clips of coarse noise, of classes in turn."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(256, (count, 2, 3, 8, 8), generator=generator, dtype=torch.uint8)
    frames = coarse.repeat_interleave(2, 1).repeat_interleave(4, 3).repeat_interleave(4, 4)
    return Clips(frames, tuple((number % classes,) for number in range(count)), tuple(range(count)), {})


@pytest.fixture
def transform() -> ClipTransform:
    return ClipTransform(resize=32, crop=(32, 32), rescale_factor=1 / 255, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def clips() -> Clips:
    return make_clips(6)
