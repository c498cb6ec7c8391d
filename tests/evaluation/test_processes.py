"""Real processes: two of them started by torchrun, and one that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ..classified_videos import NUM_VIDEOS, UNREADABLE

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}


def arguments(checkpoint: Path, data: Path, output: Path, *more: str) -> list[str]:
    return [
        *("evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(data), "--split", "test"),
        *("-r", "0", "-r", "8", "--mode", "random_merge", "--batch-size", "2", "--workers", "1"),
        *("--output", str(output), *more),
    ]


def start(*command: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture(scope="module")
def whole(checkpoint: Path, class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process that ran through."""
    output = tmp_path_factory.mktemp("whole") / "out"
    process = start("-m", "hf_video_tome", *arguments(checkpoint, class_folders, output))
    _, stderr = process.communicate(timeout=240)
    assert process.returncode == 2, stderr  # some videos cannot be read
    return output


def test_two_processes_count_every_video_once(
    checkpoint: Path, class_folders: Path, whole: Path, tmp_path: Path
) -> None:
    process = start(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "hf_video_tome"),
        *arguments(checkpoint, class_folders, tmp_path / "out"),
    )
    stdout, stderr = process.communicate(timeout=240)
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["processes"] == 2, stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    found = NUM_VIDEOS - 1 if "missing" in UNREADABLE.values() else NUM_VIDEOS  # a missing file is in no class folder
    failed = len(UNREADABLE) - (NUM_VIDEOS - found)
    assert {row["position"] for row in rows} == set(range(found))
    assert len(rows) == len({(row["position"], row.get("setting")) for row in rows}) == 2 * (found - failed) + failed
    for name in ("predictions.jsonl", "results.json", "run.json"):
        assert (tmp_path / "out" / name).read_text() == (whole / name).read_text()
    assert stdout.count(" on class-folders") == 1  # one process prints
    assert process.returncode != 0


def test_an_evaluation_that_was_killed_is_resumed_to_the_same_result(
    checkpoint: Path, class_folders: Path, whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = start("-m", "hf_video_tome", *arguments(checkpoint, class_folders, output), start_new_session=True)
    journal = output / "journal-00000.jsonl"
    deadline = time.monotonic() + 200
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if process.returncode != -signal.SIGKILL or (output / "predictions.jsonl").exists():
        pytest.fail("the evaluation ended before it could be killed")
    done = len(journal.read_text().splitlines())
    assert 0 < done < len((whole / "predictions.jsonl").read_text().splitlines())

    again = start("-m", "hf_video_tome", *arguments(checkpoint, class_folders, output))
    _, stderr = again.communicate(timeout=240)
    assert "--resume" in stderr
    assert again.returncode == 2
    resumed = start("-m", "hf_video_tome", *arguments(checkpoint, class_folders, output, "--resume"))
    resumed.communicate(timeout=240)
    for name in ("predictions.jsonl", "results.json", "run.json"):
        assert (output / name).read_text() == (whole / name).read_text()


SCRIPT = """
import os, sys
from transformers import AutoModelForVideoClassification
import hf_video_tome
from hf_video_tome.data import ClipSampling, ClipTransform, load
from hf_video_tome.evaluation import evaluate

checkpoint, data, output = sys.argv[1:]
rows = list(load("class-folders", "test", data, streaming=True))
if os.environ["RANK"] == "1":
    rows.reverse()
model = AutoModelForVideoClassification.from_pretrained(checkpoint)
evaluate(model, rows, ClipTransform.from_pretrained(checkpoint), ClipSampling(8), output, num_workers=0)
"""


def test_processes_that_mean_different_rows_are_refused(checkpoint: Path, class_folders: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = start(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)),
        *(str(checkpoint), str(class_folders), str(tmp_path / "out")),
    )
    _, stderr = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "process 1 evaluates something else than process 0: videos is" in stderr
    assert not (tmp_path / "out" / "results.json").exists()
