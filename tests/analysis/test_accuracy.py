"""Curves of accuracy against r and speed: which settings, which curves, and where the speed-ups come from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import hf_video_tome
from hf_video_tome.analysis import accuracy_curves, draw_accuracy, setting_grid
from hf_video_tome.analysis.accuracy import curve_rows
from hf_video_tome.analysis.speed import measure_speed_ups, speed_ups_of
from hf_video_tome.benchmark import BenchmarkResults, MeasuredVariant, Variant

from .conftest import make_model

GRID = [
    {"r": 0},
    {"r": 4, "mode": "merge", "schedule": "constant"},
    {"r": 2, "mode": "merge", "schedule": "constant"},
    {"r": 4, "mode": "drop", "schedule": "constant"},
]


def results_of(grid: list[dict[str, Any]]) -> dict[str, Any]:
    """What an evaluation would say of a tiny model: accuracies of .9, .8, .7, ..."""
    settings = []
    for number, changes in enumerate(grid):
        model = make_model()
        model.set_token_merging(**changes)
        accuracy = {"value": 0.9 - number / 10, "standard_error": 0.05}
        settings.append(
            {
                "changes": changes,
                "resolved": model.config.token_merging_settings(resolved=True),
                "token_counts": hf_video_tome.token_counts(model),
                "tasks": {"label": {"top_1": accuracy, "nll": 1.0 + number}},
                "agreement": {"value": 0.5, "standard_error": 0.1} if number else None,
                "top_1_difference": {"value": -number / 10, "standard_error": None} if number else None,
            }
        )
    return {"run": {"dtype": "float32"}, "settings": settings, "num_labelled": 8}


# --- settings
def test_the_grid_is_the_unmerged_model_and_the_papers_sweep() -> None:
    grid = setting_grid(hf_video_tome.VivitConfig(), modes=["merge", "drop"], schedules=["constant", "increasing"])
    assert grid[0] == {"r": 0}
    assert sorted({setting["r"] for setting in grid[1:]}) == [196, 392, 784, 1568]
    assert len(grid) == 1 + 4 * 2 * 2


def test_the_sweep_of_divided_models_is_per_frame() -> None:
    grid = setting_grid(hf_video_tome.TimesformerConfig(), schedules=["constant"])
    assert [setting["r"] for setting in grid] == [0, 12, 24, 49, 98]


def test_shares_become_tokens_and_are_not_repeated() -> None:
    grid = setting_grid(hf_video_tome.VideoMAEConfig(), r=[0.0625, 98, 0], schedules=["constant"])
    assert [setting["r"] for setting in grid] == [0, 98]


@pytest.mark.parametrize("share", [0.1, 0.29, 0.4999])
def test_a_share_is_as_many_tokens_as_in_the_config(share: float) -> None:
    """Rounded down: 0.1 of the 288 tokens of the shipped checkpoint are 28, not 29."""
    config = hf_video_tome.VideoMAEConfig(image_size=96, num_frames=16, num_hidden_layers=4)
    (_, setting) = setting_grid(config, r=[share], schedules=["constant"])
    config.update_token_merging(r=share)
    assert [setting["r"]] * 4 == config.token_merging_plan().requested == [int(share * 288)] * 4


def test_a_share_of_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match=r"r must be at least 1 of the 1568 tokens once, got \[0.0001\]"):
        setting_grid(hf_video_tome.VideoMAEConfig(), r=[0.0001])


def test_r_past_the_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"r must be at most 784, half of the tokens.*got 785"):
        setting_grid(hf_video_tome.VideoMAEConfig(), r=[785])


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="token_merging_threshold"):
        setting_grid(hf_video_tome.VideoMAEConfig(), modes=["hybrid"])
    grid = setting_grid(hf_video_tome.VideoMAEConfig(), modes=["hybrid"], common={"threshold": 0.8})
    assert grid[1]["threshold"] == 0.8


# --- curves
def test_curves_start_unmerged_and_go_on_by_r() -> None:
    merge, drop = accuracy_curves(results_of(GRID))
    assert [(point.r, round(point.accuracy, 3)) for point in merge.points] == [(0, 0.9), (2, 0.7), (4, 0.8)]
    assert [point.r for point in drop.points] == [0, 4]
    assert merge.settings["mode"] == "merge"
    assert drop.settings["mode"] == "drop"
    assert merge.points[0].tokens_left == 1
    assert merge.points[2].tokens_left == pytest.approx((32 - 3 * 4) / 32)
    assert merge.points[0].change is None
    assert merge.points[1].change == pytest.approx(-0.2)


def test_tokens_left_are_of_all_tokens_of_a_clip_with_an_input_stage() -> None:
    stage = {"input": "random", "input_keep": 0.5}
    results = results_of([{"r": 0, **stage}, {"r": 4, **stage}])
    (curve,) = accuracy_curves(results, num_tokens=32)
    assert [point.tokens_left for point in curve.points] == [16 / 32, (16 - 3 * 4) / 32]
    (curve,) = accuracy_curves(results_of([{"r": 0}, {"r": 0, **stage}, {"r": 4, **stage}]))[-1:]
    assert [point.tokens_left for point in curve.points] == [1, 16 / 32, (16 - 3 * 4) / 32]


def test_the_action_counts_where_there_are_several_tasks() -> None:
    results = results_of(GRID)
    for setting in results["settings"]:
        setting["tasks"]["action"] = {"top_1": {"value": 0.25, "standard_error": 0.1}, "nll": 3.0}
    assert {point.accuracy for curve in accuracy_curves(results) for point in curve.points} == {0.25}


def test_rows_hold_every_point_with_its_settings() -> None:
    rows = curve_rows(accuracy_curves(results_of(GRID), [1.0, 2.0, 1.5, 2.5]))
    assert [(row["curve"], row["mode"], row["r"], row["speed_up"]) for row in rows] == [
        (0, "merge", 0, 1.0),
        (0, "merge", 2, 1.5),
        (0, "merge", 4, 2.0),
        (1, "drop", 0, 1.0),
        (1, "drop", 4, 2.5),
    ]
    json.dumps(rows, allow_nan=False)


def test_what_makes_no_curve_is_refused() -> None:
    with pytest.raises(ValueError, match="must have settings that merge tokens"):
        accuracy_curves(results_of([{"r": 0}]))
    with pytest.raises(ValueError, match="numbers of tokens or shares in all settings, got both"):
        accuracy_curves(results_of([{"r": 4}, {"r": 0.25}]))
    unlabelled = results_of(GRID)
    unlabelled["settings"][0]["tasks"] = {}
    with pytest.raises(ValueError, match="labels of the videos are unknown"):
        accuracy_curves(unlabelled)


@pytest.mark.parametrize("speed_ups", [None, [1.0, 2.0, 1.5, 2.5]])
def test_a_picture_is_saved(speed_ups: list[float | None] | None, tmp_path: Path) -> None:
    path = draw_accuracy(accuracy_curves(results_of(GRID), speed_ups), tmp_path / "accuracy.png", title="r_$1$")
    assert path.stat().st_size > 1000


# --- speed
def test_speed_is_measured_for_each_setting_and_is_one_without_merging() -> None:
    model = make_model(token_merging_r=5)
    found = measure_speed_ups(model, [{"r": 8}, {"r": 0}, {"r": 2}], batch_size=1, rounds=3)
    assert found[1] == 1.0
    assert all(value > 0 for value in found)
    assert model.config.token_merging_r == 5


def config_of(**settings: Any) -> Any:
    config = make_model().config
    config.update_token_merging(**settings)
    return config


def benchmark(**settings: Any) -> BenchmarkResults:
    """A benchmark of the tiny model: stock sdpa and eager, and one setting, in two dtypes."""

    def entry(variant: Variant, seconds: float) -> MeasuredVariant:
        return MeasuredVariant(variant, 1, 4, [32, 28, 24, 20], {}, 1.5, [seconds] * 2)

    config = make_model().config
    measured = []
    for dtype, seconds in (("float32", 1.0), ("bfloat16", 5.0)):
        measured += [entry(Variant(dtype, "sdpa"), 1.75), entry(Variant(dtype, "eager"), 9.0)]
        measured.append(entry(Variant(dtype, "sdpa", {"r": 4, **settings}), seconds))
    measured.append(entry(Variant("float32", "sdpa", {"r": 4, **settings}, compiled=True), 0.1))
    conditions = {"model_type": config.model_type, "config": {"hidden_size": config.hidden_size}}
    return BenchmarkResults(conditions, measured)


def test_speed_ups_come_from_the_entries_with_the_same_settings() -> None:
    configs = [config_of(r=0), config_of(r=4, schedule="constant", threshold=None, scope="clip"), config_of(r=0.125)]
    found, conditions = speed_ups_of(benchmark(), configs)
    assert found == [1.0, 1.75, 1.75]
    assert conditions == {"relative_to": "stock_sdpa", "benchmark": benchmark().conditions}
    assert speed_ups_of(benchmark(), configs, "bfloat16")[0] == [1.0, 0.35, 0.35]


@pytest.mark.parametrize(
    "settings", [{"r": 2}, {"r": 4, "mode": "drop"}, {"r": 4, "scope": "frame"}, {"r": 4, "pooling": "mean"}]
)
def test_settings_that_were_not_measured_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"one entry in float32, not compiled, for r = {settings['r']}.*got 0"):
        speed_ups_of(benchmark(), [config_of(**settings)])
    with pytest.raises(ValueError, match="got 0"):
        speed_ups_of(benchmark(mode="random_drop"), [config_of(r=4)])


def test_settings_that_were_measured_twice_are_refused() -> None:
    results = benchmark()
    twice = replace(results, measured=[*results.measured, replace(results.measured[2], batch_size=8)])
    with pytest.raises(ValueError, match=r"got 2 \(of several batch sizes or attentions\)"):
        speed_ups_of(twice, [config_of(r=4)])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"model_type": "vivit"}, "the benchmark is of a vivit model"),
        ({"config": {"hidden_size": 768}}, "hidden_size=768, while this one has"),
    ],
)
def test_the_speed_of_another_model_is_refused(conditions: dict[str, Any], message: str) -> None:
    other = replace(benchmark(), conditions={**benchmark().conditions, **conditions})
    for settings in ({"r": 4}, {"r": 0}):
        with pytest.raises(ValueError, match=message):
            speed_ups_of(other, [config_of(**settings)])


def test_an_input_stage_alone_has_a_speed_up() -> None:
    settings = {"input": "random", "input_keep": 0.5}
    results = benchmark()
    stage = replace(results.measured[2], variant=Variant("float32", "sdpa", settings), num_tokens=32)
    results = replace(results, measured=[*results.measured, replace(stage, token_counts=[16] * 4)])
    assert speed_ups_of(results, [config_of(r=0, **settings)])[0] == [1.75]


def test_a_benchmark_without_a_stock_model_has_no_speed_ups() -> None:
    results = benchmark()
    with pytest.raises(ValueError, match="no stock model in float32"):
        speed_ups_of(replace(results, measured=results.measured[2:3]), [config_of(r=4)])
