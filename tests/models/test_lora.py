"""Adapters of peft on models that merge: forward, training, saving and loading, and merging adapters into weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForVideoClassification, PreTrainedModel

import hf_video_tome
from hf_video_tome.models import ARCHITECTURES, Architecture
from tests.tiny import TINY_CONFIGS

from .common import LABELS, draw_pixels, logits_of

R = 3
# Queries and values of each architecture, or all three where they are one layer.
TARGETS = {
    "videomae": ["query", "value"],
    "vivit": ["q_proj", "v_proj"],
    "timesformer": ["qkv"],
    "vjepa2": ["query", "value"],
    "videoprism_vision_model": ["q_proj", "v_proj"],
    "motionformer": ["qkv"],
}


@pytest.fixture(params=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


@pytest.fixture
def pixel_values() -> torch.Tensor:
    return draw_pixels()


@pytest.fixture
def checkpoint(architecture: Architecture, tmp_path: Path) -> Path:
    """A folder that stock transformers saved."""
    torch.manual_seed(0)
    config = architecture.stock_config_class(**TINY_CONFIGS[architecture.model_type])
    architecture.stock_head_class(config).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def load(checkpoint: Path, **settings: int) -> PreTrainedModel:
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    return AutoModelForVideoClassification.from_pretrained(checkpoint, **fields).eval()


def adapt(model: PreTrainedModel) -> PeftModel:
    """Always with the same adapter, as one that has been trained: its second matrix is not zero."""
    targets = TARGETS[model.config.model_type]
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets)).eval()
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    return adapted


def test_an_adapter_counts_in_every_forward_of_a_model_that_merges(checkpoint, pixel_values):
    base = logits_of(load(checkpoint, r=R), pixel_values)
    adapted = adapt(load(checkpoint, r=R))
    logits = logits_of(adapted, pixel_values)
    assert not torch.allclose(logits, base, atol=1e-2)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits_of(adapted, pixel_values), base)
    for parameter in (value for name, value in adapted.named_parameters() if "lora_B" in name):
        nn.init.zeros_(parameter)
    torch.testing.assert_close(logits_of(adapted, pixel_values), base)


def test_at_r_zero_it_is_the_adapted_stock_model(architecture, checkpoint, pixel_values):
    implementation = (architecture.encoder.stock_attn_implementations or ("eager",))[0]
    stock = architecture.stock_head_class.from_pretrained(checkpoint, attn_implementation=implementation).eval()
    expected = logits_of(adapt(stock), pixel_values)
    model = load(checkpoint, r=R)
    model.set_attn_implementation(implementation)
    adapted = adapt(model)
    assert not torch.equal(logits_of(adapted, pixel_values), expected)
    hf_video_tome.set_token_merging(adapted, r=0)
    assert torch.equal(logits_of(adapted, pixel_values), expected)


def test_an_adapted_stock_model_merges_after_apply_and_not_after_remove(architecture, checkpoint, pixel_values):
    adapted = adapt(architecture.stock_head_class.from_pretrained(checkpoint, attn_implementation="eager").eval())
    unmerged = logits_of(adapted, pixel_values)
    assert hf_video_tome.apply_token_merging(adapted, r=R) is adapted
    torch.testing.assert_close(
        logits_of(adapted, pixel_values), logits_of(adapt(load(checkpoint, r=R)), pixel_values), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(logits_of(adapted, pixel_values), unmerged, atol=1e-2)
    hf_video_tome.remove_token_merging(adapted)
    assert torch.equal(logits_of(adapted, pixel_values), unmerged)


def test_training_changes_the_adapter_and_nothing_else(checkpoint, pixel_values):
    adapted = adapt(load(checkpoint, r=R)).train()
    before = {name: parameter.detach().clone() for name, parameter in adapted.named_parameters()}
    optimizer = torch.optim.SGD((p for p in adapted.parameters() if p.requires_grad), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = adapted(pixel_values, labels=LABELS).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {name for name, parameter in adapted.named_parameters() if not torch.equal(parameter, before[name])}
    # Classifying runs no predictor.
    assert changed == {name for name in before if "lora_" in name and ".predictor." not in name}


def test_adapters_that_are_merged_into_the_weights_give_the_same_and_the_model_still_merges(
    architecture, checkpoint, pixel_values
):
    adapted = adapt(load(checkpoint, r=R))
    expected = logits_of(adapted, pixel_values)
    model = adapted.merge_and_unload()
    assert type(model) is architecture.head_class
    assert not any("lora_" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(logits_of(model, pixel_values), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        counts = model(pixel_values, output_token_merging=True).token_merging.token_counts
    assert list(counts) == hf_video_tome.token_counts(model)
    assert counts[-1] < counts[0]


@pytest.mark.parametrize("way", ["peft", "auto class"])
def test_a_saved_adapter_is_loaded_onto_a_model_that_merges(architecture, checkpoint, pixel_values, tmp_path, way):
    load(checkpoint, r=R).save_pretrained(tmp_path / "merging")
    adapted = adapt(load(tmp_path / "merging"))
    expected = logits_of(adapted, pixel_values)
    adapted.save_pretrained(tmp_path / "adapter")
    if way == "peft":
        loaded = PeftModel.from_pretrained(load(tmp_path / "merging"), tmp_path / "adapter").eval()
    else:  # which finds the base model by what the adapter says
        loaded = load(tmp_path / "adapter")
    assert loaded.config.token_merging_r == R
    assert hf_video_tome.token_counts(loaded) == hf_video_tome.token_counts(adapted)
    torch.testing.assert_close(logits_of(loaded, pixel_values), expected)
