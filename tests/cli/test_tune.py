"""`hf-video-tome tune` through its entry point, on real video files without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.cli import run

from ..classified_videos import save_checkpoint

QUICK = "--operations", 1.2, "--trials", 1, "--rounds", 0


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two layers that cost enough to save."""
    return save_checkpoint(tmp_path_factory.mktemp("small"), num_hidden_layers=2, intermediate_size=192)


def tune(*words: object) -> int:
    return run(["tune", *map(str, words)])


def test_settings_are_found_printed_drawn_and_saved(small, videos, tmp_path, capsys) -> None:
    output, saved = tmp_path / "output", tmp_path / "saved"
    assert tune(small, "--videos", videos, *QUICK, "--output", output, "--save", saved) == 0
    captured = capsys.readouterr()
    assert "10 of --videos" in captured.out
    assert "5 held back" in captured.out
    assert "goal     1.2 times fewer multiply-accumulates" in captured.out
    assert "searching" in captured.err
    assert "constant r" in captured.out
    assert "recommended" in captured.out
    result = json.loads((output / "results.json").read_text())
    settings = json.loads((output / "settings.json").read_text())
    assert settings == result["settings"]
    assert (result["conditions"]["num_clips"], result["unreadable"]) == (10, 0)
    assert [trial["name"] for trial in result["trials"]] == ["constant r", "decreasing r", "trial 0"]
    assert all(trial["divergence"]["value"] >= 0 for trial in result["trials"])
    with Image.open(output / "frontier.png") as picture:
        assert picture.width > 400
    model = AutoModelForVideoClassification.from_pretrained(saved)
    stock = AutoModelForVideoClassification.from_pretrained(small, token_merging_r=0)
    stock.set_token_merging(**settings)
    assert hf_video_tome.token_counts(model) == hf_video_tome.token_counts(stock)
    reached = hf_video_tome.mac_count(model, r=0).total / hf_video_tome.mac_count(model).total
    assert reached == pytest.approx(result["recommended"]["operations"])
    # the options that it prints are those of other commands
    [options] = [line for line in captured.out.splitlines() if line.startswith("options: ")]
    clip = next(videos.glob("*.mp4"))
    words = options.removeprefix("options: ").split()
    assert run(["classify", str(clip), "--model", str(small), "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["token_counts"] == hf_video_tome.token_counts(model)


def test_a_search_continues_in_its_folder_and_is_not_overwritten(small, videos, tmp_path, capsys) -> None:
    output = tmp_path / "output"
    words = small, "--videos", videos, *QUICK, "--output", output, "--json"
    assert tune(*words) == 0
    first = json.loads(capsys.readouterr().out)
    assert tune(*words) == 2
    assert "already has a results.json: replace it with --overwrite" in capsys.readouterr().err
    (output / "results.json").unlink()
    length = (output / "journal.jsonl").stat().st_size
    assert tune(*words) == 0
    captured = capsys.readouterr()
    assert f"note: continuing the search in {output}" in captured.err
    assert json.loads(captured.out) == first
    assert (output / "journal.jsonl").stat().st_size == length
    (output / "results.json").unlink()
    assert tune(*words, "--seed", 3) == 2
    assert "journal.jsonl: belongs to a search with seed 0, not 3" in capsys.readouterr().err


def test_speed_is_measured(small, videos, tmp_path, capsys) -> None:
    quick = "--operations", 1.2, "--trials", 0, "--rounds", 2
    assert tune(small, "--videos", videos, *quick, "--output", tmp_path / "output", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert all(it["speedup"] > 0 for it in result["finalists"])
    assert result["conditions"]["speed_batch_size"] == 1


def test_unreadable_videos_are_named_and_left_out(small, videos, tmp_path, capsys) -> None:
    (videos / "broken.mp4").write_text("not a video")
    assert tune(small, "--videos", videos, *QUICK, "--output", tmp_path / "output", "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["unreadable"] == 1
    assert "error: broken.mp4" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --videos or --dataset must be given"),
        (("--videos", "nowhere"), "--videos nowhere: no such folder"),
        (("--videos", "VIDEOS", "--clips", 3), "Invalid value for '--clips'"),
        (("--videos", "VIDEOS", "--operations", 0.5), "--operations must be a number above 1, got 0.5"),
        (("--videos", "VIDEOS", "--operations", 90), "--operations must be within reach, got 90"),
        (("--videos", "VIDEOS", "--speedup", 2), "--speedup and --operations exclude each other"),
        (
            ("--videos", "VIDEOS", "--operations", "NONE"),
            "one of --speedup, --operations and --agreement must be given",
        ),
        (("--videos", "VIDEOS", "--holdout", 2), "--holdout must be a number between 0 and 1, both excluded, got 2"),
        (("--videos", "VIDEOS", "--scope", "all"), "--scope must be one of"),
        (("--videos", "VIDEOS", "--save", "SMALL"), "already exists"),
        (("--videos", "VIDEOS", "--r", 8), "No such option"),
    ],
)
def test_bad_input_is_one_line(small, videos, tmp_path, capsys, words, message) -> None:
    named = {"VIDEOS": str(videos), "SMALL": str(small)}
    given = [named.get(str(word), str(word)) for word in words]
    goal = () if "--operations" in given else ("--operations", "1.2")
    if "NONE" in given:
        given, goal = given[:-2], ()
    assert tune(small, *given, *goal, "--trials", 0, "--rounds", 0, "--output", tmp_path / "output") == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (tmp_path / "output" / "results.json").exists()
