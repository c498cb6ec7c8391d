"""The study at equal numbers of operations: its settings, a tiny run, and the rule by which it draws conclusions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

import hf_video_tome
from hf_video_tome.checkpoints import checkpoint_path
from tests.scripts import load_script

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_script("study_budgets")


def test_all_settings_need_about_as_many_operations(study: ModuleType) -> None:
    config = AutoConfig.from_pretrained(checkpoint_path("timesformer-moving-digits"))
    unmerged = hf_video_tome.mac_count(config, r=0).total
    first, usual, *others = study.grid(config, targets=[2.0])
    assert first["changes"] == {"r": 0}
    assert usual["differs"] == {}
    for setting in others:
        same = {key: value for key, value in usual["changes"].items() if key not in ("r", "threshold")}
        changed = {key: value for key, value in setting["changes"].items() if key not in ("r", "threshold")}
        assert changed == {**same, **setting["differs"]}
    for setting in (usual, others[0], others[-1]):
        ratios = [
            unmerged
            / hf_video_tome.mac_count(config, **{**setting["changes"], "r": setting["changes"]["r"] + step}).total
            for step in (-1, 0, 1)
        ]
        assert setting["ratio"] == pytest.approx(ratios[1], abs=1e-3)
        assert min(ratios, key=lambda ratio: abs(np.log(ratio / 2))) == ratios[1]


@pytest.fixture(scope="module")
def measured(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("study")
    arguments = ["measure", "videomae-moving-digits", "--dataset", "moving-digits", "--data-option", "num_test=6"]
    arguments += [
        "--clips",
        "4",
        "--targets",
        "2.5",
        "--scratch",
        str(folder / "scratch"),
        "--output",
        str(folder / "a.json"),
    ]
    study.main(arguments)
    return folder / "a.json", arguments


def test_what_is_measured_is_what_the_evaluation_found(measured: tuple[Path, list[str]]) -> None:
    path, _ = measured
    content = json.loads(path.read_text())
    assert content["clips"] == 4
    folder = next(path.parent.joinpath("scratch").glob("a"))
    results = json.loads((folder / "results.json").read_text())["settings"]
    assert len(results) == len(content["settings"])
    for found, expected in zip(content["settings"], results, strict=True):
        assert found["accuracy"][0] == pytest.approx(expected["tasks"]["label"]["top_1"]["value"], abs=1e-4)
        assert found["right"].count("1") == round(4 * found["accuracy"][0])
        assert found["nll"][0] == pytest.approx(expected["tasks"]["label"]["nll"], abs=1e-4)
        assert found["kl"][0] >= -1e-5
        if expected["agreement"] is not None:
            assert found["agreement"][0] == pytest.approx(expected["agreement"]["value"], abs=1e-4)
            assert found["change"][0] == pytest.approx(expected["top_1_difference"]["value"], abs=1e-4)
    assert content["settings"][0]["kl"][0] == pytest.approx(0, abs=1e-5)
    assert str(path.parent) not in content["command"]


def test_a_page_is_written_from_the_files_alone(study: ModuleType, measured: tuple[Path, list[str]]) -> None:
    path, _ = measured
    page = path.parent / "page.md"
    page.write_text("# Mine\n\nBefore.\n\n<!-- study -->\nold\n<!-- end of study -->\n\nAfter.\n")
    for _ in range(2):
        study.main(["page", str(path), "--output", str(page)])
        text = page.read_text()
        assert text.startswith("# Mine\n\nBefore.\n")
        assert text.endswith("\n\nAfter.\n")
        assert "old" not in text
        assert text.count("### What makes a difference") == 1
        assert "nan" not in text
    page.write_text("# No place\n")
    with pytest.raises(SystemExit, match="has no lines <!-- study -->"):
        study.main(["page", str(path), "--output", str(page)])


def made_up(shift: int, flips: int) -> dict[str, Any]:
    """A study in which mode "drop" answers `shift` clips of 200 wrongly that the usual one answers rightly."""
    rng = np.random.default_rng(0)
    usual = np.arange(200) < 160
    dropped = usual.copy()
    dropped[:shift] = False
    for start, value in ((100, False), (160, True)):
        dropped[rng.choice(np.arange(start, start + 40), flips, replace=False)] = value

    def setting(differs: dict[str, Any], answers: np.ndarray, ratio: float = 2.0) -> dict[str, Any]:
        pair = [float(answers.mean()), 0.01]
        return {
            "changes": {"r": 3}, "target": 2.0, "differs": differs, "ratio": ratio, "accuracy": pair, "change": pair,
            "agreement": pair, "kl": pair, "nll": pair, "right": "".join(map(str, answers.astype(int))),
        }  # fmt: skip

    far = setting({"scope": "frame"}, usual, ratio=2.5)
    settings = [setting({}, usual), setting({}, usual), setting({"mode": "drop"}, dropped), far]
    return {"model": "m", "data": "d", "tokens": 9, "clips": 200, "command": "c", "settings": settings}


@pytest.mark.parametrize(
    ("shift", "flips", "expected"), [(40, 3, "worse"), (7, 2, "perhaps worse"), (0, 3, "no difference beyond noise")]
)
def test_conclusions_follow_from_the_numbers(study: ModuleType, shift: int, flips: int, expected: str) -> None:
    content = made_up(shift, flips)
    (comparison,) = study.compare(content)  # what is too far from the budget is not compared
    assert comparison.title == "drop"
    assert comparison.value == pytest.approx(-shift / 200)
    row = re.search(r"^\| drop \| .*$", study.conclusions([content, {**content, "model": "n"}]), re.MULTILINE)
    assert row is not None
    assert row[0].count(f", {expected};") == 2


@pytest.mark.parametrize("name", ["real-video", "moving-camera"])
def test_pages_say_what_their_data_files_say(study: ModuleType, tmp_path: Path, name: str) -> None:
    page, copy = DOCS / f"{name}.md", tmp_path / "page.md"
    copy.write_text(page.read_text())
    study.write_page(sorted((DOCS / name).glob("*.json")), copy)
    assert copy.read_text() == page.read_text(), "regenerate it"
