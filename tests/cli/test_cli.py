from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from hf_video_tome.checkpoints import DEFAULT_CHECKPOINT, available, checkpoint_path
from hf_video_tome.cli import common, printing, run
from hf_video_tome.cli.commands import classify
from hf_video_tome.cli.merging_options import parse_setting
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES
from tests.classified_videos import PROCESSOR, SIZE
from tests.commands import Commands

FRAMES, LABELS, LAYERS = 8, 7, 4
TOKENS = {"videomae": 64, "vivit": 65, "timesformer": 129, "vjepa2": 64}


def make_model(architecture: str, **changes: object) -> transformers.PreTrainedModel:
    common_fields = {
        "image_size": SIZE,
        "num_frames": FRAMES,
        "hidden_size": 24,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.2,
        "id2label": {index: f"action {index}" for index in range(LABELS)},
        **changes,
    }
    torch.manual_seed(0)
    if architecture == "videomae":
        return transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(patch_size=8, tubelet_size=2, **common_fields)
        )
    if architecture == "vivit":
        return transformers.VivitForVideoClassification(
            transformers.VivitConfig(tubelet_size=[2, 8, 8], **common_fields)
        )
    if architecture == "vjepa2":
        names = {"image_size": "crop_size", "num_frames": "frames_per_clip"}
        fields = {names.get(name, name): value for name, value in common_fields.items()}
        return transformers.VJEPA2ForVideoClassification(
            transformers.VJEPA2Config(
                patch_size=8,
                tubelet_size=2,
                num_pooler_layers=1,
                pred_hidden_size=12,
                pred_num_attention_heads=1,
                pred_num_hidden_layers=1,
                pred_num_mask_tokens=1,
                **fields,
            )
        )
    return transformers.TimesformerForVideoClassification(
        transformers.TimesformerConfig(patch_size=8, **common_fields)
    )


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoint folders with random weights, as plain transformers saves them."""
    root = tmp_path_factory.mktemp("checkpoints")
    for architecture in TOKENS:
        make_model(architecture).save_pretrained(root / architecture)
        (root / architecture / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return {architecture: root / architecture for architecture in TOKENS}


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two readable mp4 files, and four that are not."""
    root = tmp_path_factory.mktemp("videos")
    texture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(texture, 3 * shift, axis=1) for shift in range(20)])
    files = {
        "forward": write_video(root / "forward.mp4", frames, 10),
        "still": write_video(root / "still [1].mp4", frames[:1].repeat(5, 0), 10),
        "cut": root / "cut.mp4",
        "text": root / "text.mp4",
        "empty": root / "empty.mp4",
        "missing": root / "missing.mp4",
    }
    files["cut"].write_bytes(files["forward"].read_bytes()[:2000])
    files["text"].write_text("not a video")
    files["empty"].touch()
    return files


def copy_checkpoint(source: Path, target: Path, **changes: object) -> Path:
    """A copy of a checkpoint folder with a changed config.json."""
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


def check_refused(capsys: pytest.CaptureFixture[str], arguments: list[object], *parts: str) -> None:
    """Bad input: exit code 2, nothing on stdout, and one line on stderr that says what is wrong."""
    assert run([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def run_json(capsys: pytest.CaptureFixture[str], arguments: list[object], code: int = 0) -> dict:
    """Runs a command with --json: stdout is one JSON object and nothing else."""
    assert run([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


# --- end to end
def test_the_command_classifies_a_real_file(checkpoints: dict[str, Path], videos: dict[str, Path]) -> None:
    script = Path(sys.executable).with_name("hf-video-tome")
    start = [script] if script.exists() else [sys.executable, "-m", "hf_video_tome"]
    command = [*start, "classify", videos["forward"], "--model", checkpoints["videomae"], "--r", 8, "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["token_counts"] == [64, 56, 48, 40, 32]
    assert len(result["results"][0]["top"]) == 5


def test_the_module_runs_like_the_command_and_refuses_bad_input_without_a_traceback(
    commands: Commands, tmp_path: Path, videos: dict[str, Path]
) -> None:
    done = commands.run("classify", videos["forward"], "--model", tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: --model {tmp_path}: this folder has no config.json")
    assert len(done.stderr.splitlines()) == 1


def test_unexpected_exceptions_keep_their_traceback(
    monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path], videos: dict[str, Path]
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(classify, "decisions", broken)  # of no file
    with pytest.raises(ValueError, match="a bug"):
        run(["classify", str(videos["forward"]), "--model", str(checkpoints["videomae"])])


def test_interrupting_is_no_error(
    monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, Path], videos: dict[str, Path]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(classify, "_classify_file", interrupted)
    assert run(["classify", str(videos["forward"]), "--model", str(checkpoints["videomae"])]) == 130


# --- classify
@pytest.mark.parametrize("architecture", TOKENS)
def test_classify_gives_what_transformers_gives(
    architecture: str,
    checkpoints: dict[str, Path],
    videos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["classify", videos["forward"], "--model", checkpoints[architecture], "--top-k", LABELS]
    result = run_json(capsys, arguments)
    assert result["architecture"] == architecture
    assert result["token_counts"] == [TOKENS[architecture]] * (LAYERS + 1)

    from hf_video_tome.data.sampling import sample_frame_indices
    from hf_video_tome.data.video.decoding import read_frames

    frames = read_frames(videos["forward"], sample_frame_indices(20, FRAMES, strategy="uniform"))
    pixel_values = transformers.VideoMAEImageProcessor(**PROCESSOR)(list(frames.numpy()), return_tensors="pt")
    model = make_model(architecture).eval()  # the stock class
    with torch.no_grad():
        expected = model(pixel_values["pixel_values"]).logits[0].softmax(-1)
    top = result["results"][0]["top"]
    # The clip transform agrees with the stock processor within its rounding.
    assert [item["probability"] for item in top] == pytest.approx(
        expected.sort(descending=True).values.tolist(), abs=1e-3
    )
    assert top[0]["index"] == expected.argmax().item()
    assert top[0]["label"] == f"action {top[0]['index']}"
    assert sum(item["probability"] for item in top) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("r", "counts"),
    [
        ("8", [64, 56, 48, 40, 32]),
        ("0.25", [64, 48, 32, 16, 8]),
        ("8,4", [64, 56, 52, 52, 52]),
        ("1000", [64, 32, 16, 8, 4]),
        ("0", [64, 64, 64, 64, 64]),
    ],
)
def test_r_as_number_share_and_list(
    r: str,
    counts: list[int],
    checkpoints: dict[str, Path],
    videos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = run_json(capsys, ["classify", videos["forward"], "--model", checkpoints["videomae"], "--r", r])
    assert result["token_counts"] == counts


def test_every_setting_reaches_the_model(
    checkpoints: dict[str, Path], videos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "--r 4 --mode hybrid --threshold 0.5 --schedule -1 --scope frame --pooling mean --head-aggregation concat"
    )
    result = run_json(
        capsys,
        [
            *("classify", videos["forward"], "--model", checkpoints["videomae"], *options.split()),
            *("--proportional-attention", "--dtype", "bfloat16", "--strategy", "center", "--sampling-rate", 2),
        ],
    )
    assert result["token_merging"] == {
        "r": 4,
        "schedule": -1.0,
        "mode": "hybrid",
        "threshold": 0.5,
        "scope": "frame",
        "pooling": "mean",
        "head_aggregation": "concat",
        "proportional_attention": True,
        "input": None,
        "input_keep": None,
        "restore": False,
        "thresholds": None,
        "mode_options": None,
        "average": "mean",
        "segments": None,
        "input_threshold": None,
    }
    assert result["token_counts"] == [64, 32, 16, 8, 8]
    assert result["clip"] == {"frames": FRAMES, "strategy": "center", "sampling_rate": 2}
    assert result["dtype"] == "bfloat16"


def test_settings_saved_with_a_checkpoint_are_kept(
    checkpoints: dict[str, Path], videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_checkpoint(checkpoints["videomae"], tmp_path / "saved", token_merging_r=8, token_merging_mode="drop")
    saved = run_json(capsys, ["classify", videos["forward"], "--model", folder])["token_merging"]
    assert (saved["r"], saved["mode"]) == (8, "drop")
    changed = run_json(capsys, ["classify", videos["forward"], "--model", folder, "--r", 0])["token_merging"]
    assert (changed["r"], changed["mode"]) == (0, "drop")


def test_classify_prints_what_it_decided(
    checkpoints: dict[str, Path],
    videos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # temporary folders have long names
    arguments = ["classify", videos["forward"], videos["still"], "--model", checkpoints["vivit"], "--r", "8"]
    assert run([*map(str, arguments), "--schedule", "decreasing", "--top-k", "2"]) == 0
    captured = capsys.readouterr()
    # Long paths and lines are folded, not cut.
    text = "".join(captured.out.split())
    for part in ("vivit,7labels", "merge,r=8perlayer,decreasingschedule,scopeclip", "65→49→39→34→34", "cpu,float32"):
        assert part in text
    assert captured.out.count("action ") == 4
    assert captured.out.count(" %\n") == 4
    assert "still[1].mp4" in text
    assert captured.err == "classifying 2 files ...\n"


def test_one_bad_file_does_not_stop_the_others(
    checkpoints: dict[str, Path], videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [videos[name] for name in ("cut", "forward", "text", "empty", "missing", "still")] + [tmp_path]
    assert run(["classify", *map(str, files), "--model", str(checkpoints["videomae"]), "--json"]) == 2
    captured = capsys.readouterr()
    results = json.loads(captured.out)["results"]
    assert [result["file"] for result in results] == [str(file) for file in files]
    assert ["top" if "top" in result else "error" for result in results] == [
        *("error", "top", "error", "error", "error", "top", "error")
    ]
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5
    for line, name, reason in zip(
        errors,
        ("cut", "text", "empty", "missing"),
        ("truncated or broken", "not a video", "empty", "no such file"),
        strict=False,
    ):
        assert str(videos[name]) in line
        assert reason in line
    assert "is a folder" in errors[-1]


@pytest.mark.parametrize(
    "error", [ValueError("31 is not a valid Type\nin av"), OSError(95, "Operation not supported"), MemoryError("mmap")]
)
def test_whatever_a_file_raises_the_others_are_classified(
    checkpoints: dict[str, Path],
    videos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    from hf_video_tome.data.video import clips

    read_clips = clips.read_clips

    def fail(source: str, *arguments: object) -> torch.Tensor:
        if source == str(videos["forward"]):
            raise error
        return read_clips(source, *arguments)

    monkeypatch.setattr(clips, "read_clips", fail)
    files = [str(videos["forward"]), str(videos["still"])]
    assert run(["classify", *files, "--model", str(checkpoints["videomae"]), "--json"]) == 2
    captured = capsys.readouterr()
    broken, whole = json.loads(captured.out)["results"]
    assert len(whole["top"]) == 5
    assert broken["error"].startswith(f"{files[0]}: ")
    assert broken["error"].endswith(" ".join(str(error.args[-1]).split()))
    assert [line for line in captured.err.splitlines() if line.startswith("error")] == [f"error: {broken['error']}"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_no_answer(
    videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    model = make_model("videomae")
    torch.nn.init.constant_(model.classifier.bias, value)
    model.save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    capsys.readouterr()
    clip, options = videos["forward"], ["--model", tmp_path / "broken"]
    message = f"{clip}: the logits are not finite: the model may need a wider dtype"
    (result,) = run_json(capsys, ["classify", clip, *options], code=2)["results"]
    assert result["error"].startswith(message)
    assert run(list(map(str, ["visualize", clip, *options, "--output", tmp_path / "tokens.gif"]))) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "tokens.gif").exists()


def test_json_for_machines_holds_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        printing.write_json({"value": float("nan")})


@pytest.mark.parametrize("file", ["https://example.com/clip.mp4", "s3://bucket/a//b.mp4"])
def test_addresses_are_named_as_they_were_given(
    checkpoints: dict[str, Path], capsys: pytest.CaptureFixture[str], file: str
) -> None:
    assert run(["classify", file, "--model", str(checkpoints["videomae"])]) == 2
    assert f"error: {file}: is a URL" in capsys.readouterr().err
    assert run(["visualize", file]) == 2
    assert capsys.readouterr().err == f"error: {file}: no such file\n"
    command = ["evaluate", str(checkpoints["videomae"]), "--dataset", "class-folders", "--data-dir", file]
    assert run(command) == 2
    assert capsys.readouterr().err == f"error: --data-dir {file}: no such folder\n"


def test_a_folder_without_a_processor_is_used_with_a_note(
    checkpoints: dict[str, Path], videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy_checkpoint(checkpoints["videomae"], tmp_path / "bare")
    (folder / "preprocessor_config.json").unlink()
    assert run(["classify", str(videos["forward"]), "--model", str(folder), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["transform"]["source"] == "the usual one of videomae"
    assert captured.err.startswith("note: ")
    assert "has no preprocessor_config.json" in captured.err


def test_a_head_with_two_tasks_is_asked_for_each(
    checkpoints: dict[str, Path], videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {"noun": [3, LABELS], "verb": [0, 3]}
    folder = copy_checkpoint(checkpoints["videomae"], tmp_path / "two", label_groups=groups)
    one = run_json(capsys, ["classify", videos["forward"], "--model", checkpoints["videomae"], "--top-k", LABELS])
    probability = {label["index"]: label["probability"] for label in one["results"][0]["top"]}
    assert {label["task"] for label in one["results"][0]["top"]} == {"label"}
    top = run_json(capsys, ["classify", videos["forward"], "--model", folder, "--top-k", 2])["results"][0]["top"]
    assert [label["task"] for label in top] == ["verb", "verb", "noun", "noun"]
    for task, (start, stop) in groups.items():
        # The same logits: inside a task probabilities are to each other as they were, and add up to 1.
        share = sum(probability[output] for output in range(start, stop))
        best = sorted(range(start, stop), key=lambda output: -probability[output])[:2]
        found = [label for label in top if label["task"] == task]
        assert [label["index"] for label in found] == [output - start for output in best]
        assert [label["label"] for label in found] == [f"action {output}" for output in best]
        assert [label["probability"] for label in found] == pytest.approx(
            [probability[output] / share for output in best], abs=1e-4
        )
    assert run(["classify", str(videos["forward"]), "--model", str(folder), "--top-k", "2"]) == 0
    words = capsys.readouterr().out.split()
    assert words.count("task") == words.count("verb") == words.count("noun") == 1
    assert run(["classify", str(videos["forward"]), "--model", str(checkpoints["videomae"])]) == 0
    assert "task" not in capsys.readouterr().out.split()


# --- bad input
def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["classify", "--help"], ["demo", "--help"]):
        assert run(arguments) == 0
        assert "hf-video-tome" in capsys.readouterr().out
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hf-video-tome 0.")
    assert run([]) == 2
    assert "classify" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["classify"], ["Missing argument 'FILE...'", "classify --help"]),
        (["frobnicate"], ["No such command 'frobnicate'"]),
        (["classify", "a.mp4", "--frobnicate"], ["--frobnicate"]),
        (["classify", "a.mp4", "--top-k", "0"], ["--top-k", "greater than or equal to 1"]),
        (["classify", "a.mp4", "--dtype", "int8"], ["--dtype", "int8", "float32", "bfloat16", "float16"]),
        (["classify", "a.mp4", "--strategy", "end"], ["--strategy", "uniform", "center", "start"]),
        (["classify", "a.mp4", "--sampling-rate", "2"], ["--sampling-rate", "--strategy center or start"]),
        (["classify", "a.mp4", "--model", "./nowhere"], ["./nowhere: no such folder"]),
        (["classify", "a.mp4", "--model", "a/b/c"], ["a/b/c: no such folder"]),
        (["demo", "--clips", "0"], ["--clips", "greater than or equal to 1"]),
        (["demo", "--r", "0,many"], ["--r", "'many'"]),
    ],
)
def test_bad_options_are_refused(arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(capsys, list(arguments), *parts)


@pytest.mark.parametrize(
    "value", ["-5", "1.5", "0.0", "nan", "1e400", "1,x", "1,-2", "1,1.5", "many", "", ",", "1_0", "٣", "8,1_0"]
)
def test_bad_r_is_refused(
    value: str, checkpoints: dict[str, Path], videos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["classify", videos["forward"], "--model", checkpoints["videomae"], "--r", value]
    check_refused(capsys, arguments, "--r must be", repr(value), "share in (0, 1)")


@pytest.mark.parametrize(("value", "shown"), [("0.7", "got 0.7"), ("1,0.7", "got [1, 0.7]")])
def test_how_much_a_layer_can_remove_is_for_the_mode_to_say(
    value: str, shown: str, checkpoints: dict[str, Path], videos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["classify", videos["forward"], "--model", checkpoints["videomae"], "--r", value]
    check_refused(capsys, arguments, "--r must be", "share in (0, 0.5]", shown)
    assert run([*map(str, arguments), "--mode", "cluster"]) == 0


def test_the_position_of_merged_tokens_can_be_chosen(
    checkpoints: dict[str, Path], videos: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["classify", videos["forward"], "--model", checkpoints["vjepa2"], "--r", 12]
    results = [run_json(capsys, [*arguments, *extra]) for extra in ([], ["--position", "destination"])]
    assert [result["token_merging"]["position"] for result in results] == ["centroid", "destination"]
    assert results[0]["results"] != results[1]["results"]
    assert run([*map(str, arguments), "--position", "centroid"]) == 0
    assert "position centroid" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("architecture", "options", "parts"),
    [
        ("videomae", "--r 1,1,1,1,1", ["--r must be", "at most 4 entries"]),
        ("videomae", "--r 1,1 --schedule increasing", ["--r must be", "needs the 'constant' schedule"]),
        ("videomae", "--mode melt", ["--mode must be one of", "'hybrid'", "'melt'"]),
        ("videomae", "--mode hybrid", ["--threshold must be a cosine similarity in [-1, 1] with --mode 'hybrid'"]),
        ("videomae", "--threshold 3", ["--threshold must be a cosine similarity in [-1, 1], got '3'"]),
        ("videomae", "--schedule sideways", ["--schedule must be one of", "'decreasing'", "'sideways'"]),
        ("videomae", "--schedule 2", ["--schedule must be one of", "[-1, 1]", "'2'"]),
        ("videomae", "--scope planet", ["--scope must be one of 'clip', 'frame', 'tube', 'time', got"]),
        ("timesformer", "--scope clip", ["--scope must be one of 'frame', 'tube', 'time' for timesformer"]),
        ("videomae", "--pooling max", ["--pooling must be one of 'weighted', 'mean'", "'max'"]),
        ("vjepa2", "--position source", ["--position must be one of 'destination', 'centroid'", "'source'"]),
        ("videomae", "--position centroid", ["--position must be left out for videomae (only vjepa2 supports it)"]),
        ("videomae", "--head-aggregation sum", ["--head-aggregation must be one of 'mean', 'concat'", "'sum'"]),
        ("videomae", "--device abacus", ["--device must be a device of this machine (cpu", "'abacus'"]),
        ("videomae", "--device cuda:99", ["--device must be a device of this machine (cpu", "'cuda:99'"]),
    ],
)
def test_bad_settings_are_refused_by_the_name_of_their_option(
    architecture: str,
    options: str,
    parts: list[str],
    checkpoints: dict[str, Path],
    videos: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["classify", videos["forward"], "--model", checkpoints[architecture], *options.split()]
    check_refused(capsys, arguments, *parts)


def test_bad_checkpoints_are_refused(
    checkpoints: dict[str, Path], videos: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(model: object, *parts: str) -> None:
        check_refused(capsys, ["classify", videos["forward"], "--model", model], f"--model {model}: ", *parts)

    good = checkpoints["videomae"]
    refused(videos["forward"], "is a file")

    unknown = copy_checkpoint(good, tmp_path / "unknown", model_type="resnet3d")
    refused(
        unknown,
        "'resnet3d' is not supported",
        ", ".join(sorted(ARCHITECTURES)),
    )

    broken = copy_checkpoint(good, tmp_path / "broken")
    (broken / "config.json").write_text("{")
    refused(broken, "not valid JSON")

    lonely = copy_checkpoint(good, tmp_path / "lonely")
    (lonely / "model.safetensors").unlink()
    refused(lonely, "model.safetensors")

    cut = copy_checkpoint(good, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:-100])
    refused(cut)

    wide = copy_checkpoint(good, tmp_path / "wide", hidden_size=48)
    refused(wide, "do not fit its config.json", "classifier.weight has shape (7, 24), expected (7, 48)")

    headless = tmp_path / "headless"
    make_model("videomae").videomae.save_pretrained(headless)
    capsys.readouterr()  # transformers' progress bar
    refused(headless, "weights of a videomae video classifier are missing", "classifier.bias", "VideoMAEModel")

    negative = copy_checkpoint(good, tmp_path / "negative", token_merging_r=-3)
    refused(negative, "token_merging_r must be", "-3")

    split = copy_checkpoint(good, tmp_path / "split", label_groups={"verb": [0, 3], "noun": [4, LABELS]})
    refused(split, "label_groups must map", "= 7 outputs", "'noun': [4, 7]")

    sized = copy_checkpoint(good, tmp_path / "sized")
    processor = {**PROCESSOR, "crop_size": {"height": 24, "width": 24}}
    (sized / "preprocessor_config.json").write_text(json.dumps(processor))
    refused(sized, "expects frames of 32x32 pixels", "24x24")


def test_a_hub_id_that_cannot_be_had(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert run(["classify", str(videos["forward"]), "--model", "somebody/nothing"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("note: somebody/nothing is not a local folder")
    assert lines[-1].startswith("error: --model somebody/nothing: neither a folder here")
    assert len(lines) == 2


# --- shipped checkpoints
def test_names_of_shipped_checkpoints() -> None:
    with pytest.raises(ValueError, match=r"must be one of the shipped checkpoints .*'resnet'"):
        checkpoint_path("resnet")
    for name in available():
        assert (checkpoint_path(name) / "model.safetensors").is_file()
        assert common.find_checkpoint(name) == str(checkpoint_path(name))


def test_a_folder_comes_before_a_shipped_checkpoint(
    tmp_path: Path, checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_checkpoint(checkpoints["videomae"], tmp_path / DEFAULT_CHECKPOINT)
    assert common.find_checkpoint(DEFAULT_CHECKPOINT) == DEFAULT_CHECKPOINT


def test_values_of_settings_are_read() -> None:
    assert parse_setting("r", "150") == 150
    assert parse_setting("r", "0.1") == 0.1
    assert parse_setting("r", "8, 8,4") == [8, 8, 4]
    assert parse_setting("schedule", "-0.5") == -0.5
    assert parse_setting("input", "random") == "random"


# --- demo
def check_demo(folder: Path, result: dict, rs: list[float]) -> None:
    """What holds for any model."""
    variants = result["results"]
    assert [variant["r"] for variant in variants] == rs
    assert variants[0]["agreement"] == 1
    assert variants[0]["speedup"] == 1
    assert all(0 <= variant["accuracy"] <= 1 and variant["clips_per_second"] > 0 for variant in variants)
    assert Path(result["picture"]) == folder / "merged-tokens.png"
    from PIL import Image

    with Image.open(result["picture"]) as picture:
        assert picture.width > 1000
        assert picture.height > 500
    from hf_video_tome.data.video.decoding import probe_video

    kept = sorted((folder / "clips").glob("*.mp4"))
    assert len(kept) == 6
    assert probe_video(kept[0]).num_frames == 16
    assert "not Kinetics" in result["caption"]


@pytest.mark.skipif(DEFAULT_CHECKPOINT not in available(), reason="the shipped checkpoint is not there")
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    folder = tmp_path / "demo output"
    result = run_json(capsys, ["demo", "--output", folder, "--clips", 12, "--r", "38,0.1"])
    check_demo(folder, result, [0, 38, 0.1])
    base, merged, shared = result["results"]
    assert base["tokens"] == [288, 288]
    assert merged["tokens"] == [288, 60]
    assert shared["tokens"] == [288, 120]
    # Nothing near 12 clips is significant; a model that knows nothing is right once in 120.
    assert base["accuracy"] > 0.5
    assert merged["agreement"] > 0.5
    assert torch.get_num_threads() == threads


@pytest.mark.skipif(DEFAULT_CHECKPOINT not in available(), reason="the shipped checkpoint is not there")
def test_demo_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["demo", "--output", str(tmp_path), "--clips", "7", "--r", "46"]) == 0
    captured = capsys.readouterr()
    text = " ".join(captured.out.split())
    for part in (
        "288 → 29",
        "90%",
        "speed-up",
        "not Kinetics",
        "1 thread",
        "batches of 7",
        "float32",
        torch.__version__,
    ):
        assert part in text
    assert str(tmp_path / "merged-tokens.png") in captured.out
    assert captured.err.splitlines() == [
        "writing and decoding 7 video files ...",
        "classifying them at 2 values of r ...",
    ]


def test_demo_says_that_the_machine_was_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: time.perf_counter() / 2)
    words = ["demo", "--output", str(tmp_path), "--clips", "2", "--r", "46"]
    assert run(words) == 0
    assert "The machine was busy: the model had a processor for 50 % of the time" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "note: The machine was busy" in captured.err
    assert json.loads(captured.out)["processor_share"] == pytest.approx(0.5, abs=0.01)


def test_demo_runs_on_untrained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mechanics, whatever the weights: eight frames of another size, so that sampling and resizing take part."""
    from hf_video_tome.data.moving_digits import ACTIONS

    checkpoint = tmp_path / "untrained"
    make_model("timesformer", id2label=dict(enumerate(ACTIONS))).save_pretrained(checkpoint)
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    monkeypatch.setattr("hf_video_tome.loading.checkpoint_path", lambda: checkpoint)
    result = run_json(capsys, ["demo", "--output", tmp_path / "out", "--clips", 7, "--r", "2"])
    check_demo(tmp_path / "out", result, [0, 2])
    assert result["results"][1]["tokens"] == [129, 65]


def test_demo_refuses_bad_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    check_refused(capsys, ["demo", "--output", file], f"--output {file}")
    monkeypatch.setattr(common, "find_spec", lambda name: None)
    check_refused(capsys, ["demo"], "scikit-learn and matplotlib", 'pip install "hf-video-tome[demo]"')


def test_measure_keeps_clips_and_answers_together(checkpoints: dict[str, Path]) -> None:
    """Batches that are not full, and values of r taken in another order on each batch, change no answer."""
    from hf_video_tome.cli.commands.demo import measure

    classifier = common.load_classifier(str(checkpoints["videomae"]), {})
    clips = list(torch.randn(31, FRAMES, 3, SIZE, SIZE))
    model = classifier.model
    answers = {}
    for r in (0, 4, 16):
        model.set_token_merging(r=r)
        with torch.no_grad():
            answers[r] = model(torch.stack(clips)).logits.argmax(-1)
    labels = answers[0].clone()
    labels[:10] = (labels[:10] + 1) % LABELS
    variants = measure(model, clips, labels.tolist(), [0, 4, 16])
    assert variants[0].accuracy == pytest.approx(21 / 31)
    assert variants[0].standard_error == pytest.approx((21 / 31 * 10 / 31 / 31) ** 0.5)
    for variant in variants:
        assert variant.agreement == pytest.approx((answers[variant.r] == answers[0]).double().mean().item())
        assert variant.accuracy == pytest.approx((answers[variant.r] == labels).double().mean().item())
