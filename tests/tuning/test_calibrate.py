"""Calibration: thresholds that merge r on average, and lists of r with the asked number of operations."""

from __future__ import annotations

from statistics import mean
from typing import Any

import pytest
import torch
from torch import Tensor

import hf_video_tome
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.tuning import measure_calibration
from hf_video_tome.tuning.order_statistic import threshold_of_count
from tests.tiny import TINY_CONFIGS

FRAMES = 8
WIDE = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4}
"""Layers that cost enough for a speed-up of 1.5."""


def make_model(model_type: str = "videomae", **config: Any) -> Any:
    architecture = ARCHITECTURES[model_type]
    size = {"frames_per_clip" if model_type == "vjepa2" else "num_frames": FRAMES}
    torch.manual_seed(0)
    return architecture.head_class(architecture.config_class(**{**TINY_CONFIGS[model_type], **size, **config})).eval()


def clips(num: int = 6, seed: int = 0) -> Tensor:
    """Clips from nearly still to noise."""
    noise = torch.randn(num, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    change = torch.linspace(0.1, 1, num).view(-1, 1, 1, 1, 1)
    return noise[:, :1] + change * noise


@torch.no_grad()
def removed(model: Any, pixel_values: Tensor) -> Tensor:
    """Number of tokens that each layer removes from each matched set of each clip, (n, L)."""
    plan = model.config.token_merging_plan()
    counts = model(pixel_values, output_token_merging=True).token_merging.clip_token_counts
    lost = counts[:, :-1] - counts[:, 1:]
    if plan.input_stage is not None:  # in front of the first layer
        entering = int(counts[0, 0]) if plan.input_keep is None else plan.entering_tokens
        lost[:, 0] -= int(counts[0, 0]) - entering
    return lost // plan.layout.num_sets(plan.settings.scope)


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_on_the_clips_themselves_the_mean_is_r(model_type: str) -> None:
    model, pixels = make_model(model_type), clips()
    r = [3, 2, 1]
    settings = hf_video_tome.calibrate(model, pixels, r, batch_size=len(pixels))
    model.set_token_merging(**settings)
    lost = removed(model, pixels)
    assert lost.sum(dim=0).tolist() == [len(pixels) * count for count in r]
    assert len(set(lost[:, 0].tolist())) > 1, "all clips are alike"


def test_two_clips_share_what_both_may_lose() -> None:
    model, pixels = make_model(), clips(2)
    model.set_token_merging(**hf_video_tome.calibrate(model, pixels, r=8))
    still, noise = removed(model, pixels).tolist()
    assert [a + b for a, b in zip(still, noise, strict=True)] == [16, 16, 16]
    assert still[0] != noise[0]


def test_a_clip_alone_is_as_in_a_padded_batch() -> None:
    model, pixels = make_model().double(), clips(2).double()
    model.set_token_merging(**hf_video_tome.calibrate(model, pixels, r=8))
    with torch.no_grad():
        together = model(pixels).logits
        alone = torch.cat([model(clip[None]).logits for clip in pixels])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("videomae", {"scope": "time"}),
        ("vivit", {"scope": "tube", "head_aggregation": "concat"}),
        ("timesformer", {"scope": "tube", "proportional_attention": False}),
        ("videomae", {"segments": 2}),
        ("videomae", {"input": "random", "input_keep": 0.75}),
        ("videomae", {"mode": "drop", "schedule": "decreasing", "r": 5}),
    ],
)
def test_all_other_settings_hold_while_calibrating(model_type: str, settings: dict[str, Any]) -> None:
    model, pixels = make_model(model_type), clips()
    model.set_token_merging(**settings)
    before = model.config.token_merging_settings()
    torch.manual_seed(1)
    found = hf_video_tome.calibrate(model, pixels, r=[1, 1, 0], batch_size=len(pixels))
    assert model.config.token_merging_settings() == before
    assert found["r"] == [0.5, 0.5, 0]
    model.set_token_merging(**found)
    torch.manual_seed(1)
    assert removed(model, pixels).sum(dim=0).tolist() == [len(pixels), len(pixels), 0]


def test_the_schedule_is_that_of_the_model_or_the_given_one() -> None:
    model, pixels = make_model(token_merging_schedule="decreasing"), clips()
    own = hf_video_tome.calibrate(model, pixels, r=8)
    assert own["r"] == [0.5, 0.5, 0]
    assert own == hf_video_tome.calibrate(make_model(), pixels, r=8, schedule="decreasing")
    assert hf_video_tome.calibrate(model, pixels, r=8, schedule="constant")["r"] == 0.5


def test_thresholds_are_means_over_batches() -> None:
    model, pixels = make_model(), clips(6)
    found = hf_video_tome.calibrate(model, pixels, r=[4], batch_size=4)["thresholds"][0]
    first, second = (hf_video_tome.calibrate(model, part, r=[4])["thresholds"][0] for part in (pixels[:4], pixels[4:]))
    assert found == pytest.approx((4 * first + 2 * second) / 6)
    batches = ({"pixel_values": part} for part in (pixels[:4], pixels[4:]))
    assert hf_video_tome.calibrate(model, batches, r=[4])["thresholds"][0] == found


def test_half_precision() -> None:
    model = make_model().bfloat16()
    found = hf_video_tome.calibrate(model, clips(), r=8)  # float32 clips
    assert all(-1 <= threshold <= 1 for threshold in found["thresholds"])
    model.set_token_merging(**found)
    assert removed(model, clips().bfloat16()).double().mean() == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize(("model_type", "speedup"), [("videomae", 1.5), ("videomae", 1.33), ("timesformer", 1.5)])
def test_a_list_has_the_asked_number_of_operations(model_type: str, speedup: float) -> None:
    model = make_model(model_type, **WIDE)
    found = hf_video_tome.calibrate(model, clips(), speedup=speedup)
    assert found["mode"] == "merge"
    unmerged = hf_video_tome.mac_count(model, r=0).total
    assert unmerged / hf_video_tome.mac_count(model, **found).total >= speedup
    one_less = [max(r - 1, 0) for r in found["r"]]
    assert unmerged / hf_video_tome.mac_count(model, **{**found, "r": one_less}).total < speedup
    model.set_token_merging(**found)
    assert removed(model, clips()).unique(dim=0).tolist() == [found["r"]]


def test_one_threshold_for_all_layers_has_the_asked_mean_number_of_operations() -> None:
    model = make_model(**WIDE)
    found = hf_video_tome.calibrate(model, clips(24), speedup=1.5, adaptive=True)
    assert found["mode"] == "dymu"
    assert len(set(found["thresholds"])) == 1
    model.set_token_merging(**found)
    macs = [
        hf_video_tome.mac_count(model, mode="merge", thresholds=None, r=counts, schedule="constant").total
        for counts in removed(model, clips(24)).tolist()
    ]
    assert hf_video_tome.mac_count(model, r=0).total / mean(macs) == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 8, "speedup": 2}, "speedup must be None if r is given"),
        ({"r": 8, "adaptive": True}, "adaptive must be False"),
        ({"schedule": "decreasing"}, "schedule must be None"),
        ({"r": 0}, "r must be more than 0"),
        ({"r": "many"}, "token_merging_r must be"),
        ({"speedup": 50}, r"speedup must be a number above 1 and at most \d.* got 50"),
        ({"speedup": 1}, "speedup must be a number above 1"),
        ({"speedup": "fast"}, "speedup must be a number"),
        ({"batch_size": 0}, "batch_size must be an int >= 1"),
    ],
)
def test_what_cannot_be_asked_for(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hf_video_tome.calibrate(make_model(), clips(2), **arguments)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [(clips(2)[:0], "at least one clip"), ([], "at least one clip"), (clips(2).byte(), "normalised floats")],
)
def test_what_no_clips_are(pixels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hf_video_tome.calibrate(make_model(), pixels, r=8)


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        hf_video_tome.calibrate(make_model().train(), clips(2), r=8)


def test_the_model_is_left_as_it_was_after_an_error() -> None:
    model = make_model()
    with pytest.raises(ValueError, match="height=32"):
        hf_video_tome.calibrate(model, torch.randn(1, FRAMES, 3, 16, 16), r=8)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert model.current_token_merging().mode == "merge"


@pytest.mark.parametrize(
    ("scores", "count", "above"),
    [
        ([0.1, 0.9, 0.5], 2, 2),
        ([0.5, 0.5, 0.5, 0.1], 2, 3),  # equal scores go together
        ([0.1, 0.2], 5, 2),
        ([1.0, 1.0], 1, 2),
        ([-1.0, 0.0], 1, 1),
        ([0.5], 0, 0),
        ([], 3, 0),
    ],
)
def test_the_threshold_that_some_scores_exceed(scores: list[float], count: int, above: int) -> None:
    assert int((torch.tensor(scores) > threshold_of_count(torch.tensor(scores), count)).sum()) == above


def test_neighbouring_floats_are_told_apart() -> None:
    low = torch.tensor(0.5)
    scores = torch.stack((low, low.nextafter(torch.tensor(1.0))))
    assert int((scores > threshold_of_count(scores, 1)).sum()) == 1


def test_thresholds_of_other_clips_lead_to_nearly_the_same_counts() -> None:
    model, pixels, counts = make_model(), clips(256), []
    for seed in (1, 2):
        model.set_token_merging(**hf_video_tome.calibrate(model, clips(256, seed), r=8, batch_size=128))
        counts.append(removed(model, pixels).double().mean(dim=0))
    torch.testing.assert_close(*counts, rtol=0.1, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clips_may_enter_the_first_layer_with_different_numbers_of_tokens(dtype: torch.dtype) -> None:
    model, pixels = make_model(token_merging_input="run_length", token_merging_input_threshold=0.5), clips()
    model.to(dtype)
    with torch.no_grad():
        trace = model(pixels, output_token_merging=True).token_merging
    entering = trace.clip_token_counts[:, 1]
    assert len(set(entering.tolist())) > 1
    found = hf_video_tome.calibrate(model, pixels, r=[4, 2, 0], batch_size=len(pixels))
    cost = measure_calibration(model, pixels, found, batch_size=len(pixels))
    start = entering.double().mean().item()
    if dtype == torch.float32:  # in half precision, some pairs are equally similar
        assert cost.token_counts == pytest.approx((start, start - 4, start - 6, start - 6))
    removals = cost.token_counts[0] - cost.token_counts[-1]
    assert removals == pytest.approx(6, abs=1)
    faster = 1.1 * measure_calibration(model, pixels, {**found, "r": [0.5, 0, 0]}).speedup
    listed = hf_video_tome.calibrate(model, pixels, speedup=faster)
    assert listed["mode"] == "merge"
    assert sum(listed["r"]) > 4
