"""`hf-video-tome calibrate` through its entry point, on real video files without labels."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.cli import run

from ..classified_videos import SIZE, save_checkpoint


def calibrate(*words: object) -> int:
    return run(["calibrate", *map(str, words)])


def test_thresholds_are_found_printed_and_saved(checkpoint, videos, tmp_path, capsys) -> None:
    saved = tmp_path / "saved"
    assert calibrate(checkpoint, "--videos", videos, "--r", "6", "--save", saved, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["num_clips"], result["unreadable"]) == (10, 0)
    assert result["settings"]["mode"] == "dymu"
    assert result["token_counts"] == [64, 58, 52, 46, 40]
    assert result["speedup"] > 1
    model = AutoModelForVideoClassification.from_pretrained(saved)
    assert model.config.token_merging_thresholds == result["settings"]["thresholds"]
    assert model.config.token_merging_settings(resolved=True) == result["token_merging"]
    with torch.no_grad():
        assert model(torch.zeros(1, 8, 3, SIZE, SIZE)).logits.isfinite().all()


def test_a_list_is_found_that_other_commands_take(checkpoint, videos, capsys) -> None:
    assert calibrate(checkpoint, "--videos", videos, "--speedup", "1.3", "--scope", "tube") == 0
    captured = capsys.readouterr()
    text = captured.out
    assert "10 of --videos" in text
    assert "scope tube" in text
    assert "calibrating on 10 clips for 1.3 times fewer MACs" in captured.err
    options = text.splitlines()[-1].removeprefix("options: ").split()
    assert options[:2] == ["--mode", "merge"]
    clip = next(videos.glob("*.mp4"))
    assert run(["classify", str(clip), "--model", str(checkpoint), "--scope", "tube", "--json", *options]) == 0
    classified = json.loads(capsys.readouterr().out)
    model = AutoModelForVideoClassification.from_pretrained(checkpoint)
    model.set_token_merging(**classified["token_merging"])
    macs = hf_video_tome.mac_count(model, r=0).total / hf_video_tome.mac_count(model).total
    assert macs >= 1.3
    assert f"{macs:.2f} times fewer" in text


def test_labels_of_a_dataset_are_not_read(readable, tmp_path, capsys) -> None:
    """Its classes are not those of the model."""
    other = save_checkpoint(tmp_path / "other", id2label={0: "flying", 1: "swimming"})
    words = "--dataset", "class-folders", "--data-dir", readable, "--split", "test", "--clips", 4, "--r", "0.1"
    assert calibrate(other, *words, "--adaptive") == 2
    assert "--adaptive has no effect with --r" in capsys.readouterr().err
    assert calibrate(other, *words, "--json") == 0
    assert json.loads(capsys.readouterr().out)["num_clips"] == 4


def test_unreadable_videos_are_named_and_left_out(checkpoint, videos, capsys) -> None:
    (videos / "broken.mp4").write_text("not a video")
    assert calibrate(checkpoint, "--videos", videos, "--r", "6", "--json") == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out)["unreadable"] == 1
    assert "error: broken.mp4" in captured.err
    assert "1 of 11 videos could not be read" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "either --videos or --dataset must be given"),
        (("--videos", "VIDEOS", "--dataset", "moving-digits"), "either --videos or --dataset must be given"),
        (("--videos", "missing"), "--videos missing: no such folder"),
        (("--videos", "EMPTY"), "no video file in it or its subfolders"),
        (("--videos", "VIDEOS", "--split", "train"), "--split has no effect with --videos"),
        (("--videos", "VIDEOS", "--r", "3", "--speedup", "2"), "--r and --speedup exclude each other"),
        (("--videos", "VIDEOS", "--schedule", "decreasing"), "--schedule has no effect without --r"),
        (("--videos", "VIDEOS", "--overwrite"), "--overwrite has no effect without --save"),
        (("--videos", "VIDEOS", "--r", "0.7"), "--r must be"),
        (("--videos", "VIDEOS", "--r", "0"), "--r must be more than 0"),
        (("--videos", "VIDEOS", "--speedup", "99"), "--speedup must be a number above 1 and at most"),
        (("--videos", "VIDEOS", "--scope", "frame"), "--scope must be another"),
        (("--videos", "VIDEOS", "--save", "VIDEOS"), "already exists"),
    ],
)
def test_bad_input_is_one_line(checkpoint, videos, tmp_path, capsys, words, message) -> None:
    (tmp_path / "empty").mkdir()
    places = {"VIDEOS": videos, "EMPTY": tmp_path / "empty"}
    assert calibrate(checkpoint, *(places.get(word, word) for word in words)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    [error] = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert message in error
