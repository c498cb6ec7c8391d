"""The example that exports a shipped checkpoint to ONNX runs, and its graph computes what the model does."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import onnxruntime
import pytest
from transformers import AutoModelForVideoClassification

from hf_video_tome.checkpoints import checkpoint_path

SCRIPT = Path(__file__).parents[1] / "examples" / "export_onnx.py"
NAME = "vivit-moving-digits"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_the_example_exports_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the first two layers of the shipped ViViT: a graph of all takes a minute."""
    short = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), num_hidden_layers=2)
    short.save_pretrained(tmp_path / "short")
    shutil.copy(checkpoint_path(NAME) / "preprocessor_config.json", tmp_path / "short")
    monkeypatch.setattr("hf_video_tome.checkpoints.checkpoint_path", {NAME: tmp_path / "short"}.get)
    path = tmp_path / "model.onnx"
    run(monkeypatch, "--architecture", "vivit", "--batch-size", "3", "--rounds", "1", "--output", str(path))
    printed = capsys.readouterr().out
    assert "vivit, r=38: tokens 289 -> 213" in printed
    difference = re.search(r"largest difference of logits: (\S+)", printed)
    assert difference is not None, printed
    assert float(difference[1]) < 1e-3
    assert "same class: 3 of 3 clips" in printed
    times = re.findall(r"^  (.+?) +([\d.]+) ms$", printed, re.MULTILINE)
    assert [name for name, _ in times] == ["PyTorch, r=0", "PyTorch, r=38", "ONNX Runtime, r=38"]
    assert all(float(milliseconds) > 0 for _, milliseconds in times)
    (graph_input,) = onnxruntime.InferenceSession(path).get_inputs()
    assert graph_input.shape == ["batch", 16, 3, 48, 48]


def test_a_batch_without_clips_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "--batch-size", "0")
    assert end.value.code == 2
    assert "--batch-size must be 1 or more, got 0" in capsys.readouterr().err
