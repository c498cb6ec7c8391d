"""`hf-video-tome visualize`, through its entry point."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_video_tome.cli import run
from hf_video_tome.data.video.decoding import probe_video
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (20, 48, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", frames, fps=10)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture(
    architecture: str, video: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    entry.stock_head_class(entry.stock_config_class(**TINY_CONFIGS[architecture])).save_pretrained(workplace / "model")
    arguments = ["visualize", str(video), "--model", "model", "--r", "3", "--largest", "2", "--json"]
    assert run([*arguments, "--output", "tokens.gif"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["token_merging"]["r"] == 3
    assert content["token_counts"][-1] < content["token_counts"][0]
    assert content["prediction"].startswith("'LABEL_")
    assert len(content["tokens"]) >= 2
    assert content["output"] == "tokens.gif"
    with Image.open("tokens.gif") as image:
        assert image.n_frames == 4


def test_tubelets_that_the_input_stage_leaves_out_are_part_of_their_run(
    video: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["visualize", str(video), "--input", "run_length", "--input-keep", "100", "--r", "0", "--json"]
    assert run([*common, "--output", "tokens.png", "--frames", "2", "--largest", "3"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["token_counts"] == [100] * 7
    assert (content["token_merging"]["input"], content["token_merging"]["input_keep"]) == ("run_length", 100)
    assert sum(token["patches"] > 1 and token["frames"] > 2 for token in content["tokens"]) == 3


def test_the_shipped_checkpoint_without_any_option(
    video: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["visualize", str(video), "--r", "38"]) == 0
    captured = capsys.readouterr()
    assert "288 → 250 → 212 → 174 → 136 → 98 → 60" in captured.out
    name = f"{video.stem}-tokens.mp4"  # so that the films of several clips do not replace each other
    assert f"written: {name}" in captured.out
    info = probe_video(workplace / name)
    assert (info.num_frames, info.fps) == (16, 4)


def test_layers_sheets_and_folders_of_frames(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "frames").mkdir()
    for number in range(16):
        picture = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(picture).save(workplace / "frames" / f"frame_{number:04d}.png")
    common = ["visualize", "frames", "--model", "timesformer-moving-digits", "--r", "5"]
    assert run([*common, "--per-layer", "--frames", "2", "--fps", "2", "--output", "layers.mp4"]) == 0
    info = probe_video(workplace / "layers.mp4")
    content_layers = info.num_frames - 2
    assert run([*common, "--output", "tokens.png", "--frames", "3", "--fill", "distinct", "--json"]) == 0
    content = json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))
    assert content_layers == len(content["token_counts"])
    with Image.open("tokens.png") as image:
        assert image.width > image.height


def test_tokens_are_chosen_by_index_size_and_place(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["visualize", str(video), "--r", "38", "--output", "tokens.png", "--frames", "1", "--json"]
    assert run([*common, "--token", "4", "--token", "5", "--at", "3,20,20", "--largest", "1"]) == 0
    tokens = json.loads(capsys.readouterr().out)["tokens"]
    assert [entry["token"] for entry in tokens[:2]] == [4, 5]
    assert 3 <= len(tokens) <= 4
    assert max(entry["patches"] for entry in tokens) == tokens[2]["patches"]
    # Before the first layer, a place has its own token: slot 3 // 2, row and column of 8 pixels.
    assert run([*common, "--layer", "0", "--at", "3,20,12"]) == 0
    assert json.loads(capsys.readouterr().out)["tokens"] == [{"token": 36 + 6 + 2, "patches": 1, "frames": 2}]


def test_one_patch_is_not_called_patches(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(["visualize", str(video), "--output", "tokens.png", "--frames", "1", "--layer", "0", "--token", "7"]) == 0
    )
    assert "token 7: 1 patch, in 2 frames\n" in capsys.readouterr().out


def test_a_note_where_nothing_is_merged(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["visualize", str(video), "--r", "0", "--output", "tokens.png", "--frames", "1"]) == 0
    assert "note: no layer removes a token: give --r" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "tokens.jpg"], "--output must end in one of .mp4, .gif,"),
        (["--output", "nowhere/tokens.gif"], "--output nowhere/tokens.gif: no such folder: nowhere"),
        (["--at", "3,4"], "--at must be a frame, a column and a row such as 8,24,24, got '3,4'"),
        (["--at", "16,0,0"], "--at: the frame must be in 0 to 15"),
        (["--at", "0,48,0"], "--at: x must be in 0 to 47"),
        (["--token", "60"], "--token must be in 0 to 59, which hold patches of the clip"),
        (["--layer", "7"], "--layer must be 0 (before the first layer) to 6 (after the last), got 7"),
        (["--outline", "17", "--scale", "4"], "--outline must be at most 16 (half of a patch as drawn), got 17"),
        (["--per-layer", "--layer", "3"], "--per-layer and --layer exclude each other"),
        (["--per-layer", "--largest", "3"], "have no effect with --per-layer"),
        (["--fps", "3", "--output", "tokens.png"], "--fps has no effect on a sheet"),
        (["--frames", "3"], "--frames has no effect on a film of the clip"),
        (["--sampling-rate", "3"], "--sampling-rate has no effect with --strategy uniform"),
        (["--mode", "hybrid"], "--threshold must be a cosine similarity"),
        (["--fill", "mode"], "--fill"),
        (["--largest", "0"], "--largest"),
        (["--scale", "400"], "--scale"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, video: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["visualize", str(video), "--r", "38", *arguments]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    assert message in errors
    assert list(workplace.iterdir()) == []


def test_the_clip_itself_is_never_overwritten(
    video: Path, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = workplace / "tokens.mp4"
    clip.write_bytes(video.read_bytes())
    assert run(["visualize", "tokens.mp4", "--r", "38", "--output", "./tokens.mp4"]) == 2
    assert capsys.readouterr().err == "error: --output tokens.mp4 is the clip itself: give another file\n"
    assert clip.read_bytes() == video.read_bytes()


def test_files_that_cannot_be_read(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workplace / "text.mp4").write_text("no video")
    for name in ("missing.mp4", "text.mp4"):
        assert run(["visualize", name, "--r", "38"]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith(f"error: {name}: ")
        assert errors.count("\n") == 1


def test_a_dropped_place_cannot_be_drawn_alone(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [option for x in range(4, 48, 8) for option in ("--at", f"0,{x},4")]
    assert run(["visualize", str(video), "--r", "46", "--mode", "drop", "--output", "a.gif", *places]) == 2
    assert "--at: the frame, x and y must be of a token that was not dropped" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_noticed_before_the_model_is_loaded(tmp_path, capsys) -> None:
    missing = str(tmp_path / "missing.mp4")
    assert run(["visualize", missing, "--model", str(tmp_path / "no-model")]) == 2
    assert capsys.readouterr() == ("", f"error: {missing}: no such file\n")
