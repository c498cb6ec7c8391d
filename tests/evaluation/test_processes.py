"""Real processes: two of them as torchrun starts them, and one that is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed.run
from accelerate import PartialState
from transformers import AutoModelForVideoClassification

from hf_video_tome.cli import run
from hf_video_tome.data import ClipSampling, ClipTransform
from hf_video_tome.evaluation import decoding, evaluate

from ..classified_videos import FRAMES, NUM_VIDEOS, UNREADABLE
from ..commands import OF_TORCHRUN, Commands, environments_of_torchrun

# Copies of this process, which have imported everything already.
FORK = multiprocessing.get_context("fork")


def arguments(checkpoint: Path, data: Path, output: Path) -> list[str]:
    return [
        *("evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(data), "--split", "test"),
        *("-r", "0", "-r", "8", "--mode", "random_merge", "--batch-size", "2", "--workers", "1"),
        *("--output", str(output)),
    ]


@pytest.fixture(scope="module")
def whole(checkpoint: Path, class_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process that ran through."""
    output = tmp_path_factory.mktemp("whole") / "out"
    assert run(arguments(checkpoint, class_folders, output)) == 2  # some videos cannot be read
    return output


def test_two_processes_count_every_video_once(
    commands: Commands, checkpoint: Path, class_folders: Path, whole: Path, tmp_path: Path
) -> None:
    words = arguments(checkpoint, class_folders, tmp_path / "out")
    done = commands.run_together(words, *environments_of_torchrun(2))
    assert json.loads((tmp_path / "out" / "timing.json").read_text())["processes"] == 2, done
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    found = NUM_VIDEOS - 1 if "missing" in UNREADABLE.values() else NUM_VIDEOS  # a missing file is in no class folder
    failed = len(UNREADABLE) - (NUM_VIDEOS - found)
    assert {row["position"] for row in rows} == set(range(found))
    assert len(rows) == len({(row["position"], row.get("setting")) for row in rows}) == 2 * (found - failed) + failed
    for name in ("predictions.jsonl", "results.json", "run.json"):
        assert (tmp_path / "out" / name).read_text() == (whole / name).read_text()
    assert "".join(one.stdout for one in done).count(" on class-folders") == 1  # one process prints
    assert [one.returncode for one in done] == [2, 0]  # and says that some videos could not be read


TOLD = "import json, os, sys; print(json.dumps(dict(os.environ)), file=open(sys.argv[1] + os.environ['RANK'], 'w'))"


def test_torchrun_tells_its_processes_what_those_of_the_tests_are_told(tmp_path: Path) -> None:
    words = ["--standalone", "--nproc-per-node", "2", "--no-python", sys.executable, "-S", "-c", TOLD]
    launcher = FORK.Process(target=torch.distributed.run.main, args=([*words, str(tmp_path / "rank-")],))
    launcher.start()
    launcher.join(timeout=240)
    assert launcher.exitcode == 0
    told = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in range(2)]
    for rank, (really, here) in enumerate(zip(told, environments_of_torchrun(2), strict=True)):
        assert {name: really[name] for name in OF_TORCHRUN[:3]} == {name: here[name] for name in OF_TORCHRUN[:3]}
        assert really["RANK"] == str(rank)
        assert {"MASTER_ADDR", "MASTER_PORT"} <= really.keys()


def evaluate_until_killed(command: list[str], last: str) -> None:
    """An evaluation whose last video never comes."""
    os.setsid()
    read_clips = decoding.read_clips

    def read_or_wait(source: str, *arguments: Any, **options: Any) -> Any:
        return time.sleep(1000) if source == last else read_clips(source, *arguments, **options)

    decoding.read_clips = read_or_wait
    run(command)


def test_an_evaluation_that_was_killed_is_resumed_to_the_same_result(
    checkpoint: Path, class_folders: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = arguments(checkpoint, class_folders, output)
    last = max(class_folders.glob("test/*/*.mp4"))
    process = FORK.Process(target=evaluate_until_killed, args=(command, str(last)))
    process.start()
    journal = output / "journal-00000.jsonl"
    deadline = time.monotonic() + 100
    while process.is_alive() and not (journal.exists() and journal.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (output / "predictions.jsonl").exists()
    done = len(journal.read_text().splitlines())
    assert 0 < done < len((whole / "predictions.jsonl").read_text().splitlines())

    capsys.readouterr()
    assert run(command) == 2
    assert "--resume" in capsys.readouterr().err
    run([*command, "--resume"])
    for name in ("predictions.jsonl", "results.json", "run.json"):
        assert (output / name).read_text() == (whole / name).read_text()


def evaluate_in_own_order(told: dict[str, str], checkpoint: Path, rows: list[dict[str, Any]], output: Path) -> None:
    """One of two processes, each of which has the rows in another order."""
    os.environ |= told | {"CUDA_VISIBLE_DEVICES": ""}
    PartialState._reset_state()  # that of the process this one is a copy of
    model = AutoModelForVideoClassification.from_pretrained(checkpoint)
    transform, rows = ClipTransform.from_pretrained(checkpoint), rows[:: -1 if told["RANK"] == "1" else 1]
    with pytest.raises(ValueError, match="process 1 evaluates something else than process 0: videos is"):
        evaluate(model, rows, transform, ClipSampling(FRAMES), output, num_workers=0)


def test_processes_that_mean_different_rows_are_refused(
    checkpoint: Path, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    inputs = (checkpoint, rows, tmp_path / "out")
    processes = [
        FORK.Process(target=evaluate_in_own_order, args=(told, *inputs)) for told in environments_of_torchrun(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0, 0]
    assert not (tmp_path / "out" / "results.json").exists()
