"""The amount of removal that meets a budget of operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import hf_video_tome
from hf_video_tome.merging import SettingError
from hf_video_tome.models import ARCHITECTURES, ENCODERS
from hf_video_tome.models.fit_operations import fit_operations
from tests.tiny import TINY_CONFIGS


def config_of(model_type: str, **fields: Any) -> Any:
    return ARCHITECTURES[model_type].config_class(**TINY_CONFIGS[model_type], **fields)


def factor(config: Any, **settings: Any) -> float:
    unmerged = hf_video_tome.mac_count(config, **config.unmerged_settings).total
    return unmerged / hf_video_tome.mac_count(config, **settings).total


@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.parametrize("target", [1.3, 1.6])
def test_the_least_r_that_reaches_the_factor(model_type: str, target: float) -> None:
    config = config_of(model_type)
    fitted = fit_operations(config, {"schedule": "decreasing"}, target)
    assert fitted.factor == pytest.approx(factor(config, **fitted.settings))
    assert fitted.factor >= target
    assert factor(config, **{**fitted.settings, "r": fitted.settings["r"] - 1}) < target
    assert config.token_merging.is_off, "the config must be left unchanged"


def test_the_nearest_factor_may_be_below() -> None:
    config = config_of("videomae")
    below = factor(config, r=3) + 0.001
    assert fit_operations(config, {}, below, nearest=True).settings["r"] == 3
    assert fit_operations(config, {}, below).settings["r"] == 4


def test_the_input_stage_keeps_fewer() -> None:
    config = config_of("videomae", token_merging_r=4)
    fitted = fit_operations(config, {"input": "random", "r": 0}, 1.4, amount="input_keep")
    assert fitted.factor >= 1.4 > factor(config, input="random", r=0, input_keep=fitted.settings["input_keep"] + 1)


def test_out_of_reach_removes_the_most_that_is_needed() -> None:
    config = config_of("videomae")
    fitted = fit_operations(config, {}, 1000.0)
    assert fitted.settings["r"] == config.token_layout.num_tokens // 2
    assert fitted == fit_operations(config, {}, 500.0)


def test_what_the_model_does_not_support_is_an_error() -> None:
    with pytest.raises(SettingError, match="input must be None for this timesformer"):
        fit_operations(config_of("timesformer"), {"input": "random"}, 1.5, amount="input_keep")


def test_nothing_is_removed_if_the_input_stage_alone_reaches_the_factor() -> None:
    config = hf_video_tome.VideoMAEConfig()
    settings = {"input": "random", "input_keep": 1000, "mode": "pitome"}
    alone = factor(config, **settings, r=0)
    assert factor(config, **settings, r=1) < alone, "matching must cost more than one token saves"
    for target in (alone, alone / 1.1):
        fitted = fit_operations(config, settings, target)
        assert (fitted.settings["r"], fitted.factor) == (0, alone)
    assert fit_operations(config, settings, alone * 1.001).settings["r"] > 1


@pytest.mark.parametrize("target", [1.5, 2.5, 4.0])
@pytest.mark.parametrize("schedule", ["constant", "decreasing"])
def test_few_exact_counts_are_needed(target: float, schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config, encoder, counted = hf_video_tome.VideoMAEConfig(), ENCODERS["videomae"], []

    def count(tried: Any) -> Any:
        counted.append(tried.token_merging_r)
        return encoder.mac_count(tried)

    monkeypatch.setitem(ENCODERS, "videomae", replace(encoder, mac_count=count))
    fitted = fit_operations(config, {"schedule": schedule}, target)
    assert 0 < len(counted) <= 9  # bisection needs 12
    within_reach = min(target, factor(config, schedule=schedule, r=config.token_layout.num_tokens))
    one_less = {**fitted.settings, "r": fitted.settings["r"] - 1}
    assert fitted.factor >= within_reach > factor(config, **one_less), "the least r must be found"
