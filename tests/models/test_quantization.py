"""Linear layers that torch quantises to int8 (`quantize_dynamic`) in models that merge."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hf_video_tome
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

from .common import draw_pixels, logits_of

R = 3
# torch calls it deprecated in favour of torchao, and both it and the tensors it makes say so.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*(torch.ao.quantization|quantized tensor creation).*"),
    pytest.mark.skipif(
        not hasattr(torch.ao.quantization, "quantize_dynamic"), reason="this torch has no quantize_dynamic"
    ),
]
every_architecture = pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))


def build(model_type: str, stock: bool = False) -> nn.Module:
    architecture = ARCHITECTURES[model_type]
    config_class, head_class = architecture.config_class, architecture.head_class
    if stock:
        config_class, head_class = architecture.stock_config_class, architecture.stock_head_class
    torch.manual_seed(0)
    return head_class(config_class(**TINY_CONFIGS[model_type], attn_implementation="eager")).eval()


def quantize(model: nn.Module) -> nn.Module:
    # In eval mode again: torch makes its layers in training mode, in which the last layer is never cut short.
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8).eval()


def error(model: nn.Module, quantized: nn.Module, **settings: object) -> float:
    """How far quantised logits are from those in float32, relative to these, over four batches."""
    off, exact = [], []
    for seed in range(4):
        logits = []
        for one in (model, quantized):
            one.set_token_merging(**settings)
            torch.manual_seed(seed)  # random modes draw equal pairs
            logits.append(logits_of(one, draw_pixels(seed)))
        off.append(logits[1] - logits[0])
        exact.append(logits[0])
    return (torch.cat(off).norm() / torch.cat(exact).norm()).item()


@every_architecture
def test_at_r_zero_it_is_the_quantized_stock_model(model_type: str) -> None:
    stock, model = build(model_type, stock=True), build(model_type)
    expected = logits_of(quantize(stock), draw_pixels())
    assert torch.equal(logits_of(quantize(model), draw_pixels()), expected)
    assert not torch.equal(logits_of(stock, draw_pixels()), expected)


@every_architecture
def test_merging_adds_nothing_to_the_error_of_quantization_but_other_pairs(model_type: str) -> None:
    model = build(model_type)
    quantized = quantize(model)
    unmerged = error(model, quantized, r=0)
    assert 1e-3 < unmerged < 0.1
    # The same pairs: no more error than without merging.
    assert error(model, quantized, r=R, mode="random_merge") < 2 * unmerged
    # By similarity, quantised keys choose another pair where two are nearly as much alike.
    assert error(model, quantized, r=R, mode="merge") < 10 * unmerged


@every_architecture
def test_quantized_models_merge(model_type: str) -> None:
    quantized = hf_video_tome.apply_token_merging(quantize(build(model_type, stock=True)), r=R)
    with torch.no_grad():
        outputs = quantized(draw_pixels(), output_token_merging=True)
    assert list(outputs.token_merging.token_counts) == hf_video_tome.token_counts(quantized)
    model = build(model_type)
    model.set_token_merging(r=R)
    assert torch.equal(logits_of(quantized, draw_pixels()), logits_of(quantize(model), draw_pixels()))
