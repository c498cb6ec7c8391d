"""`hf-video-tome analyze` through its entry point."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from hf_video_tome.cli import run

from ..classified_videos import save_checkpoint


def arguments(kind: str, model: Path, data: Path, output: Path, *more: str) -> list[str]:
    where = ["--dataset", "class-folders", "--data-dir", str(data), "--split", "test", "--output", str(output)]
    return ["analyze", kind, str(model), *where, "--workers", "0", *more]


def content_of(output: Path, kind: str) -> dict:
    """The JSON file, after a look at what each analysis leaves behind."""
    content = json.loads((output / f"{kind}.json").read_text())
    with (output / f"{kind}.csv").open() as handle:
        assert list(csv.DictReader(handle))
    assert (output / f"{kind}.png").stat().st_size > 1000
    conditions = content["conditions"]
    assert conditions["dataset"] == "class-folders"
    assert conditions["seed"] == 0
    assert {"hf-video-tome", "torch", "transformers", "python"} <= conditions["versions"].keys()
    assert conditions["model_type"] == "videomae"
    return content


def assert_no_paths(output: Path, *paths: Path) -> None:
    for file in output.glob("*.[jc]s*"):
        for path in paths:
            assert str(path) not in file.read_text()


def test_accuracy_and_then_what_its_evaluation_confuses(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "accuracy"
    options = ("--r", "4", "--r", "8", "--mode", "merge", "--mode", "drop", "--schedule", "constant", "--rounds", "1")
    assert run(arguments("accuracy", checkpoint, readable, output, *options)) == 0
    assert str(output / "accuracy.png") in capsys.readouterr().out
    content = content_of(output, "accuracy")
    assert [(point["mode"], point["r"]) for point in content["points"]] == [
        ("merge", 0),
        ("merge", 4),
        ("merge", 8),
        ("drop", 0),
        ("drop", 4),
        ("drop", 8),
    ]
    assert all(point["speed_up"] > 0 for point in content["points"])
    assert content["conditions"]["speed"]["rounds"] == 1
    assert_no_paths(output, checkpoint, readable)

    again, folder = tmp_path / "again", str(output / "evaluation")
    assert run(["analyze", "accuracy", "--evaluation", folder, "--output", str(again)]) == 0
    assert [point["accuracy"] for point in content_of(again, "accuracy")["points"]] == [
        point["accuracy"] for point in content["points"]
    ]

    confused = tmp_path / "confusion"
    command = ["analyze", "confusion", "--evaluation", folder, "--output", str(confused), "--after", "2"]
    assert run([*command, "--select", "first"]) == 0
    found = content_of(confused, "confusion")
    assert found["conditions"]["after"]["r"] == 8
    assert found["summary"]["videos"] == 10
    assert found["drawn_classes"][0] == {"class": 0, "name": "0"}
    assert run([*command[:2], str(checkpoint), *command[2:], "--overwrite"]) == 0
    assert {entry["name"] for entry in content_of(confused, "confusion")["drawn_classes"]} <= {
        "running",
        "walking",
        "jumping",
        "standing still",
        "waving hands",
    }


def test_confusion_runs_an_evaluation_of_its_own(checkpoint, readable, tmp_path) -> None:
    output = tmp_path / "confusion"
    assert run(arguments("confusion", checkpoint, readable, output, "--r", "8", "--mode", "drop")) == 0
    content = content_of(output, "confusion")
    assert content["conditions"]["before"]["r"] == 0
    assert content["conditions"]["after"]["mode"] == "drop"


def test_layers(checkpoint, readable, tmp_path) -> None:
    output = tmp_path / "layers"
    assert run(arguments("layers", checkpoint, readable, output, "--clips", "4")) == 0
    content = content_of(output, "layers")
    assert content["clips"] == 4
    assert content["conditions"]["resolved"]["r"] == 0.2  # 80 % by 4 layers
    assert {row["layer"] for row in content["measures"]} == {1, 2, 3, 4, "model"}
    assert (output / "layers-groups-0.png").exists()
    assert not (output / "layers-groups-1.png").exists()
    assert_no_paths(output, checkpoint, readable)


def test_splice_is_the_same_for_the_same_seed(checkpoint, readable, tmp_path, capsys) -> None:
    contents = []
    for number, seed in enumerate(("0", "0")):
        output = tmp_path / f"splice-{number}"
        options = ("--classes", "3", "--per-class", "2", "--r", "8", "--examples", "1", "--seed", seed)
        assert run(arguments("splice", checkpoint, readable, output, *options)) == 0
        contents.append(content_of(output, "splice"))
    assert contents[0] == contents[1]
    assert contents[0]["clips"] == 6
    assert len((output / "splice.csv").read_text().splitlines()) == 1 + 6 * 5
    assert (output / "splice-example-0.png").exists()
    assert "nearest colours" in capsys.readouterr().out
    assert_no_paths(output, checkpoint, readable)


def test_json_is_one_object_on_stdout(checkpoint, readable, tmp_path, capsys) -> None:
    assert run(arguments("layers", checkpoint, readable, tmp_path / "out", "--clips", "2", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["analysis"] == "layers"


def test_unreadable_videos_are_listed_and_the_exit_code_says_so(checkpoint, class_folders, tmp_path, capsys) -> None:
    assert run(arguments("layers", checkpoint, class_folders, tmp_path / "out", "--clips", "12")) == 2
    assert "2 of 12 videos could not be read" in capsys.readouterr().err
    assert content_of(tmp_path / "out", "layers")["conditions"]["unreadable"] == 2


def test_earlier_results_are_not_lost(checkpoint, readable, tmp_path, capsys) -> None:
    command = arguments("layers", checkpoint, readable, tmp_path / "out", "--clips", "2")
    assert run(command) == 0
    assert run(command) == 2
    assert "has a layers.json already: --overwrite replaces it" in capsys.readouterr().err
    assert run([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accuracy"], "MODEL must be given, or --evaluation"),
        (["accuracy", "videomae-moving-digits"], "--dataset must be given, or --evaluation"),
        (["layers", "videomae-moving-digits"], "--dataset must be given"),
        (["accuracy", "--evaluation", "nowhere"], "has no results.json"),
        (["accuracy", "--evaluation", "nowhere", "--r", "3"], "the settings are those of --evaluation"),
        (["confusion", "--evaluation", "nowhere", "--mode", "drop"], "choose two of them with --before and --after"),
        (
            ["confusion", "videomae-moving-digits", "--dataset", "x", "--before", "1"],
            "--before and --after choose among",
        ),
        (["confusion", "--evaluation", "nowhere", "--select", "last"], "--select must be one of first, changed"),
        (["splice", "videomae-moving-digits", "--dataset", "x", "--region", "middle"], "--region must be one of"),
        (["splice", "videomae-moving-digits", "--dataset", "x"], "--dataset"),
        (["layers", "resnet!", "--dataset", "moving-digits"], "no such folder"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["analyze", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_settings_that_do_not_go_with_the_model_are_bad_input(checkpoint, readable, tmp_path, capsys) -> None:
    assert run(arguments("splice", checkpoint, readable, tmp_path / "a", "--share", "2")) == 2
    assert "--share must leave tubelets of both clips" in capsys.readouterr().err
    assert run(arguments("accuracy", checkpoint, readable, tmp_path / "b", "--r", "40")) == 2
    assert "--r must be at most 32" in capsys.readouterr().err
    assert run(arguments("layers", checkpoint, readable, tmp_path / "c", "--mode", "melt")) == 2
    assert "--mode must be one of" in capsys.readouterr().err


def test_names_of_another_model_are_refused(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    assert run(arguments("confusion", checkpoint, readable, output, "--r", "8")) == 0
    other = save_checkpoint(tmp_path / "other", id2label=dict(enumerate("abcde")))
    command = ["analyze", "confusion", str(other), "--evaluation", str(output / "evaluation")]
    assert run([*command, "-o", str(tmp_path / "new")]) == 2
    assert "has other outputs than the model of the evaluation" in capsys.readouterr().err


def test_without_matplotlib_it_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setattr("hf_video_tome.cli.common.find_spec", lambda module: None)
    assert run(["analyze", "layers", "videomae-moving-digits", "--dataset", "moving-digits"]) == 2
    assert 'pip install "hf-video-tome[viz]"' in capsys.readouterr().err


def test_no_analysis_named_prints_help(capsys) -> None:
    assert run(["analyze"]) == 2
    text = capsys.readouterr().out
    for kind in ("accuracy", "confusion", "layers", "splice"):
        assert kind in text
