"""`mac_count` against torch's own counter, which sees the products that really run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hf_video_tome
from hf_video_tome.models import ARCHITECTURES
from tests.merging.mode_families import ALL_MODES
from tests.tiny import TINY_CONFIGS
from tests.toys import toy_methods

NAMES = sorted(ARCHITECTURES)
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "attention_dropout", "drop_path_rate")


def counted(name: str, implementation: str = "eager", stock: bool = False, **fields: Any) -> tuple[int, Any]:
    """MACs that run, as seen by torch, and the model.

    In train mode, without dropout, models do all that the method is made of: no shortcuts are taken.
    """
    architecture = ARCHITECTURES[name]
    defaults = architecture.stock_config_class()
    dropout = {field: type(getattr(defaults, field))(0) for field in DROPOUTS if hasattr(defaults, field)}
    config_class = architecture.stock_config_class if stock else architecture.config_class
    head_class = architecture.stock_head_class if stock else architecture.head_class
    config = config_class(**{**TINY_CONFIGS[name], **dropout, **fields}, attn_implementation=implementation)
    model = head_class(config).train()
    clip = torch.randn(1, *architecture.config_class.from_stock(config).clip_shape)
    # The counter does not know the fused kernels of CPUs.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(clip)
    return counter.get_total_flops() // 2, model


def implementations(name: str) -> list[str]:
    # VideoPrism's soft-cap leaves it eager and flex attention, and torch does not count the latter.
    return ["eager"] if name == "videoprism_vision_model" else ["eager", "sdpa"]


@pytest.mark.parametrize("name", NAMES)
def test_the_stock_model(name: str) -> None:
    expected, model = counted(name, stock=True)
    assert hf_video_tome.mac_count(model).total == expected
    assert hf_video_tome.mac_count(model.config).total == expected


@pytest.mark.parametrize(
    ("name", "implementation"), [(name, implementation) for name in NAMES for implementation in implementations(name)]
)
def test_without_merging(name: str, implementation: str) -> None:
    expected, model = counted(name, implementation)
    assert hf_video_tome.mac_count(model).total == expected
    assert hf_video_tome.mac_count(model).matching == 0


@pytest.mark.parametrize(
    ("name", "implementation", "scope", "proportional"),
    [
        (name, implementation, scope, proportional)
        for name in NAMES
        for implementation in implementations(name)
        for scope in ARCHITECTURES[name].config_class(**TINY_CONFIGS[name]).supported_token_merging_scopes
        for proportional in ((False, True) if scope == "tube" else (True,))  # which no scope changes
    ],
)
def test_every_scope(name: str, implementation: str, scope: str, proportional: bool) -> None:
    fields: dict[str, Any] = {"token_merging_scope": scope, "token_merging_proportional_attention": proportional}
    if (name, scope) == ("motionformer", "time"):
        # Attention over one frame would run as a plain multiplication, which the counter does not see.
        fields |= {"num_frames": 16}
    expected, model = counted(name, implementation, token_merging_r=[3, 1], **fields)
    count = hf_video_tome.mac_count(model)
    assert count.total == expected
    assert 0 < count.matching < count.total < hf_video_tome.mac_count(model, r=0).total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", sorted(ALL_MODES))
def test_every_mode(name: str, mode: str) -> None:
    fields = {"token_merging_mode": mode, "token_merging_threshold": 0.5}
    expected, model = counted(name, token_merging_r=3, **fields)
    assert hf_video_tome.mac_count(model).total == expected
    assert (hf_video_tome.mac_count(model).matching == 0) == mode.startswith("random_")


@pytest.mark.parametrize("name", ["videomae", "vivit", "vjepa2"])
@pytest.mark.parametrize("score", ["energy", "norm", "attention", "random"])
def test_absorb(name: str, score: str) -> None:
    fields = {"token_merging_mode": "absorb", "token_merging_mode_options": {"score": score}}
    expected, model = counted(name, token_merging_r=12, **fields)
    assert hf_video_tome.mac_count(model).total == expected


@pytest.mark.parametrize("name", ["videomae", "vivit", "vjepa2"])
@pytest.mark.parametrize("mode", ["runs", "static_runs"])
def test_runs_need_no_products(name: str, mode: str) -> None:
    expected, model = counted(name, token_merging_r=12, token_merging_mode=mode, token_merging_threshold=-1.0)
    assert hf_video_tome.mac_count(model).matching == 0
    assert mode == "static_runs" or hf_video_tome.mac_count(model).total == expected


@pytest.mark.parametrize("name", ["videomae", "vivit", "vjepa2"])
@pytest.mark.parametrize("mode", ["sta", "vid_tldr", "representation_shift"])
def test_modes_of_whole_clips(name: str, mode: str) -> None:
    expected, model = counted(name, token_merging_r=1, token_merging_mode=mode)
    assert hf_video_tome.mac_count(model).total == expected
    assert hf_video_tome.mac_count(model).matching > 0


@pytest.mark.parametrize("name", ["videomae", "timesformer"])
@pytest.mark.parametrize("mode", ["frame_merge", "time_pairs"])
def test_modes_of_whole_frames_need_no_products(name: str, mode: str) -> None:
    expected, model = counted(name, token_merging_r=1, token_merging_mode=mode)
    assert hf_video_tome.mac_count(model).total == expected
    assert hf_video_tome.mac_count(model).matching == 0


@pytest.mark.parametrize("name", NAMES)
def test_modes_that_read_hidden_states_merge_after_the_output_projection(name: str) -> None:
    with toy_methods():
        expected, model = counted(name, token_merging_r=3, token_merging_mode="smallest")
        assert hf_video_tome.mac_count(model).total == expected


@pytest.mark.parametrize("name", ["videomae", "vivit", "vjepa2"])
def test_an_input_stage(name: str) -> None:
    expected, model = counted(name, token_merging_r=3, token_merging_input="random", token_merging_input_keep=0.5)
    assert hf_video_tome.mac_count(model).total == expected


# Plans are made alike for all architectures: one that merges in clips, and one that merges in frames.
@pytest.mark.parametrize("name", ["vivit", "timesformer"])
@pytest.mark.parametrize(
    "fields",
    [
        {"token_merging_r": 0.2},
        {"token_merging_r": 99},  # capped in every layer
        {"token_merging_r": 2, "token_merging_schedule": "decreasing"},
        {"token_merging_r": 2, "token_merging_schedule": 0.5},
        {"token_merging_r": 2, "token_merging_head_aggregation": "concat"},
        {"token_merging_r": [0, 2]},
    ],
    ids=str,
)
def test_every_way_to_say_r(name: str, fields: dict[str, Any]) -> None:
    expected, model = counted(name, **fields)
    assert hf_video_tome.mac_count(model).total == expected


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("videomae", {"use_mean_pooling": False}),
        ("videomae", {"num_labels": 0}),
        ("timesformer", {"attention_type": "joint_space_time"}),
        ("timesformer", {"attention_type": "space_only"}),
        ("motionformer", {"use_original_trajectory_values": False}),
        ("motionformer", {"use_pre_logits": False}),
        ("vjepa2", {"num_pooler_layers": 3}),
        ("vjepa2", {"frames_per_clip": 1}),
    ],
    ids=str,
)
def test_other_forms_of_the_models(name: str, fields: dict[str, Any]) -> None:
    can_merge = "attention_type" not in fields
    expected, model = counted(name, token_merging_r=2 if can_merge else 0, **fields)
    assert hf_video_tome.mac_count(model).total == expected


@pytest.mark.parametrize("name", NAMES)
def test_parts_and_layers_add_up(name: str) -> None:
    count = hf_video_tome.mac_count(ARCHITECTURES[name].config_class(**TINY_CONFIGS[name], token_merging_r=3))
    parts = count.to_dict()
    assert parts.pop("total") == sum(parts.values()) == count.total
    assert count.embedding + count.head + sum(layer.total for layer in count.layers) == count.total
    assert len({layer.name for layer in count.layers}) == len(count.layers)
    tokens = [layer.tokens for layer in count.layers]
    assert tokens == sorted(tokens, reverse=True)


@pytest.mark.parametrize(
    ("name", "r", "ratio"),
    [
        # Two of them are counted on the running models by torch's counter too: `test_operations.py`.
        ("videomae", 150, 2.46),
        ("vivit", 300, 2.55),
        ("motionformer", 18, 2.32),
        ("videoprism_vision_model", 20, 2.52),
        ("vjepa2", 390, 3.08),
    ],
)
def test_base_size(name: str, r: int, ratio: float) -> None:
    config = ARCHITECTURES[name].stock_config_class(num_labels=400)
    merged = hf_video_tome.mac_count(config, r=r)
    assert hf_video_tome.mac_count(config).total / merged.total == pytest.approx(ratio, abs=0.005)


def test_settings_count_without_changing_the_config() -> None:
    config = hf_video_tome.VideoMAEConfig(**TINY_CONFIGS["videomae"], token_merging_r=3)
    assert hf_video_tome.mac_count(config, r=8).total < hf_video_tome.mac_count(config).total
    assert config.token_merging_r == 3


def test_a_stock_config_does_not_merge_even_if_its_file_had_the_fields() -> None:
    config = transformers.VideoMAEConfig(**TINY_CONFIGS["videomae"])
    expected = hf_video_tome.mac_count(config).total
    config.token_merging_r = 8
    assert hf_video_tome.mac_count(config).total == expected
    assert hf_video_tome.mac_count(config, r=8).total < expected


@pytest.mark.parametrize("other", [transformers.ViTConfig(), torch.nn.Linear(2, 2), "videomae"], ids=str)
def test_what_is_not_supported_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match=r"must be"):
        hf_video_tome.mac_count(other)
    with pytest.raises(ValueError, match="token_merging_r"):
        hf_video_tome.mac_count(hf_video_tome.VideoMAEConfig(), r=-1)
