"""The example that exports a shipped checkpoint to ONNX runs, and its graph computes what the model does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnxruntime

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "examples" / "export_onnx.py")
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True)


def test_the_example_exports_and_compares(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    result = run("--architecture", "vivit", "--batch-size", "3", "--rounds", "1", "--output", str(path))
    assert result.returncode == 0, result.stderr
    assert "vivit, r=38: tokens 289 -> 61" in result.stdout
    difference = re.search(r"largest difference of logits: (\S+)", result.stdout)
    assert difference is not None, result.stdout
    assert float(difference[1]) < 1e-3
    assert "same class: 3 of 3 clips" in result.stdout
    times = re.findall(r"^  (.+?) +([\d.]+) ms$", result.stdout, re.MULTILINE)
    assert [name for name, _ in times] == ["PyTorch, r=0", "PyTorch, r=38", "ONNX Runtime, r=38"]
    assert all(float(milliseconds) > 0 for _, milliseconds in times)
    (graph_input,) = onnxruntime.InferenceSession(path).get_inputs()
    assert graph_input.shape == ["batch", 16, 3, 48, 48]


def test_a_batch_without_clips_is_refused() -> None:
    result = run("--batch-size", "0")
    assert result.returncode == 2
    assert "--batch-size must be 1 or more, got 0" in result.stderr
