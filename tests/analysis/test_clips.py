"""Decoded clips, and what a model makes of them."""

from __future__ import annotations

import pytest
import torch

from hf_video_tome.analysis.clips import logits_of, run_clips

from .conftest import make_clips, make_model


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(transform, value: float) -> None:
    model, frames = make_model(), make_clips(2).frames
    assert logits_of(model, transform, frames).shape[0] == 2
    torch.nn.init.constant_(model.classifier.bias, value)
    with pytest.raises(ValueError, match="the logits are not finite"):
        logits_of(model, transform, frames)
    with pytest.raises(ValueError, match="the logits are not finite"):
        next(run_clips(model, transform, frames))
