"""Models that exist already, as users have them: hooked, wrapped, prepared, compiled, used by two threads."""

from __future__ import annotations

import threading

import accelerate
import pytest
import torch
import transformers
from accelerate.hooks import ModelHook, add_hook_to_module
from torch import nn

import hf_video_tome
from hf_video_tome.merging import MergeSettings, TokenLayout, Tokens, mean_pool, merge_tokens
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS


@pytest.fixture(params=list(TINY_CONFIGS))
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.fixture
def pixel_values():
    return torch.randn(PIXEL_SHAPE)


def stock_model(architecture):
    config = architecture.stock_config_class(**TINY_CONFIGS[architecture.model_type], attn_implementation="eager")
    return architecture.stock_head_class(config).eval()


def applied(architecture, **settings):
    return hf_video_tome.apply_token_merging(stock_model(architecture), **settings)


class Wrapper(nn.Module):
    """As peft and DDP do it: the model inside, and its config on the outside."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.config = model.config


@torch.no_grad()
def test_models_with_accelerate_hooks_merge_and_unmerge(architecture, pixel_values):
    model = stock_model(architecture)
    unmerged = model(pixel_values).logits
    for module in list(model.modules()):
        add_hook_to_module(module, ModelHook())
    hf_video_tome.apply_token_merging(model, r=3)
    hooked = model(pixel_values, output_token_merging=True)
    assert list(hooked.token_merging.token_counts) == hf_video_tome.token_counts(model)
    assert not torch.equal(hooked.logits, unmerged)
    hf_video_tome.remove_token_merging(model)
    torch.testing.assert_close(model(pixel_values).logits, unmerged, rtol=0, atol=0)


def test_prepared_models_are_refused_and_stay_as_they_are(architecture, pixel_values):
    model = accelerate.Accelerator(cpu=True, mixed_precision="bf16").prepare(stock_model(architecture))
    with pytest.raises(ValueError, match=r"forward.*replaced"):
        hf_video_tome.apply_token_merging(model, r=3)
    assert type(model) is architecture.stock_head_class
    assert type(model.config) is architecture.stock_config_class


def test_a_wrapper_shows_the_config_that_the_model_has(architecture):
    wrapper = Wrapper(stock_model(architecture))
    assert hf_video_tome.apply_token_merging(wrapper, r=3) is wrapper
    assert wrapper.config is wrapper.model.config
    assert wrapper.config.token_merging_r == 3
    hf_video_tome.remove_token_merging(wrapper)
    assert wrapper.config is wrapper.model.config
    assert type(wrapper.config) is architecture.stock_config_class


def test_what_cannot_be_converted_whole_is_refused(architecture):
    subclass = type("Mine", (architecture.stock_head_class,), {})
    config = architecture.stock_config_class(**TINY_CONFIGS[architecture.model_type])
    two = nn.ModuleList([stock_model(architecture), stock_model(architecture)])
    for model, named in ((subclass(config), "Mine"), (two, "ModuleList with 2"), ("folder", "str")):
        with pytest.raises(ValueError, match=f"must be or contain one of .* got {named}"):
            hf_video_tome.apply_token_merging(model, r=3)


def test_pretraining_models_are_refused():
    model = transformers.VideoMAEForPreTraining(transformers.VideoMAEConfig(**TINY_CONFIGS["videomae"]))
    with pytest.raises(ValueError, match="VideoMAEForPreTraining"):
        hf_video_tome.apply_token_merging(model, r=3)


@torch.no_grad()
@pytest.mark.parametrize("model_type", ["videomae", "motionformer"])  # the moment is chosen, for all, in the next test
def test_settings_may_change_while_another_thread_runs_the_model(model_type, pixel_values):
    model = applied(ARCHITECTURES[model_type], r=0)
    expected = [model(pixel_values).logits]
    model.set_token_merging(r=3)
    expected.append(model(pixel_values).logits)
    stop = threading.Event()

    def toggle():
        while not stop.wait(0.0005):  # a loop without a pause can keep the other thread from running at all
            model.set_token_merging(r=0)
            model.set_token_merging(r=3)

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        results = [model(pixel_values).logits for _ in range(60)]
    finally:
        stop.set()
        thread.join()
    assert all(any(torch.allclose(logits, one, atol=1e-5) for one in expected) for logits in results)


@torch.no_grad()
@pytest.mark.parametrize("change", [{"r": 0}, {"pooling": "mean"}, {"mode": "drop"}], ids=str)
@pytest.mark.parametrize("place", ["first layer", "base model"])
def test_settings_that_change_while_a_clip_is_in_the_model_are_for_the_next_one(
    architecture, pixel_values, change, place
):
    """One call never mixes two settings, whatever another thread does at whatever moment."""
    model = applied(architecture, r=3)
    before = model(pixel_values).logits
    model.set_token_merging(**change)
    after = model(pixel_values).logits
    model.set_token_merging(r=3, pooling="weighted", mode="merge")
    layer = next(module for module in model.modules() if type(module).__name__.endswith("Layer"))
    module = layer if place == "first layer" else model.base_model
    handle = module.register_forward_hook(lambda *_: model.set_token_merging(**change))
    torch.testing.assert_close(model(pixel_values).logits, before)
    handle.remove()
    torch.testing.assert_close(model(pixel_values).logits, after)


def test_the_loss_does_not_depend_on_merging_but_through_the_logits(architecture, pixel_values):
    labels = torch.tensor([1, 0, 5])
    model = applied(architecture, r=0)
    for r in (0, 3):
        model.set_token_merging(r=r)
        ratios = [model(pixel_values, labels=labels, **kwargs).loss for kwargs in ({}, {"num_items_in_batch": 6})]
        ratio = (ratios[1] / ratios[0]).item()
        if r == 0:
            stock_ratio = ratio
    assert ratio == pytest.approx(stock_ratio)


def test_scopes_that_a_model_cannot_do_are_refused():
    with pytest.raises(ValueError, match=r"token_merging_scope must be one of 'clip' .*got 'frame'"):
        hf_video_tome.VideoMAEConfig(use_mean_pooling=False, token_merging_scope="frame")


@pytest.mark.parametrize("attention_type", ["space_only", "joint_space_time"])
def test_a_trace_of_undivided_attention_is_refused(attention_type, pixel_values):
    config = hf_video_tome.TimesformerConfig(**TINY_CONFIGS["timesformer"], attention_type=attention_type)
    model = hf_video_tome.TimesformerForVideoClassification(config).eval()
    with pytest.raises(ValueError, match=f"divided_space_time.*{attention_type}"):
        model(pixel_values, output_token_merging=True)


def test_paper_settings_leave_nothing_of_what_was_set_before(architecture):
    if not architecture.paper_settings:
        pytest.skip("the paper has nothing on it")
    model = applied(architecture, r=1, mode="drop", schedule="decreasing", head_aggregation="concat", threshold=0.5)
    model.set_token_merging(**hf_video_tome.paper_settings(architecture.model_type))
    fresh = applied(architecture, **hf_video_tome.paper_settings(architecture.model_type))
    assert model.config.token_merging_plan() == fresh.config.token_merging_plan()


def test_models_on_the_meta_device_merge(architecture):
    model = applied(architecture, r=3).to("meta")
    assert model(torch.empty(PIXEL_SHAPE, device="meta")).logits.shape == (PIXEL_SHAPE[0], 7)


@pytest.mark.parametrize(
    ("dtype", "compiled"), [(torch.bfloat16, False), (torch.float16, False), (torch.bfloat16, True)]
)
def test_many_tokens_in_one_keep_their_mean_in_half_precision(dtype, compiled):
    """All even tokens are nearest to the same odd one, as black frames are: the mean of ones is one."""
    num_tokens = 400
    metric = torch.zeros(1, num_tokens, 4)
    metric[:, ::2, 0] = 1
    metric[:, 1::2, 1] = 1
    metric[:, 1, 0] = 5
    layout, settings = TokenLayout(0, 1, num_tokens), MergeSettings()

    def merge(x):
        return merge_tokens(x, metric, num_tokens // 2, Tokens(), layout, settings)

    merged, state = (torch.compile(merge, fullgraph=True) if compiled else merge)(
        torch.ones(1, num_tokens, 8, dtype=dtype)
    )
    assert state.size.max() == num_tokens // 2 + 1
    assert (merged == 1).all()
    assert (mean_pool(merged, state.size) == 1).all()
