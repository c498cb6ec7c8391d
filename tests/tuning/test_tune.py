"""Tuning: the search, its journal, its goals, and what it recommends."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig as StockConfig
from transformers import VideoMAEForVideoClassification as StockModel

import hf_video_tome
from hf_video_tome import TimesformerConfig, VideoMAEConfig
from hf_video_tome.merging import MODES, register_mode
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.models.fit_operations import FittedSettings, fit_operations
from hf_video_tome.tuning import Finalist, Progress, TuningResult
from hf_video_tome.tuning.memo import Memo
from hf_video_tome.tuning.outcomes import Outcomes, split
from hf_video_tome.tuning.plot import draw_frontier
from hf_video_tome.tuning.recommendation import recommend_closest, recommend_fastest
from hf_video_tome.tuning.search_space import DECIDED, Shape, search_space, simple_shapes
from tests.tiny import TINY_CONFIGS

NUM_CLIPS, FACTOR, TRIALS = 24, 1.6, 5


def make_model(model_type: str = "videomae", **config: Any) -> Any:
    torch.manual_seed(0)
    architecture = ARCHITECTURES[model_type]
    return architecture.head_class(architecture.config_class(**{**TINY_CONFIGS[model_type], **config})).eval()


def make_clips(num: int = NUM_CLIPS) -> Tensor:
    return torch.randn(num, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def tune(model: nn.Module, clips: Any, **arguments: Any) -> TuningResult:
    goal = {} if {"speedup", "agreement", "operations"} & arguments.keys() else {"operations": FACTOR}
    return hf_video_tome.tune(model, clips, **{"trials": TRIALS, "rounds": 0, "batch_size": 4, **goal, **arguments})


@pytest.fixture(scope="module", autouse=True)
def _shared_fits() -> Iterator[None]:
    """Fits take most of the time of a search of a tiny model: the same ones are computed once for all tests."""
    fit, known = Shape.fit, {}

    def cached(shape: Shape, config: Any, factor: float) -> FittedSettings:
        size = {name: value for name, value in config.to_dict().items() if not name.startswith("token_merging")}
        key = repr((shape, size, factor))  # shapes have all settings
        if key not in known:
            known[key] = fit(shape, config, factor)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shape, "fit", cached)
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def clips() -> Tensor:
    return make_clips()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuning") / "journal.jsonl"


@pytest.fixture(scope="module")
def result(model: Any, clips: Tensor, journal: Path) -> TuningResult:
    return tune(model, clips, journal=journal)


class CountedPasses:
    """Counts the forward passes of a model."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        model.register_forward_hook(self)

    def __call__(self, *_: Any) -> None:
        self.count += 1


# --- the search
def test_constant_r_and_decreasing_r_are_tried_first(result: TuningResult) -> None:
    assert [trial.name for trial in result.trials[:2]] == ["constant r", "decreasing r"]
    assert [trial.settings["schedule"] for trial in result.trials[:2]] == ["constant", "decreasing"]
    assert {trial.settings["mode"] for trial in result.trials[:2]} == {"merge"}
    assert [trial.name for trial in result.trials[2:]] == [f"trial {number}" for number in range(TRIALS)]


def test_presets_are_among_the_simple_settings_where_they_fit() -> None:
    config = VideoMAEConfig(num_hidden_layers=6, hidden_size=48, num_attention_heads=2, intermediate_size=192)
    names = [*simple_shapes(config, search_space(config))]
    assert names == ["constant r", "decreasing r", "preset balanced", "preset fast"]
    tiny = make_model().config
    assert [*simple_shapes(tiny, search_space(tiny))] == ["constant r", "decreasing r"]


def test_every_trial_meets_the_budget_of_operations(model: Any, result: TuningResult) -> None:
    for trial in result.trials:
        counted = hf_video_tome.mac_count(model, r=0).total / hf_video_tome.mac_count(model, **trial.settings).total
        assert counted == pytest.approx(trial.operations)
        assert counted >= FACTOR


def test_the_best_is_not_worse_than_any_simple_setting_on_the_clips_of_the_search(result: TuningResult) -> None:
    simple = [it.searched.mean_divergence for it in result.finalists if it.is_simple and it.searched]
    assert len(simple) == 2
    assert result.best is not None
    assert result.best.searched is not None
    assert result.best.searched.mean_divergence <= min(simple)


def test_divergences_and_agreements_are_those_of_the_predictions(
    model: Any, clips: Tensor, result: TuningResult
) -> None:
    assert result.best is not None
    held_back = clips[1::2]
    with torch.no_grad():
        expected = model(held_back).logits.double().log_softmax(-1)
        found = model(held_back, **{f"token_merging_{k}": v for k, v in result.best.settings.items()}).logits
    found = found.double().log_softmax(-1)
    divergence = (expected.exp() * (expected - found)).sum(-1)
    assert result.best.held_back.divergences == pytest.approx(divergence.tolist(), abs=1e-5)
    assert list(result.best.held_back.agreements) == (expected.argmax(-1) == found.argmax(-1)).tolist()
    assert divergence.mean() > 1e-4


def test_clips_that_are_held_back_do_not_take_part(model: Any, clips: Tensor, result: TuningResult) -> None:
    others = clips.clone()
    others[1::2] = make_clips(2 * NUM_CLIPS)[NUM_CLIPS::2]
    found = tune(model, others)
    assert [trial.to_dict() for trial in found.trials] == [trial.to_dict() for trial in result.trials]
    assert found.best is not None
    assert result.best is not None
    assert found.best.settings == result.best.settings
    assert found.best.held_back != result.best.held_back


def test_clips_come_one_by_one_too_and_settings_are_restored(result: TuningResult, clips: Tensor) -> None:
    model = make_model().train()
    model.set_token_merging(r=3, mode="drop")
    before = model.config.token_merging_settings()
    found = tune(model, (clip for clip in clips))
    assert found.to_dict() == result.to_dict()
    assert model.config.token_merging_settings() == before
    assert model.training


def test_the_result_is_json_safe_and_can_be_set(model: Any, result: TuningResult) -> None:
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["settings"] == result.settings
    other = make_model()
    other.set_token_merging(**result.settings)
    assert result.recommended is not None
    reached = hf_video_tome.mac_count(other, r=0).total / hf_video_tome.mac_count(other).total
    assert reached == pytest.approx(result.recommended.operations)


def test_the_frontier_is_not_surpassed(result: TuningResult) -> None:
    speeds = [it.speed for it in result.frontier]
    means = [it.held_back.mean_divergence for it in result.frontier]
    assert speeds == sorted(speeds)
    assert means == sorted(means)
    for it in result.finalists:
        assert any(
            it.speed <= point.speed and it.held_back.mean_divergence >= point.held_back.mean_divergence
            for point in result.frontier
        )


# --- interruptions
@pytest.mark.parametrize("stop_after", [3, 14])
def test_an_interrupted_search_continues_to_the_same_result(
    result: TuningResult, journal: Path, clips: Tensor, tmp_path: Path, stop_after: int
) -> None:
    model, own = make_model(), tmp_path / "journal.jsonl"
    passes = CountedPasses(model)

    def interrupt(_: Progress) -> None:
        if passes.count >= stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(model, clips, journal=own, on_progress=interrupt)
    own.write_bytes(own.read_bytes() + b'{"key": "an unfinished li')
    before = passes.count
    assert tune(model, clips, journal=own).to_dict() == result.to_dict()
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert passes.count == sum(row["key"].startswith(("search", "held back", "unmerged")) for row in rows)
    assert before >= stop_after


def test_a_finished_search_runs_the_model_no_more(result: TuningResult, journal: Path, clips: Tensor) -> None:
    model = make_model()
    passes = CountedPasses(model)
    assert tune(model, clips, journal=journal).to_dict() == result.to_dict()
    assert passes.count == 0


def test_the_journal_of_another_search_is_refused(
    result: TuningResult, journal: Path, model: Any, clips: Tensor
) -> None:
    with pytest.raises(ValueError, match="belongs to a search with seed 0, not 1"):
        tune(model, clips, journal=journal, seed=1)
    with pytest.raises(ValueError, match=r"belongs to a search with clips '[0-9a-f]{16}', not"):
        tune(model, clips + 1, journal=journal)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Memo(path, {}).get("a", lambda: 1)
    path.write_text(path.read_text().replace('"key"', '"kez"'))
    with pytest.raises(ValueError, match="line 2 is damaged"):
        Memo(path, {})


def test_no_time_leaves_the_simple_settings(model: Any, clips: Tensor) -> None:
    found = tune(model, clips, minutes=0)
    assert {trial.name for trial in found.trials} == {"constant r", "decreasing r"}
    assert "The search ended after 0 of 5 trials because of its time limit of 0 minutes." in found.notes
    assert not found.gained
    assert any("Nothing was gained" in note for note in found.notes)


# --- other goals
@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, Mapping[str, Any]], float]:
    """Speeds without measuring: less than operations say, and least for schedules that merge early."""

    def speed(model: Any, settings: Mapping[str, Any]) -> float:
        counts = [hf_video_tome.mac_count(model, **given).total for given in ({"r": 0}, settings)]
        return (counts[0] / counts[1]) ** (0.7 if settings["schedule"] == "decreasing" else 0.9)

    def measure(model: Any, settings: Sequence[Mapping[str, Any]], **_: Any) -> list[float]:
        return [speed(model, it) for it in settings]

    monkeypatch.setattr("hf_video_tome.tuning.search.measure_speed_ups", measure)
    return speed


@pytest.mark.usefixtures("speeds")
def test_a_speed_up_is_that_measured_for_all_finalists() -> None:
    model = make_model(hidden_size=64, intermediate_size=256)
    found = tune(model, make_clips(8), speedup=1.5, rounds=1, trials=2)
    operations = {it.name: it.operations for it in found.finalists}
    assert {"constant r", "decreasing r"} <= operations.keys()
    assert all(it.speedup == pytest.approx(1.5, rel=0.04) for it in found.finalists)
    assert operations["decreasing r"] > operations["constant r"]


@pytest.mark.usefixtures("speeds")
def test_a_speed_up_out_of_reach_is_an_error(model: Any) -> None:
    with pytest.raises(ValueError, match="speedup must be within reach of this model on this machine, got 9"):
        tune(model, make_clips(8), speedup=9, rounds=1)


@pytest.mark.usefixtures("speeds")
def test_an_agreement_is_reached_on_the_clips_held_back(model: Any, clips: Tensor) -> None:
    found = tune(model, clips, agreement=0.7, rounds=1, trials=1)
    assert found.recommended is not None
    assert all(it.held_back.agreement >= 0.7 for it in found.finalists)
    assert found.recommended.speed >= max(it.speed for it in found.finalists) / 1.04
    assert any("12 held-back clips, with a standard error of about 13.2 points" in note for note in found.notes)


def test_an_agreement_that_nothing_reaches_leaves_the_model_unmerged(
    model: Any, clips: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_video_tome.tuning.search._Search._agrees", lambda *_: False)
    found = tune(model, clips, agreement=0.9, rounds=1, trials=0)
    assert found.recommended is None
    assert found.settings["r"] == 0
    assert "No settings reach an agreement of 0.9 on the held-back clips." in found.notes


@pytest.mark.parametrize("size", [1, 4])
def test_a_speed_up_out_of_reach_says_what_is_in_reach(model: Any, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("hf_video_tome.tuning.search.measure_speed_ups", lambda _, settings, **__: [1.25, 1.3])
    clips = "1 clip" if size == 1 else "4 clips"
    with pytest.raises(ValueError, match=rf"got 2: decreasing r reached 1.30 at most, with {clips} per pass"):
        tune(model, make_clips(8), speedup=2, rounds=1, speed_batch_size=size)


def test_speeds_that_jump_across_the_target_are_compared_and_named(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = itertools.cycle([1.2, 1.9])
    monkeypatch.setattr(
        "hf_video_tome.tuning.search.measure_speed_ups", lambda _, settings, **__: [next(jumps)] * len(settings)
    )
    found = tune(model, make_clips(8), speedup=1.5, rounds=1, trials=0)
    assert {it.name for it in found.finalists} == {"constant r", "decreasing r"}
    [note] = [note for note in found.notes if note.startswith("Measured again, not all are 1.5 times as fast")]
    assert all(f"{it.name} {it.speedup:.2f}" in note for it in found.finalists)


def test_a_speed_up_that_all_settings_miss_is_noted(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hf_video_tome.tuning.search.measure_speed_ups", lambda _, settings, **__: [1.9] * len(settings)
    )
    found = tune(model, make_clips(8), speedup=1.5, rounds=1, trials=0)
    [note] = [note for note in found.notes if note.startswith("No settings reach a speed-up of 1.5 within 4%: ")]
    assert "constant r 1.90, decreasing r 1.90" in note or "decreasing r 1.90, constant r 1.90" in note


def test_settings_that_are_slower_here_are_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hf_video_tome.tuning.search.measure_speed_ups", lambda _, settings, **__: [0.8] * len(settings)
    )
    found = tune(model, make_clips(8), operations=1.3, rounds=1, trials=0)
    assert found.recommended is not None
    slower = f"{found.recommended.name} is slower than the unmerged model (0.80 times its speed)"
    assert any(slower in note for note in found.notes)


def test_simple_settings_that_do_not_reach_the_goal_are_named() -> None:
    model = make_model()
    most = [fit_operations(model.config, {"schedule": name}, 1000.0).factor for name in ("constant", "decreasing")]
    assert max(most) > 1.01 * min(most)
    found = tune(model, make_clips(4), operations=math.sqrt(math.prod(most)), trials=0)
    missing = {trial.name: trial.refused for trial in found.trials if trial.refused}
    assert len(missing) == 1
    for name, reason in missing.items():
        assert any(note.startswith("Left out: ") and name in note and str(reason) in note for note in found.notes)
    assert not missing.keys() & {it.name for it in found.finalists}


@pytest.mark.parametrize(("held_back", "said"), [(12, True), (24, False)])
def test_too_few_clips_to_tell_settings_apart_are_named(model: Any, held_back: int, said: bool) -> None:
    found = tune(model, make_clips(2 * held_back), trials=0)
    note = "Only 12 clips were held back, too few to tell settings apart: give at least 48 clips, so that 24 are"
    assert any(it.startswith(note) for it in found.notes) == said


def test_a_model_inside_a_wrapper_is_found(model: Any, clips: Tensor, result: TuningResult) -> None:
    assert tune(nn.ModuleDict({"module": model}), clips).to_dict() == result.to_dict()


def test_no_agreement_is_drawn_above_100_percent(result: TuningResult, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("hf_video_tome.tuning.plot.save", lambda figure, _: drawn.append(figure))
    held_back = Outcomes((0.1,) * 12, (True,) * 11 + (False,))
    finalists = tuple(replace(it, held_back=held_back) for it in result.finalists)
    draw_frontier(replace(result, finalists=finalists, frontier=()), "unused.png")
    [[divergence, agreement]] = [figure.axes for figure in drawn]
    assert agreement.get_ylim()[1] == 100
    ends = [segment for bars in agreement.collections for segment in bars.get_segments()]
    assert len(ends) == len(finalists)
    assert all(low < 100 * 11 / 12 < high <= 100 for (_, low), (_, high) in ends)
    assert divergence.get_ylim()[1] < 1


# --- recommendations
def finalist(name: str, searched: float, held_back: Sequence[float], speed: float = 2.0) -> Finalist:
    def outcomes(values: Sequence[float]) -> Outcomes:
        return Outcomes(tuple(values), (True,) * len(values))

    return Finalist(name, {}, 2.0, speed, outcomes([searched]), outcomes(held_back), not name.startswith("trial"))


NOISY = [0.1, 0.3, 0.2, 0.4]


@pytest.mark.parametrize(
    ("held_back", "recommended"),
    [
        ([it - 0.05 for it in NOISY], "trial 1"),  # better on every clip
        ([it + 0.05 for it in NOISY], "constant r"),
        (NOISY[::-1], "constant r"),  # as good on average
        ([0.0, 0.35, 0.0, 0.45], "constant r"),  # better on average, within noise
    ],
)
def test_the_best_has_to_beat_simple_settings_beyond_noise(held_back: list[float], recommended: str) -> None:
    ours, simple = finalist("trial 1", 0.1, held_back), finalist("constant r", 0.2, NOISY)
    assert [it.name for it in recommend_closest([simple, ours])] == [recommended, "trial 1"]


def test_all_that_the_search_found_may_beat_simple_settings() -> None:
    found = [finalist("trial 1", 0.1, NOISY), finalist("trial 2", 0.15, [it - 0.05 for it in NOISY])]
    assert [it.name for it in recommend_closest([*found, finalist("constant r", 0.2, NOISY)])] == [
        "trial 2",
        "trial 1",
    ]


def test_all_clips_say_which_simple_settings_are_the_best() -> None:
    one, other = finalist("constant r", 0.1, NOISY), finalist("decreasing r", 0.15, [*NOISY[1:], 0.0])
    assert recommend_closest([one, other])[0] is other


def test_the_recommended_settings_lose_to_no_simple_ones_beyond_noise() -> None:
    worse, better = finalist("constant r", 0.1, NOISY), finalist("decreasing r", 0.2, [it - 0.05 for it in NOISY])
    assert [it.name for it in recommend_closest([worse, better])] == ["decreasing r", "constant r"]


@pytest.mark.parametrize(("speed", "recommended"), [(2.5, "trial 1"), (2.05, "constant r"), (1.5, "constant r")])
def test_the_fastest_has_to_be_clearly_faster(speed: float, recommended: str) -> None:
    finalists = [finalist("trial 1", 0.1, NOISY, speed), finalist("constant r", 0.1, NOISY)]
    assert recommend_fastest(finalists)[0].name == recommended


@pytest.mark.parametrize(("recommended", "compared"), [("second", "second"), ("simple", "best")])
def test_what_is_recommended_is_compared_unless_it_is_simple(
    model: Any,
    clips: Tensor,
    journal: Path,
    result: TuningResult,
    monkeypatch: pytest.MonkeyPatch,
    recommended: str,
    compared: str,
) -> None:
    chosen: dict[str, Finalist] = {}

    def recommend(finalists: Sequence[Finalist]) -> tuple[Finalist, Finalist]:
        simple = [it for it in finalists if it.is_simple]
        best, second = [it for it in finalists if not it.is_simple]
        chosen.update(simple=simple[0], best=best, second=second)
        return chosen[recommended], best

    monkeypatch.setattr("hf_video_tome.tuning.search.recommend_closest", recommend)
    found = tune(model, clips, journal=journal)
    assert [it.name for it in found.comparison] == [it.name for it in found.finalists if it.is_simple]
    for it in found.comparison:
        assert it.compared == it.to_dict()["compared"] == chosen[compared].name
        [simple] = [other for other in found.finalists if other.name == it.name]
        means = (chosen[compared].held_back.mean_divergence, simple.held_back.mean_divergence)
        assert it.divergence.value == pytest.approx(means[0] - means[1])


# --- the space
def test_the_space_has_every_mode_but_adaptive_ones_and_controls() -> None:
    space = search_space(VideoMAEConfig())
    for mode in MODES.values():
        assert (mode.name in space.modes) == (not mode.adaptive and "random" not in mode.name), mode.name
    assert space.inputs == ("none", "run_length", "temporal_difference")
    assert not {"vid_tldr", "random_drop"} & {*search_space(TimesformerConfig()).modes}


def test_a_mode_that_is_registered_takes_part() -> None:
    @register_mode("another")
    def another(context: Any) -> Any:
        raise NotImplementedError

    assert "another" in search_space(VideoMAEConfig()).modes


def test_settings_that_are_not_searched_are_those_of_all_trials(model: Any) -> None:
    found = tune(model, make_clips(8), settings={"scope": "frame"}, operations=1.2, trials=2)
    assert {trial.settings["scope"] for trial in found.trials} == {"frame"}


@pytest.mark.parametrize(("num", "holdout", "held_back"), [(8, 0.5, [1, 3, 5, 7]), (8, 0.25, [3, 7])])
def test_clips_held_back_are_spread_evenly(num: int, holdout: float, held_back: list[int]) -> None:
    parts = split(num, holdout, seed=0)
    assert parts["held back"] == held_back
    assert sorted(parts["search"] + held_back) == list(range(num))


# --- bad input
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": None}, "one of speedup, operations, agreement must be given, got none"),
        ({"speedup": 2.0}, "one of speedup, operations, agreement must be given, got speedup and operations"),
        ({"operations": 1}, "operations must be a number above 1, got 1"),
        ({"operations": math.nan}, "operations must be a number above 1, got nan"),
        ({"operations": 50.0}, "operations must be within reach, got 50"),
        ({"operations": None, "agreement": 98}, "agreement must be a number between 0 and 1, both excluded, got 98"),
        ({"operations": None, "speedup": 2.0}, "rounds must be an int >= 1, got 0"),
        ({"holdout": 1.0}, "holdout must be a number between 0 and 1, both excluded, got 1.0"),
        ({"holdout": 0.01}, "holdout must leave at least 2 clips to search on and 2 to hold back, got 0.01 of 24"),
        ({"trials": -1}, "trials must be an int >= 0, got -1"),
        ({"minutes": math.nan}, "minutes must be a number >= 0, got nan"),
        ({"settings": {"r": 8}}, "r must be left out, as the search decides it, got 8|r must be left out.*got 8"),
        ({"settings": {"scope": "everywhere"}}, "scope must be one of"),
    ],
)
def test_bad_arguments_are_named(model: Any, clips: Tensor, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tune(model, clips, **{"operations": FACTOR, **arguments})


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (torch.zeros(3, 4, 3, 32, 32), "clips must be at least 4, got 3"),
        (
            torch.zeros(8, 3, 32, 32),
            r"clips must be \(T, C, H, W\) tensors of one shape, got \(3, 32, 32\)",
        ),
        (torch.zeros(8, 4, 3, 32, 32, dtype=torch.uint8), "clips must be float without a transform, got torch.uint8"),
        ([torch.zeros(4, 3, 32, 32), "clip.mp4"], "got str for clip 1"),
        (7, "clips must be at least 4, got 0"),
    ],
)
def test_bad_clips_are_named(model: Any, clips: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tune(model, clips)


def test_a_stock_model_is_an_error() -> None:
    stock = StockModel(StockConfig(**TINY_CONFIGS["videomae"]))
    with pytest.raises(ValueError, match="call apply_token_merging"):
        tune(stock, make_clips(8))


def test_a_base_model_is_an_error(model: Any) -> None:
    with pytest.raises(ValueError, match="model must be a classifier, got the base model VideoMAEModel"):
        tune(model.base_model, make_clips(8))


def test_a_compiled_model_is_refused() -> None:
    with pytest.raises(RuntimeError, match="do not reach compiled models"):
        tune(torch.compile(make_model()), make_clips(8))
    model = make_model()
    model.compile()
    with pytest.raises(RuntimeError, match="do not reach compiled models"):
        tune(model, make_clips(8))


def test_what_is_decided_are_settings() -> None:
    assert {*DECIDED} <= {*VideoMAEConfig().token_merging_settings()}
