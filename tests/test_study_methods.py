"""The comparison of all methods: budgets of operations and of time, a tiny run, and a page from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

import hf_video_tome
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.merging import INPUT_STAGES, MODES
from hf_video_tome.metrics.standard_errors import mean_with_error
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_script("study_methods")


def test_methods_that_a_model_supports_get_as_near_as_they_can(study: ModuleType) -> None:
    config = AutoConfig.from_pretrained(checkpoint_path("timesformer-moving-digits"))
    unmerged = hf_video_tome.mac_count(config, r=0).total
    first, *others = study.grid(config, targets=[2.0])
    assert first["changes"]["r"] == 0
    for setting in others:
        ratio = unmerged / hf_video_tome.mac_count(config, **setting["changes"]).total
        assert setting["ratio"] == pytest.approx(ratio, abs=1e-3)
    others = [setting for setting in others if not study.is_preset(setting)]
    near = [setting for setting in others if abs(np.log(setting["ratio"] / 2)) < np.log1p(study.TOLERANCE)]
    assert len(near) >= 0.6 * len(others)


@pytest.mark.parametrize("name", ["videomae-moving-digits", "timesformer-moving-digits"])
def test_presets_have_budgets_of_their_own(study: ModuleType, name: str) -> None:
    config = AutoConfig.from_pretrained(checkpoint_path(name))
    for setting in study.presets(config):
        assert setting["changes"] == hf_video_tome.preset(setting["differs"]["method"].removeprefix("preset "), config)
        assert 1 <= setting["ratio"] / setting["target"] < 1 + study.TOLERANCE


def test_videomae_supports_all(study: ModuleType) -> None:
    for method in study.METHODS.values():
        config = AutoConfig.from_pretrained(checkpoint_path("videomae-moving-digits"))
        config.update_token_merging(**{"r": 2, **method.settings})
        assert config.token_merging_plan().merges


def test_every_method_of_the_package_is_compared(study: ModuleType) -> None:
    settings = [method.settings for method in study.METHODS.values()]
    inputs = {it.get("input") for it in settings}
    assert set(INPUT_STAGES) <= inputs
    # `dymu` and `static_runs` have no fixed number of tokens, `hybrid` and `random_merge` are in study_budgets.py.
    modes = {it.get("mode", "merge") for it in settings}
    assert set(MODES) - {"dymu", "static_runs", "hybrid", "random_merge", "drop"} <= modes


def test_the_factor_of_a_speed_is_interpolated(study: ModuleType) -> None:
    measured = [(1.5, 1.4), (2.0, 1.8), (4.0, 3.0)]
    assert study.factor_at(measured, 1.8) == pytest.approx(2.0)
    factor = study.factor_at(measured, 2.5)
    assert 2.0 < factor < 4.0
    assert study.speed_at(measured, factor) == pytest.approx(2.5)
    assert study.factor_at(measured, 10.0) == pytest.approx(4.0)  # out of reach


@pytest.fixture(scope="module")
def files(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Speeds and results of three methods on four clips."""
    folder = tmp_path_factory.mktemp("methods")
    few = {name: study.METHODS[name] for name in ("merge (usual)", "merge decreasing", "random_drop")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "METHODS", few)
        patch.setattr(study, "TIMED", (1.5, 3.0))
        model, speeds, results = "videomae-moving-digits", folder / "speeds.json", folder / "a.json"
        study.main(["time", model, "--rounds", "1", "--batch-size", "1", "--output", str(speeds)])
        arguments = ["measure", model, "--dataset", "moving-digits", "--data-option", "num_test=6", "--clips", "4"]
        arguments += ["--scratch", str(folder / "scratch"), "--speeds", str(speeds), "--output", str(results)]
        study.main(arguments)
    return speeds, results


def test_methods_are_measured_at_equal_operations_and_at_equal_time(files: tuple[Path, Path]) -> None:
    speeds, results = (json.loads(path.read_text()) for path in files)
    assert set(speeds["speeds"]) == {"merge (usual)", "merge decreasing", "random_drop"}
    assert all(len(pairs) == 2 and min(up for _, up in pairs) > 0 for pairs in speeds["speeds"].values())
    assert len(results["settings"]) == 1 + 2 + 3 * (2 + 2)  # without merging, presets, methods
    assert sum("speed" in setting for setting in results["settings"]) == 6
    assert str(files[1].parent) not in results["command"]


def test_a_page_is_written_from_the_files_alone(study: ModuleType, files: tuple[Path, Path], tmp_path: Path) -> None:
    page, details = tmp_path / "page.md", tmp_path / "details.md"
    for _ in range(2):
        study.main(["page", str(files[1]), "--output", str(page), "--details", str(details)])
        text = page.read_text()
        assert text.count("### Against merging early") == 1
        assert "| *random_drop* |" in text
        assert "nan" not in text + details.read_text()
    assert "examples/study_methods.py measure videomae-moving-digits" in details.read_text()


def of_other_clips(results: Path, output: Path, data: str, **changes: str) -> str:
    """Writes a file of results under another name of the clips, with the answers reversed."""
    content = json.loads(results.read_text()) | {"data": data, **changes}
    for setting in content["settings"]:
        setting["right"] = setting["right"][::-1]
    output.write_text(json.dumps(content))
    return str(output)


def test_folds_are_joined_and_variants_stand_side_by_side(
    study: ModuleType, files: tuple[Path, Path], tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    folds = [of_other_clips(files[1], tmp_path / f"{n}.json", f"Signs, fold {n}, test", model="m") for n in (1, 2)]
    noise = of_other_clips(files[1], tmp_path / "noise.json", "moving-digits, noise")
    study.main(["page", str(files[1]), noise, *folds, "--output", str(page)])
    text = page.read_text()
    assert "| m | Signs, folds 1 and 2, test |" in text
    assert "### m, Signs, folds 1 and 2, test\n\n8 clips" in text
    assert "| method |  | noise |" in text


def test_joined_errors_are_those_of_all_clips(study: ModuleType) -> None:
    right = np.random.default_rng(0).integers(0, 2, 100)
    parts = [right[:30], right[30:]]
    settings = [
        {
            "changes": {},
            "right": "".join(map(str, part)),
            **dict.fromkeys(("accuracy", "change", "agreement", "kl", "nll"), study.mean_with_error(part)),
        }
        for part in parts
    ]
    joined = study.join(settings)
    assert joined["right"] == "".join(map(str, right))
    assert joined["kl"][0] == pytest.approx(right.mean())
    assert joined["kl"][1] == pytest.approx(study.mean_with_error(right)[1], rel=0.03)


def made(
    method: str, target: float | None, right: str, *, reached: float | None = None, agreement: float = 1.0, **more: Any
) -> dict[str, Any]:
    """Results of a setting that classifies a clip correctly where `right` is 1; it reaches its target if not said."""
    return {
        "changes": {},
        "target": target,
        "differs": {"method": method} if method else {},
        "ratio": reached or target,
        "right": right,
        "accuracy": mean_with_error([float(it) for it in right]),
        "change": (0.0, 0.0),
        "agreement": (agreement, 0.0),
        "kl": (0.0, 0.0),
        "nll": (0.0, 0.0),
        **more,
    }


def of(model: str, data: str, unmerged: str, *settings: dict[str, Any]) -> dict[str, Any]:
    """A study of a few clips."""
    first = made("", None, unmerged, reached=1.0)
    return {"model": model, "data": data, "clips": len(unmerged), "tokens": 8, "settings": [first, *settings]}


def rows_of(text: str) -> list[str]:
    """The rows of a Markdown table, without its rule."""
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]


def test_summary_averages_over_the_budgets_it_names(study: ModuleType) -> None:
    def of_variant(name: str, *others: dict[str, Any], cluster: tuple[str, str], pitome: float) -> dict[str, Any]:
        return of(
            "m",
            f"D, {name}",
            "1111",
            made("merge decreasing", 1.5, "0000"),
            made("merge decreasing", 2.5, "1100"),
            made("merge decreasing", 4.0, "1000"),
            made("cluster", 1.5, "1111"),
            made("cluster", 2.5, cluster[0]),
            made("cluster", 4.0, cluster[1]),
            made("runs", 2.5, "1111"),
            made("runs", 4.0, "0000", reached=3.0),
            made("pitome", 2.5, "1100"),
            made("pitome", 4.0, "0000", reached=pitome),
            made("sta", 1.5, "1111"),
            made("preset balanced", 2.5, "1111"),
            *others,
        )

    fast = [
        made("merge decreasing", 2.0, "0000", speed=2.05),
        made("merge decreasing", 3.0, "0000", speed=2.05),
        made("cluster", 2.0, "0111", speed=1.95),
        made("cluster", 3.0, "0000", speed=3.0),
    ]
    text = study.summary(
        [
            of_variant("a", *fast, cluster=("1110", "1001"), pitome=4.0),
            of_variant("b", cluster=("1101", "1000"), pitome=3.0),
        ]
    )
    assert rows_of(text) == [
        "| method | ▲ / ▼ | m, D (2.5x, 4x) | m, D, at equal time (2x) |",
        # Differences of a clip: 0, 0, 1/4 and 1/2, over two variants and two budgets; at equal time: 0, 1, 1 and 1.
        "| cluster | 1 / 0 of 2 | +18.8 ± 12.0 | +75.0 ± 25.0 ▲ |",
        "| runs | 0 / 0 of 1 | +50.0 ± 28.9 (2.5x) |  |",
        # On one variant it reaches 4x.
        "| pitome | 0 / 0 of 1 | 0.0 ± 0.0 (2.5x) |  |",
    ]
    assert "worse by 2.5 standard errors" in text  # 1 - 0.05 / 4 of a normal distribution
    assert "its 4 comparisons" in text


def test_summary_counts_and_marks_losses(study: ModuleType) -> None:
    settings = made("merge decreasing", 2.5, "11111111"), made("runs", 2.5, "00000001"), made("sta", 2.5, "11110001")
    assert rows_of(study.summary([of("m", "D", "11111111", *settings)]))[1:] == [
        "| runs | 0 / 1 of 1 | −87.5 ± 12.5 ▼ |",
        "| sta | 0 / 0 of 1 | −37.5 ± 18.3 ▽ |",
    ]


def test_means_of_presets_are_over_the_models_that_have_them(study: ModuleType) -> None:
    fast = made("preset fast", 4.0, "1000", reached=4.1)
    both = made("preset balanced", 2.5, "1110"), made("preset fast", 4.0, "1100")
    text = study.preset_table(
        [
            of("n", "D", "1100", fast),
            of("m", "D", "1111", *both),
            of("m", "E", "0111", *both),
            of("n", "E", "1100", *both),
        ]
    )
    assert [row for row in rows_of(text) if "mean" in row] == [
        # Changes of fast: 0, -1, 0, 0 and 0, 0, -1, -1.
        "| **mean of models** | D |  |  | −25.0 ± 25.0 (1 model) |  | −37.5 ± 12.5 (2 models) |",
        # Balanced: 1, 0, 0, -1 and 0, 0, 1, 0; fast: 1, 0, -1, -1 and no changes.
        "| **mean of 2 models** | E |  |  | +12.5 ± 23.9 |  | −12.5 ± 23.9 |",
    ]
    assert "| n | D | 50.0 ± 28.9 |  |  | 4.10x | 0.0 ± 0.0 / 100.0 ± 0.0 |" in rows_of(text)


def test_the_overview_averages_over_variants(study: ModuleType) -> None:
    text = study.preset_overview(
        [
            of("m", "D, a", "1100", made("preset balanced", 2.5, "1110", agreement=0.75)),
            of("m", "D, b", "1111", made("preset balanced", 2.5, "1111", agreement=1.0)),
            of("n", "D, a", "1000", made("preset fast", 4.0, "0000", agreement=0.5)),
        ]
    )
    assert rows_of(text)[1:] == [
        "| m | D: a, b | 75.0 % | +12.5 ± 12.5 / 87.5 % |  |",
        "| n | D, a | 25.0 % |  | −25.0 ± 25.0 / 50.0 % |",
    ]


def test_methods_that_miss_budgets_stand_below_those_that_reach_them(study: ModuleType) -> None:
    def column(target: float, reached: float = 0.0, **agreements: float) -> dict[str, Any]:
        return {
            name: made(name, target, "11", agreement=value, reached=reached if name in ("missed", "never") else None)
            for name, value in agreements.items()
        }

    columns = {
        "2.5x": column(2.5, missed=0.99, absent=0.9, low=0.8, high=0.7),
        "4x": column(4.0, reached=3.0, never=1.0, missed=1.0, low=0.5, high=0.7),
    }
    rows = rows_of(study.method_table(columns))[1:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["high", "low", "missed", "absent", "never"]
    assert rows[2] == "| missed | 0.0 ± 0.0 / 99.0 ± 0.0 | 0.0 ± 0.0 / 100.0 ± 0.0 (3.00x) |"


def test_budgets_of_presets_have_no_columns(study: ModuleType) -> None:
    presets = made("preset balanced", 2.5, "11"), made("preset fast", 3.0, "11")
    methods = made("cluster", 4.0, "11"), made("cluster", 2.0, "11", speed=2.0)
    found = of("m", "D", "11", *presets, *methods)
    assert list(study.budgets(found)) == [("4x fewer operations", False, 4.0), ("2x faster", True, 2.0)]
    assert {title: list(column) for title, column in study.columns_of(found).items()} == {
        "4x fewer operations": ["cluster"],
        "2x faster": ["cluster"],
    }


def test_folds_are_named_and_joined_in_their_order(study: ModuleType) -> None:
    def folds(model: str, **rights: str) -> list[dict[str, Any]]:
        return [
            of(model, f"D, fold {name.removeprefix('f')}, test", right, made("preset fast", 4.0, right))
            for name, right in rights.items()
        ]

    joined = study.join_folds([*folds("m", f10="1110", f2="1000", f1="00"), *folds("n", f1="11", f3="01")])
    assert [it["data"] for it in joined] == ["D, folds 1, 2 and 10, test", "D, folds 1 and 3, test"]
    assert [it["settings"][1]["right"] for it in joined] == ["0010001110", "1101"]
    assert joined[0]["clips"] == 10
    assert joined[0]["settings"][0]["accuracy"][0] == pytest.approx(0.4)
    # The same number of folds is not the same clips.
    models = study.join_folds([*folds("m", f1="10", f2="10"), *folds("n", f1="11", f3="01")])
    assert not any("mean of" in row for row in rows_of(study.preset_table(models)))


def test_folds_that_do_not_fit_are_an_error(study: ModuleType) -> None:
    first, second = (of("m", f"D, fold {n}", "10", made("cluster", 2.5, "10")) for n in (1, 2))
    second["settings"][1]["changes"] = {"r": 3}
    with pytest.raises(SystemExit, match=r"^error: m, D, fold 2: other settings than in fold 1$"):
        study.join_folds([second, first])
    with pytest.raises(SystemExit, match=r"^error: m, D, fold 2: other settings than in fold 1$"):
        study.join_folds([first, second | {"settings": second["settings"][:1]}])
    with pytest.raises(SystemExit, match=r"^error: two files are of m, D, fold 1$"):
        study.join_folds([first, first])


def test_pages_say_what_their_data_files_say(
    study: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (study.DATA, *study.PAGES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name) if name == study.DATA else shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.setattr(study, "ROOT", tmp_path)
    study.main(["docs"])
    for name in study.PAGES:
        assert (tmp_path / name).read_text() == (ROOT / name).read_text(), "run examples/study_methods.py docs"
