"""The comparison of all methods: budgets of operations and of time, a tiny run, and a page from its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from transformers import AutoConfig

import hf_video_tome
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.merging import INPUT_STAGES, MODES
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
    # Other tests may have registered more.
    stages = {name for name, stage in INPUT_STAGES.items() if str(stage.assign.__module__).startswith("hf_video_tome")}
    modes = {name for name, mode in MODES.items() if str(mode.assign.__module__).startswith("hf_video_tome")}
    assert stages <= inputs
    # `dymu` and `static_runs` have no fixed number of tokens, `hybrid` and `random_merge` are in study_budgets.py.
    assert modes - {"dymu", "static_runs", "hybrid", "random_merge", "drop"} <= {
        it.get("mode", "merge") for it in settings
    }


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
    assert "| m | Signs, 2 folds, test |" in text
    assert "### m, Signs, 2 folds, test\n\n8 clips" in text
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
