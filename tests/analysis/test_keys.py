"""The keys that are taken down are those that the layers of every architecture really merge by."""

from __future__ import annotations

import pytest
import torch

from hf_video_tome.analysis import duplicate_layer, unmerged_keys
from hf_video_tome.models import ARCHITECTURES

from .conftest import make_model

PIXELS = (2, 4, 3, 32, 32)


@pytest.mark.parametrize("aggregation", ["mean", "concat"])
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_a_layer_that_merges_alone_does_what_its_keys_say(model_type: str, aggregation: str) -> None:
    model, pixels = make_model(model_type), torch.randn(PIXELS)
    for scope in model.config.supported_token_merging_scopes:
        r = 2 if scope == "clip" else 1
        model.set_token_merging(scope=scope, head_aggregation=aggregation, r=0)
        keys = unmerged_keys(model, pixels)
        num_layers = model.config.num_merging_layers
        assert len(keys) == num_layers
        for layer in range(num_layers):
            model.set_token_merging(r=[0] * layer + [r])
            plan = model.config.token_merging_plan()
            with torch.no_grad():
                merged = model(pixels, output_token_merging=True).token_merging
            alone = duplicate_layer(keys[layer], [r], plan.layout, plan.settings)
            assert alone.sources.tolist() == merged.sources.tolist()


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_looking_changes_nothing(model_type: str) -> None:
    model, pixels = make_model(model_type, token_merging_r=3), torch.randn(PIXELS)
    with torch.no_grad():
        before = model(pixels).logits
        seen, again = unmerged_keys(model, pixels), unmerged_keys(model, pixels)
        assert torch.equal(model(pixels).logits, before)
    assert all(torch.equal(first, second) for first, second in zip(seen, again, strict=True))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_model_is_left_as_it_was_after_an_error() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="height=32"):
        unmerged_keys(model, torch.randn(1, 4, 3, 16, 16))
    assert not any(module._forward_pre_hooks for module in model.modules())
