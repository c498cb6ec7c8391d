"""`hf-video-tome analyze` through its entry point."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_video_tome.cli import run
from hf_video_tome.merging import MODES

from ..classified_videos import save_checkpoint

DIGITS = ["videomae-moving-digits", "--dataset", "moving-digits"]


def arguments(kind: str, model: Path, data: Path, output: Path, *more: str) -> list[str]:
    chosen = {"--dataset": "class-folders", "--data-dir": str(data), "--split": "test", "--output": str(output)}
    chosen["--workers"] = "0"
    words = [word for option in chosen.items() if option[0] not in more for word in option]
    return ["analyze", kind, str(model), *words, *more]


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


def test_the_evaluation_of_an_analysis_is_gone_on_with(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "confusion"
    command = arguments("confusion", checkpoint, readable, output, "--r", "8")
    assert run(command) == 0
    predictions = (output / "evaluation" / "predictions.jsonl").read_bytes()
    (output / "confusion.json").unlink()
    assert run(command) == 2
    assert "resume it (--resume)" in capsys.readouterr().err
    assert run([*command, "--resume"]) == 0
    assert (output / "evaluation" / "predictions.jsonl").read_bytes() == predictions
    content_of(output, "confusion")


def test_layers_with_one_json_object_on_stdout(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "layers"
    assert run(arguments("layers", checkpoint, readable, output, "--clips", "4", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["analysis"] == "layers"
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


def test_unreadable_videos_are_listed_and_the_exit_code_says_so(checkpoint, class_folders, tmp_path, capsys) -> None:
    assert run(arguments("layers", checkpoint, class_folders, tmp_path / "out", "--clips", "12")) == 2
    assert "2 of 12 videos could not be read" in capsys.readouterr().err
    assert content_of(tmp_path / "out", "layers")["conditions"]["unreadable"] == 2


def test_earlier_results_are_not_lost(checkpoint, readable, tmp_path, capsys) -> None:
    command = arguments("layers", checkpoint, readable, tmp_path, "--clips", "2")
    (tmp_path / "layers.json").write_text("{}")
    assert run(command) == 2
    assert "already has a layers.json: replace it with --overwrite" in capsys.readouterr().err
    assert (tmp_path / "layers.json").read_text() == "{}"
    assert run([*command, "--overwrite"]) == 0
    content_of(tmp_path, "layers")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["accuracy"], "MODEL must be given, or --evaluation"),
        (["accuracy", "videomae-moving-digits"], "--dataset must be given, or --evaluation"),
        (["layers", "videomae-moving-digits"], "--dataset must be given"),
        (["accuracy", "--evaluation", "nowhere"], "--evaluation: nowhere is not the output folder of a finished"),
        (["accuracy", "--evaluation", "nowhere", "--dtype", "float16"], "--dtype and --evaluation exclude each other"),
        (["accuracy", "--evaluation", "nowhere", "--rounds", "3"], "--rounds needs MODEL"),
        (["accuracy", "--evaluation", "nowhere", "--benchmark", "x"], "--benchmark needs MODEL"),
        (["accuracy", *DIGITS, "--benchmark", "x", "--rounds", "3"], "--benchmark and --rounds exclude each other"),
        (["accuracy", "--evaluation", "nowhere", "--r", "3"], "--evaluation has its own settings"),
        (["confusion", "--evaluation", "nowhere", "--mode", "drop"], "choose two of them with --before and --after"),
        (
            ["confusion", "videomae-moving-digits", "--dataset", "x", "--before", "1"],
            "--before and --after have no effect without --evaluation",
        ),
        (["confusion", "--evaluation", "nowhere", "--select", "last"], "--select must be one of first, changed"),
        (["splice", "videomae-moving-digits", "--dataset", "x", "--region", "middle"], "--region must be one of"),
        (["splice", "videomae-moving-digits", "--dataset", "x"], "--dataset"),
        (
            ["layers", "resnet!", "--dataset", "moving-digits"],
            "MODEL resnet!: no such folder; a checkpoint is",
        ),
        (["layers", *DIGITS, "--mode", "melt"], "--mode must be one of"),
        (["layers", *DIGITS, "--threshold", "3"], "--threshold must be a cosine similarity in [-1, 1]"),
        (["confusion", *DIGITS, "--schedule", "rising"], "--schedule must be one of"),
        (["accuracy", *DIGITS, "--schedule", "rising"], "--schedule must be one of"),
        (["accuracy", *DIGITS, "--mode", "merge", "--mode", "melt"], "--mode must be one of"),
        (["accuracy", *DIGITS, "--r", "-3"], "--r must be an int >= 0, a share"),
        (["accuracy", *DIGITS, "--r", "8,8"], "--r must be a number or a share here"),
        (["accuracy", *DIGITS, "--r", "0"], "--r must be more than 0 at least once"),
        (["splice", *DIGITS, "--share", "2"], "--share must be between 0 and 1, both excluded, got 2"),
        (["splice", *DIGITS, "--share", "0"], "--share must be between 0 and 1, both excluded, got 0"),
        (["splice", *DIGITS, "--per-class", "1"], "--per-class"),
        (["layers", *DIGITS, "--clips", "0"], "--clips"),
        (["layers", *DIGITS, "--device", "abacus"], "--device must be a device of this machine"),
        (["layers", *DIGITS, "--data-dir", "."], "--data-dir . has no effect with --dataset moving-digits"),
        (["layers", DIGITS[0], "--dataset", "kinetics400"], "--data-dir must be given with --dataset kinetics400"),
        (["layers", DIGITS[0], "--dataset", "ssv2", "--data-dir", "nowhere"], "--data-dir nowhere: no such folder"),
        (["confusion", *DIGITS, "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
        (["confusion", "--evaluation", "nowhere", "--limit", "3"], "--limit and --evaluation exclude each other"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_loaded_or_made(
    words, message, tmp_path, monkeypatch, capsys
) -> None:
    for module in ("evaluation", "analyze.inputs"):
        monkeypatch.setattr(
            f"hf_video_tome.cli.{module}.load_classifier", lambda *_: pytest.fail("a model was loaded")
        )
    monkeypatch.chdir(tmp_path)
    assert run(["analyze", *words]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("accuracy", ["--r", "40"], "--r must be at most 32"),
        ("accuracy", ["--benchmark", "nowhere"], "--benchmark: No such file or directory: nowhere"),
        ("accuracy", ["--scope", "frame", "--mode", "hybrid"], "--threshold must be a cosine similarity"),
        (
            "accuracy",
            ["--position", "centroid"],
            "--position must be left out for videomae (only vjepa2 supports it)",
        ),
        ("confusion", ["--r", "0"], "--r must be more than 0"),
        ("confusion", ["--task", "verb"], "--task must be one of label, got 'verb'"),
        ("confusion", ["--split", "weekend"], "weekend"),
        ("layers", ["--r", "0"], "--r must be more than 0"),
        ("layers", ["--strategy", "uniform", "--sampling-rate", "2"], "--sampling-rate"),
        ("splice", ["--share", "0.001"], "--share must leave tubelets of both clips"),
        ("splice", ["--region", "time", "--scope", "frame"], "--region must be another with --scope 'frame'"),
    ],
)
def test_what_does_not_go_with_the_model_is_said_before_a_clip_is_read(
    checkpoint, readable, tmp_path, monkeypatch, capsys, kind, options, message
) -> None:
    for function in ("evaluation.evaluate", "analysis.load_clips"):
        monkeypatch.setattr(f"hf_video_tome.{function}", lambda *_, **__: pytest.fail("clips were read"))
    assert run(arguments(kind, checkpoint, readable, tmp_path / "out", *options)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_what_an_evaluation_does_not_have_is_said_before_anything_is_made(
    checkpoint, readable, tmp_path, capsys
) -> None:
    folder = tmp_path / "evaluation"
    evaluate = ["evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(readable)]
    assert run([*evaluate, "--split", "test", "--workers", "0", "--output", str(folder), "--r", "0"]) == 0
    for kind, options, message in (
        ("accuracy", [], "results must have settings that merge tokens, got r = 0 only"),
        ("confusion", [], "--before and --after must be two of the settings 0 to 0"),
    ):
        command = ["analyze", kind, "--evaluation", str(folder), "--output", str(tmp_path / "out"), *options]
        assert run(command) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["accuracy", "confusion"])
def test_a_split_without_labels_is_refused_before_it_is_evaluated(
    checkpoint, readable, tmp_path, monkeypatch, capsys, kind
) -> None:
    data = tmp_path / "k400"
    (data / "test").mkdir(parents=True)
    (data / "test.csv").write_text("youtube_id,time_start,time_end,split\n00000000000,0,10,test\n")
    (data / "test" / "00000000000_000000_000010.mp4").symlink_to(next(readable.glob("test/*/*.mp4")))
    monkeypatch.setattr("hf_video_tome.evaluation.evaluate", lambda *_, **__: pytest.fail("an evaluation ran"))
    command = ["analyze", kind, str(checkpoint), "--dataset", "kinetics400", "--data-dir", str(data)]
    assert run([*command, "--split", "test", "--r", "8", "--output", str(tmp_path / "out")]) == 2
    assert "--dataset kinetics400: the labels of its test split are unknown" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_splicing_says_what_to_do_where_no_class_has_two_clips(tmp_path, capsys) -> None:
    command = ["analyze", "splice", *DIGITS, "--data-option", "num_test=24", "--output", str(tmp_path / "out")]
    assert run(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "splicing needs two clips of a class: take more videos" in error
    assert "--data-option num_test=240" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["accuracy", "confusion", "layers", "splice"])
def test_an_output_that_cannot_be_written_to_is_refused_before_anything_is_loaded(
    kind, tmp_path, monkeypatch, capsys
) -> None:
    for module in ("evaluation", "analyze.inputs"):
        monkeypatch.setattr(
            f"hf_video_tome.cli.{module}.load_classifier", lambda *_: pytest.fail("a model was loaded")
        )
    (tmp_path / "clip.mp4").touch()
    assert run(["analyze", kind, *DIGITS, "--output", str(tmp_path / "clip.mp4" / "x")]) == 2
    assert f"--output {tmp_path / 'clip.mp4' / 'x'}: Not a directory" in capsys.readouterr().err


def test_the_input_is_looked_at_before_earlier_results(tmp_path, capsys) -> None:
    (tmp_path / "layers.json").write_text("{}")
    command = ["analyze", "layers", DIGITS[0], "--output", str(tmp_path), "--dataset"]
    assert run([*command, "imagenet"]) == 2
    assert "--dataset: name must be one of" in capsys.readouterr().err
    assert run([*command, "moving-digits"]) == 2
    assert "already has a layers.json" in capsys.readouterr().err


def test_names_of_another_model_are_refused(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    assert run(arguments("confusion", checkpoint, readable, output, "--r", "8")) == 0
    other = save_checkpoint(tmp_path / "other", id2label=dict(enumerate("abcde")))
    command = ["analyze", "confusion", str(other), "--evaluation", str(output / "evaluation")]
    assert run([*command, "-o", str(tmp_path / "new")]) == 2
    assert f"MODEL {other}: the evaluation of" in (error := capsys.readouterr().err)
    assert "is of a model whose outputs have other names" in error


def test_accuracy_and_speed_are_of_one_model(checkpoint, readable, tmp_path, monkeypatch, capsys) -> None:
    """Neither another checkpoint nor the benchmark of another architecture or size goes with an evaluation."""
    evaluation, output = tmp_path / "evaluation", tmp_path / "out"
    settings = ["--r", "0", "--r", "4"]
    data = ["--dataset", "class-folders", "--data-dir", str(readable), "--split", "test", "--workers", "0"]
    assert run(["evaluate", str(checkpoint), *data, *settings, "--output", str(evaluation)]) == 0
    narrow = save_checkpoint(tmp_path / "narrow", hidden_size=16)
    for name, model in (("narrow", narrow), ("own", checkpoint)):
        command = ["benchmark", str(model), *settings, "--rounds", "2", "--warmup", "0", "--device", "cpu"]
        assert run([*command, "--no-memory", "--output", str(tmp_path / f"{name}-speed")]) == 0
    capsys.readouterr()

    def accuracy(model: Path, *options: str) -> int:
        command = ["analyze", "accuracy", str(model), "--evaluation", str(evaluation), "--output", str(output)]
        return run([*command, "--device", "cpu", *options])

    for model, options, message in (
        (narrow, ["--rounds", "1"], f"MODEL {narrow}: the evaluation of"),
        (narrow, ["--rounds", "0"], "is of other weights"),
        (narrow, ["--benchmark", str(tmp_path / "narrow-speed")], "is of other weights"),
        (checkpoint, ["--benchmark", str(tmp_path / "narrow-speed")], "hidden_size=16, while this one has 24"),
    ):
        assert accuracy(model, *options) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not output.exists()
    own = tmp_path / "own-speed"
    assert accuracy(checkpoint, "--benchmark", str(own)) == 0
    measured = json.loads((own / "results.json").read_text())["results"][-1]
    points = content_of(output, "accuracy")["points"]
    assert [point["speed_up"] for point in points] == [1, measured["speedup"]["stock_sdpa"]["median"]]
    # Other settings in the checkpoint do not change what was evaluated, nor what is timed.
    saved = tmp_path / "saved"
    assert run(["save", str(checkpoint), str(saved), "--r", "8", "--mode", "drop"]) == 0
    timed = []

    def measure(model, settings, **_) -> list[float]:
        timed.extend((model.config.token_merging_r, setting["r"], setting["mode"]) for setting in settings)
        return [1.0] * len(settings)

    monkeypatch.setattr("hf_video_tome.analysis.speed.measure_speed_ups", measure)
    assert accuracy(saved, "--rounds", "1", "--overwrite") == 0
    assert timed == [(8, 0, "merge"), (8, 4, "merge")]
    assert run([*arguments("accuracy", checkpoint, readable, output, "--r", "4"), "--schedule", "constant",
                "--overwrite", "--benchmark", str(tmp_path / "narrow-speed")]) == 2  # fmt: skip
    assert f"--benchmark {tmp_path / 'narrow-speed'}: the benchmark is of a model" in capsys.readouterr().err


def test_results_that_are_damaged_or_of_unknown_settings_are_refused(checkpoint, readable, tmp_path, capsys) -> None:
    evaluation, output = tmp_path / "evaluation", tmp_path / "out"
    data = ["--dataset", "class-folders", "--data-dir", str(readable), "--split", "test", "--workers", "0"]
    assert run(["evaluate", str(checkpoint), *data, "--r", "0", "--r", "4", "--output", str(evaluation)]) == 0
    path = evaluation / "results.json"
    sound = path.read_text()

    def refused(words: list[str], change: Callable[[dict[str, Any]], object], message: str) -> None:
        content = json.loads(sound)
        change(content)
        path.write_text(json.dumps(content))
        options = ["--evaluation", str(evaluation), *(["--output", str(output)] if words[0] == "analyze" else [])]
        assert run([*words, *options]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"error: {message}"
        assert not output.exists()

    accuracy = ["analyze", "accuracy", str(checkpoint), "--device", "cpu"]
    where = f"--evaluation {evaluation}: settings[1]: "
    modes = ", ".join(map(repr, sorted(MODES)))
    for field, value, message in (
        ("mode", "mine", f"token_merging_mode must be one of {modes}, got 'mine'"),
        ("newest", 3, "token_merging_newest is not a setting of any architecture"),
    ):
        refused(accuracy, lambda c, f=field, v=value: c["settings"][1]["resolved"].update({f: v}), where + message)
    for words in (accuracy, ["analyze", "confusion"], ["card", str(checkpoint)]):
        damaged = f"--evaluation: {path} is damaged: "
        refused(
            words, lambda c: c["settings"][1].pop("tasks"), damaged + "settings[1].tasks must be an object, got null"
        )
        refused(words, lambda c: c["run"].update(dtype=7), damaged + "run.dtype must be a string, got 7")
        refused(words, lambda c: c.update(settings=[]), damaged + "settings must be a list, got []")
    # Without MODEL nothing is timed, and a mode that is registered elsewhere is drawn as it is called.
    content = json.loads(sound)
    content["settings"][1]["resolved"]["mode"] = "mine"
    path.write_text(json.dumps(content))
    assert run(["analyze", "accuracy", "--evaluation", str(evaluation), "--output", str(output)]) == 0
    assert content_of(output, "accuracy")["points"][-1]["mode"] == "mine"


def test_without_matplotlib_it_says_what_to_install(monkeypatch, capsys) -> None:
    monkeypatch.setattr("hf_video_tome.cli.common.find_spec", lambda module: None)
    assert run(["analyze", "layers", "videomae-moving-digits", "--dataset", "moving-digits"]) == 2
    assert 'pip install "hf-video-tome[viz]"' in capsys.readouterr().err


def test_no_analysis_named_prints_help(capsys) -> None:
    assert run(["analyze"]) == 2
    text = capsys.readouterr().out
    for kind in ("accuracy", "confusion", "layers", "splice"):
        assert kind in text
