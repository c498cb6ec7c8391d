"""`hf-video-tome evaluate` and `hf-video-tome paper` through their entry point."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import TimesformerConfig, TimesformerForVideoClassification

from hf_video_tome.cli import run
from hf_video_tome.describe import distinct_names, setting_name
from hf_video_tome.evaluation.paper import PUBLISHED, paper_table_settings, published_top_1

from ..classified_videos import FRAMES, NAMES, PROCESSOR, SIZE, save_checkpoint


def arguments(model: Path, data: Path, *more: str) -> list[str]:
    chosen = {"--dataset": "class-folders", "--data-dir": str(data), "--split": "test"}
    return [
        "evaluate",
        str(model),
        *(word for option in chosen.items() if option[0] not in more for word in option),
        *more,
    ]


def test_several_r_are_compared_in_one_table(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    options = ("--r", "0", "--r", "8", "--r", "8,8,0,0", "--workers", "0", "--output", str(output))
    assert run(arguments(checkpoint, readable, *options)) == 0
    text = capsys.readouterr().out
    for piece in ("r = 0", "r = 8", "64 → 32", "64 → 48", "10 of 10 videos", "Waited for data", "matched by name"):
        assert piece in text
    assert str(output) in text
    results = json.loads((output / "results.json").read_text())
    assert [setting["changes"]["r"] for setting in results["settings"]] == [0, 8, [8, 8, 0, 0]]
    assert results["run"]["dataset"] == "class-folders"
    assert results["run"]["split"] == "test"


def test_classes_are_matched_by_name(checkpoint, readable, tmp_path) -> None:
    output = tmp_path / "out"
    assert run(arguments(checkpoint, readable, "--workers", "0", "--output", str(output))) == 0
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    folders = {NAMES[row["label"]].replace(" ", "_") for row in rows}
    assert folders == {folder.name for folder in (readable / "test").iterdir()}
    for row in rows:
        assert NAMES[row["label"]].replace(" ", "_") in row["video_id"]


def test_classes_that_the_model_does_not_know_are_bad_input(checkpoint, readable, capsys) -> None:
    (readable / "test" / "running").rename(readable / "test" / "flying")
    assert run(arguments(checkpoint, readable)) == 2
    assert "'flying'" in capsys.readouterr().err
    assert run(arguments(checkpoint, readable, "--labels", "number", "--workers", "0", "-o", str(readable / "o"))) == 0


@pytest.mark.parametrize("folder", ["{}", "LABEL_{}", "{:02d}"])
def test_numbers_of_classes_are_those_of_the_outputs(readable, tmp_path, folder: str) -> None:
    """Sorted as strings, folder 10 comes before folder 2."""
    names = {index: f"LABEL_{index}" for index in range(12)}
    checkpoint = save_checkpoint(tmp_path / "numbered", id2label=names)
    clip = next(readable.glob("test/*/*.mp4"))
    for number in (1, 2, 10, 11):
        (tmp_path / "videos" / folder.format(number)).mkdir(parents=True)
        (tmp_path / "videos" / folder.format(number) / f"{number}.mp4").symlink_to(clip)
    command = ["evaluate", checkpoint, "--dataset", "class-folders", "--data-dir", tmp_path / "videos"]
    output = tmp_path / "out"
    assert run([*map(str, command), "--workers", "0", "--output", str(output)]) == 0
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert {row["video_id"]: row["label"] for row in rows} == {
        f"{folder.format(number)}/{number}.mp4": number for number in (1, 2, 10, 11)
    }


def test_the_place_of_a_folder_has_to_be_confirmed(readable, tmp_path, capsys) -> None:
    checkpoint = save_checkpoint(tmp_path / "unnamed", id2label={index: f"LABEL_{index}" for index in range(5)})
    assert len(list((readable / "test").iterdir())) == 5
    options = ("--workers", "0", "-o", str(tmp_path / "out"))
    assert run(arguments(checkpoint, readable, *options)) == 2
    assert "--labels number" in capsys.readouterr().err
    assert run(arguments(checkpoint, readable, "--labels", "number", *options)) == 0


def test_unreadable_videos_are_listed_and_the_exit_code_says_so(checkpoint, class_folders, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    assert run(arguments(checkpoint, class_folders, "--workers", "0", "--output", str(output))) == 2
    captured = capsys.readouterr()
    assert "2 could not be read" in captured.out
    assert "clip_07" in captured.err
    assert "clip_08" in captured.err
    assert "error: 2 of 12 videos could not be read and are not counted" in captured.err
    assert len(json.loads((output / "results.json").read_text())["failures"]) == 2


def test_json_is_one_object_on_stdout(checkpoint, readable, tmp_path, capsys) -> None:
    options = ("--r", "0.1", "--json", "--workers", "0", "--output", str(tmp_path / "out"))
    assert run(arguments(checkpoint, readable, *options)) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["num_videos"] == 10
    assert content["settings"][0]["changes"] == {"r": 0.1}
    assert content["output"] == str(tmp_path / "out")
    assert content["timing"]["clips_per_second"][0] > 0


def test_two_tasks_have_a_line_each(readable, tmp_path, capsys) -> None:
    checkpoint = save_checkpoint(tmp_path / "two", label_groups={"verb": [0, 2], "noun": [2, 5]})
    epic = tmp_path / "epic"
    (epic / "P01" / "videos").mkdir(parents=True)
    (epic / "P01" / "videos" / "P01_01.MP4").symlink_to(next(readable.glob("test/*/*.mp4")))
    names = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"]
    header = ",".join([*names, "start_frame", "stop_frame", "verb_class", "noun_class"])
    lines = [f"P01_01_{n},P01,P01_01,00:00:00.{n}0,00:00:01.50,{1 + n},90,{n % 2},{n % 3}" for n in range(4)]
    (epic / "EPIC_100_validation.csv").write_text("\n".join([header, *lines]) + "\n")
    command = [
        "evaluate",
        str(checkpoint),
        "--dataset",
        "epic-kitchens-100",
        "--data-dir",
        str(epic),
        "--workers",
        "0",
    ]
    assert run([*command, "-r", "0", "-r", "8", "--labels", "number", "-o", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out.splitlines()
    head = next(number for number, line in enumerate(text) if line.startswith("settings") and "NLL" in line)
    table = text[head : head + 7]
    lines = [line.split() for line in table]
    assert [line[:2] for line in lines if "action" in line[:1]] != []
    for task in ("verb", "noun", "action"):
        assert sum(task in line for line in lines) == 2
    rates = json.loads((tmp_path / "out" / "timing.json").read_text())["clips_per_second"]
    assert [lines[3][-1], lines[6][-1]] == [f"{rate:.1f}" for rate in rates]
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["settings"][1]["tasks"]) == ["verb", "noun", "action"]


def test_settings_come_from_a_file_as_well(checkpoint, readable, tmp_path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps([{"r": 0}, {"r": 8, "mode": "hybrid", "threshold": 0.3}]))
    output = tmp_path / "out"
    options = ("--settings", str(path), "--workers", "0", "-o", str(output))
    assert run(arguments(checkpoint, readable, *options)) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["settings"][1]["resolved"]["threshold"] == 0.3


def test_the_paper_preset_runs_all_lines_of_its_table(checkpoint, readable, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    assert run(arguments(checkpoint, readable, "--preset", "paper", "--workers", "0", "-o", str(output))) == 0
    results = json.loads((output / "results.json").read_text())
    lines = [(setting["changes"]["mode"], setting["changes"]["r"]) for setting in results["settings"]]
    assert lines == [
        ("merge", 0),
        ("random_drop", 150),
        ("drop", 150),
        ("random_merge", 150),
        ("merge", 150),
        ("hybrid", 150),
    ]
    assert {setting["resolved"]["pooling"] for setting in results["settings"]} == {"mean"}
    assert {setting["resolved"]["proportional_attention"] for setting in results["settings"]} == {False}


def test_a_limit_is_spread_over_the_data_set(checkpoint, readable, tmp_path) -> None:
    output = tmp_path / "out"
    assert run(arguments(checkpoint, readable, "--limit", "5", "--workers", "0", "-o", str(output))) == 0
    rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert len({row["label"] for row in rows}) > 2


def test_an_interrupted_evaluation_says_how_to_go_on(checkpoint, readable, tmp_path, capsys) -> None:
    options = ("--workers", "0", "--output", str(tmp_path / "out"))
    assert run(arguments(checkpoint, readable, *options)) == 0
    assert run(arguments(checkpoint, readable, *options)) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(arguments(checkpoint, readable, *options, "--resume")) == 0
    assert run(arguments(checkpoint, readable, *options, "--resume", "--r", "4")) == 2
    assert "cannot be resumed: its settings" in capsys.readouterr().err
    assert run(arguments(checkpoint, readable, *options, "--overwrite", "--r", "4")) == 0


def test_a_finished_evaluation_without_its_times_is_printed(checkpoint, readable, tmp_path, capsys) -> None:
    options = ("--workers", "0", "--output", str(tmp_path / "out"))
    assert run(arguments(checkpoint, readable, *options)) == 0
    for damage in (Path.unlink, lambda path: path.write_text("{}")):
        damage(tmp_path / "out" / "timing.json")
        for _ in range(2):
            assert run(arguments(checkpoint, readable, *options, "--resume")) == 0
            assert "10 of 10 videos counted" in capsys.readouterr().out


def test_an_output_folder_that_is_removed_is_said_at_once(checkpoint, readable, tmp_path, monkeypatch, capsys) -> None:
    from hf_video_tome.evaluation import loop

    class Removing(loop.EvaluationTimer):
        def measured(self) -> dict[str, Any]:
            shutil.rmtree(tmp_path / "out")  # when all videos are through
            return super().measured()

    monkeypatch.setattr("hf_video_tome.evaluation.runner.EvaluationTimer", Removing)
    output = str(tmp_path / "out")
    assert run(arguments(checkpoint, readable, "--workers", "0", "--output", output)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"error: --output {output}: it was removed while the evaluation was writing to it, with its predictions"
    )


def test_a_damaged_journal_is_one_line(checkpoint, readable, tmp_path, capsys) -> None:
    (tmp_path / "out").mkdir()
    options = ("--workers", "0", "--output", str(tmp_path / "out"))
    assert run(arguments(checkpoint, readable, *options)) == 0
    (tmp_path / "out" / "journal-00000.jsonl").write_text('["00000000", {"position": 0}]\n')
    assert run(arguments(checkpoint, readable, *options, "--resume")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "journal-00000.jsonl: line 1 is damaged (its checksum does not match): restore" in error
    (tmp_path / "out" / "run.json").write_text("[")
    assert run(arguments(checkpoint, readable, *options, "--resume")) == 2
    assert "run.json is damaged: " in capsys.readouterr().err.splitlines()[-1]


def test_moving_digits_is_made_on_demand(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    command = ["evaluate", "videomae-moving-digits", "--dataset", "moving-digits", "--data-option", "num_test=24"]
    assert run([*command, "--r", "0", "--r", "38", "--workers", "1"]) == 0
    assert "288 → 60" in capsys.readouterr().out
    folder = tmp_path / "evaluations" / "videomae-moving-digits-moving-digits-test"
    results = json.loads((folder / "results.json").read_text())
    assert results["settings"][0]["tasks"]["label"]["top_1"]["value"] > 0.75
    assert results["run"]["sampling"] == {
        "num_frames": 16,
        "sampling_rate": 1,
        "strategy": "start",
        "num_clips": 1,
        "num_crops": 1,
        "target_fps": None,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--r", "many"], "--r must be an int >= 0"),
        (["--r", "0", "--preset", "paper"], "--r and --preset exclude each other"),
        (["--mode", "drop", "--preset", "paper"], "--mode and --preset exclude each other"),
        (["--mode", "melt"], "--mode"),
        (["--strategy", "center", "--target-fps", "-1"], "--target-fps must be"),
        (["--strategy", "start", "--num-clips", "2"], "--num-clips must be 1"),
        (["--num-crops", "2"], "--num-crops must be 1 or 3"),
        (["--data-option", "num"], "--data-option must be NAME=VALUE"),
        (["--data-option", "colour=red"], "colour is not an option"),
        (["--data-dir", "nowhere"], "nowhere"),
        (["--split", "weekend"], "weekend"),
        (["--split", "train"], "train"),
        (["--split", "test[:5]"], "use --limit for a part of it"),
        (["--data-option", "streaming=1"], "rows are always streamed here"),
        (["--data-option", "split=val"], "--split"),
        (["--output", "clip.mp4/x"], "--output clip.mp4/x: "),
        (["--dataset", "imagenet"], "--dataset: name must be one of kinetics400"),
        (["--settings", "nowhere.json"], "nowhere.json"),
        (["--settings", "unknown.json"], "--settings unknown.json: token_merging_speed is not a setting of videomae"),
        (["--settings", "wrong.json"], "--settings wrong.json: token_merging_r must be an int >= 0"),
        (["--reference", "nowhere"], "nowhere is not the output folder of a finished evaluation"),
        (["--retry-failed"], "--retry-failed has no effect without --resume"),
        (["--device", "abacus"], "--device must be a device of this machine"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    checkpoint, readable, tmp_path, monkeypatch, capsys, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "unknown.json").write_text('[{"speed": 2}]')
    (tmp_path / "wrong.json").write_text('[{"token_merging_r": -1}]')
    assert run(arguments(checkpoint, readable, "--workers", "0", *options)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "evaluations").exists()


def test_a_dataset_is_needed(checkpoint, capsys) -> None:
    assert run(["evaluate", str(checkpoint)]) == 2
    assert "--dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "as saved"),
        ({"r": 150, "mode": "drop"}, "r = 150, drop"),
        (
            {"r": [8, 4], "threshold": 0.5, "proportional_attention": False},
            "r = 8,4, threshold 0.5, no proportional attention",
        ),
    ],
)
def test_settings_have_short_names(changes: dict[str, Any], name: str) -> None:
    assert setting_name(changes) == name


def test_names_say_only_in_what_settings_differ() -> None:
    assert distinct_names([{"r": 0, "scope": "frame"}, {"r": 8, "scope": "frame"}]) == ["r = 0", "r = 8"]
    names = distinct_names(paper_table_settings("vivit"))
    assert names[:3] == ["r = 0", "r = 300, random_drop", "r = 300, drop"]
    assert len(set(names)) == 6


# --- the paper's table
def kinetics(folder: Path, readable: Path) -> Path:
    """The readable videos as Kinetics-400's validation split."""
    lines = ["label,youtube_id,time_start,time_end,split"]
    (folder / "val").mkdir(parents=True)
    for number, source in enumerate(sorted(readable.glob("test/*/*.mp4"))):
        identifier = f"{number:011d}"
        lines.append(f"{source.parent.name.replace('_', ' ')},{identifier},{number},{number + 10},val")
        (folder / "val" / f"{identifier}_{number:06d}_{number + 10:06d}.mp4").symlink_to(source)
    (folder / "val.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_the_paper_command_shows_measured_beside_published(checkpoint, readable, tmp_path, capsys) -> None:
    data = kinetics(tmp_path / "k400", readable)
    command = ["paper", "--kinetics400", str(data), "--checkpoint", f"kinetics400={checkpoint}", "--workers", "0"]
    assert run([*command, "--output", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "62.09" in text  # published, unmerged
    assert "56.53" in text  # published, hybrid
    assert run([*command, "--output", str(tmp_path / "out"), "--resume", "--json"]) == 0
    (evaluation,) = json.loads(capsys.readouterr().out)["evaluations"]
    assert len(evaluation["settings"]) == 6
    assert evaluation["run"]["sampling"]["sampling_rate"] == 1 * 16 // FRAMES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the folder of at least one dataset: --kinetics400"),
        (["--checkpoint", "kinetics400=x"], "--kinetics400 is not given"),
        (["--checkpoint", "imagenet=x"], "--checkpoint must be DATASET=MODEL"),
        (["--epic-kitchens-100", "."], "the Hub has no checkpoint for it"),
        (["--kinetics400", ".", "--checkpoint", "kinetics400=./nowhere"], "./nowhere"),
        (["--kinetics400", "nowhere", "--checkpoint", "kinetics400=videomae-moving-digits"], "--kinetics400: "),
        (["--kinetics400", ".", *["--checkpoint", "kinetics400=videomae-moving-digits"] * 2], "two evaluations"),
        (
            ["--kinetics400", ".", "--architecture", "resnet"],
            "--architecture must be one of timesformer, videomae, vivit",
        ),
    ],
)
def test_what_the_paper_command_cannot_do_is_bad_input(options: list[str], message: str, capsys) -> None:
    assert run(["paper", *options]) == 2
    assert message in capsys.readouterr().err


def test_published_numbers_are_found_by_mode() -> None:
    for model_type, lines in PUBLISHED.items():
        settings = paper_table_settings(model_type)
        assert [("none" if not line["r"] else line["mode"]) for line in settings] == list(lines)
    unmerged = {"r": 0, "mode": "merge"}
    assert published_top_1("videomae", "kinetics400", unmerged) == {"label": 0.6209}
    assert published_top_1("videomae", "epic-kitchens-100", unmerged) == {
        "action": 0.357,
        "verb": 0.6149,
        "noun": 0.4689,
    }
    assert published_top_1("timesformer", "kinetics400", {"r": 18, "mode": "merge"}) == {}
    assert published_top_1("vivit", "class-folders", unmerged) == {}


def test_the_paper_preset_matches_frames_of_divided_models_alone(readable, tmp_path) -> None:
    folder = tmp_path / "timesformer"
    TimesformerForVideoClassification(
        TimesformerConfig(
            image_size=SIZE,
            num_frames=FRAMES,
            patch_size=8,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            id2label=dict(enumerate(NAMES)),
        )
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    output = tmp_path / "out"
    assert run(arguments(folder, readable, "--preset", "paper", "--workers", "0", "-o", str(output))) == 0
    results = json.loads((output / "results.json").read_text())
    assert [setting["resolved"]["scope"] for setting in results["settings"]] == ["frame"] * 5
