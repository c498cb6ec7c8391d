"""The comparison of what `tune` found with simple settings: which settings are evaluated, and the table."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.scripts import load_script

FOUND = {"r": 9, "mode": "pitome", "mode_options": {"margin": 0.5}, "input": None, "input_keep": None, "schedule": 0.5}
PRESET = {**FOUND, "r": 8, "mode": "merge", "mode_options": None}
CONSTANT = {**PRESET, "schedule": "constant"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("compare_tuned")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """A search with three finalists, and their answers to 4 clips; the first clip is wrong without merging."""

    def finalist(name: str, settings: dict[str, Any]) -> dict[str, Any]:
        is_simple = not name.startswith("trial")
        searched = {"divergence": {"value": 0.1}}
        return {"name": name, "settings": settings, "operations": 2.5, "is_simple": is_simple, "searched": searched}

    tuned, evaluated = tmp_path / "tuned", tmp_path / "evaluated"
    tuned.mkdir()
    evaluated.mkdir()
    finalists = [finalist("constant r", CONSTANT), finalist("trial 3", FOUND), finalist("preset fast", PRESET)]
    results = {"model": "toy", "finalists": finalists, "recommended": finalists[2]}
    (tuned / "results.json").write_text(json.dumps(results))
    settings = [{"r": 0}, CONSTANT, FOUND, PRESET]
    (evaluated / "results.json").write_text(json.dumps({"run": {"settings": [{"changes": it} for it in settings]}}))
    labels = [0, 1, 2, 3]
    answers = [[5, 1, 2, 3], [0, 9, 9, 3], [5, 1, 2, 3], [5, 1, 2, 9]]
    lines = [
        json.dumps(
            {"setting": setting, "video_id": f"clip {clip}", "label_top": [top], "label_rank": int(top != label)}
        )
        for setting, own in enumerate(answers)
        for clip, (label, top) in enumerate(zip(labels, own, strict=True))
    ]
    (evaluated / "predictions.jsonl").write_text("\n".join(lines))
    return str(tuned), str(evaluated)


def test_no_merging_and_all_finalists_are_evaluated(script, folders, capsys) -> None:
    script.main(["settings", folders[0]])
    assert json.loads(capsys.readouterr().out) == [{"r": 0}, CONSTANT, FOUND, PRESET]


def test_the_table_compares_clip_by_clip(script, folders, capsys) -> None:
    script.main(["table", *folders])
    _, _, *rows = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[2] for row in cells] == [
        "found: pitome (margin=0.5), r = 9, schedule 0.5",
        "preset fast (recommended)",
        "constant r",
    ]
    assert [row[3] for row in cells] == ["100.0 ± 0.0", "75.0 ± 25.0", "25.0 ± 25.0"]
    assert [row[4] for row in cells] == ["0.0 ± 0.0", "−25.0 ± 25.0", "−25.0 ± 47.9"]
    assert [row[5:] for row in cells] == [["", ""], ["+25.0 ± 25.0"] * 2, ["+75.0 ± 25.0", "+25.0 ± 47.9"]]


def test_folders_come_in_pairs(script, folders, capsys) -> None:
    with pytest.raises(SystemExit):
        script.main(["table", folders[0]])
    assert "must come in pairs" in capsys.readouterr().err


def change(path: Path, edit: Any) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("folder", "edit", "message"),
    [
        (0, lambda it: it.update(recommended=None), "tuned: the results of tune have no recommended settings"),
        (0, lambda it: it["finalists"].pop(1), "tuned: the results of tune have no settings that the search found"),
        (1, lambda it: it["run"]["settings"].pop(2), "must have the settings of all finalists, lacks trial 3"),
        (1, lambda it: it["run"]["settings"].pop(0), "must be no merging"),
    ],
)
def test_what_is_missing_is_one_line(script, folders, folder, edit, message) -> None:
    change(Path(folders[folder]) / "results.json", edit)
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as caught:
        script.main(["table", *folders])
    assert "\n" not in str(caught.value)
