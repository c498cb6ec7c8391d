"""Workers hand over what they decoded, however little shared memory there is."""

from __future__ import annotations

import errno
import logging
import multiprocessing.synchronize
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_video_tome.cli import run as run_command
from hf_video_tome.data import ClipSampling, ClipTransform
from hf_video_tome.evaluation.decoding import DecodedBatch, ViewDecoder
from hf_video_tome.evaluation.examples import read_examples
from hf_video_tome.tasks import Task

from ..classified_videos import FRAMES, UNREADABLE

BATCHES = {number: range(first, first + 4) for number, first in enumerate((0, 4, 8))}
ROOMS = {"none": 0, "for one batch": 1, "for all": len(BATCHES)}


@pytest.fixture
def decode(rows: list[dict[str, Any]], checkpoint: Path) -> Callable[..., Iterator[DecodedBatch]]:
    examples = read_examples(rows, (Task("label", 0, 5),), {}, by_name=False)
    transform = ClipTransform.from_pretrained(checkpoint)
    return lambda **options: ViewDecoder(examples, ClipSampling(FRAMES), transform).batches(BATCHES, **options)


@pytest.mark.parametrize("room", ROOMS.values(), ids=ROOMS)
def test_what_does_not_fit_comes_through_a_pipe(
    decode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, room: int
) -> None:
    expected = list(decode())
    share, shared = torch.Tensor.share_memory_, []

    def share_if_there_is_room(tensor: torch.Tensor) -> torch.Tensor:
        shared.append(tensor)  # in the worker, which is a copy of this process
        if len(shared) > room:
            raise RuntimeError("unable to allocate shared memory(shm) for file </torch>: No space left on device")
        return share(tensor)

    monkeypatch.setattr(torch.Tensor, "share_memory_", share_if_there_is_room)
    with caplog.at_level(logging.WARNING):
        found = list(decode(num_workers=1))
    assert [batch.number for batch in found] == [0, 1, 2]
    for batch, same in zip(found, expected, strict=True):
        assert (batch.positions, batch.failures) == (same.positions, same.failures)
        assert torch.equal(batch.views, same.views)
    assert sorted(position for batch in found for position in batch.failures) == sorted(UNREADABLE)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == (room < len(BATCHES))  # once, and only if it matters
    assert all("shared memory (/dev/shm) is too small" in message for message in messages)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_workers_that_cannot_be_started_are_an_error_that_says_what_helps(
    decode, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(multiprocessing.synchronize.SemLock, "__init__", refuse)
    with pytest.raises(
        ValueError, match=rf"2 decoding processes cannot be started \(.*{os.strerror(code)}\).*--workers 0"
    ):
        next(decode(num_workers=2))


# --- for real, in a mount namespace of its own
def small_shared_memory() -> list[str]:
    """The beginning of a command that runs another one with a small /dev/shm; skips the test where none can be had."""
    mount = ["sh", "-c", 'mount -t tmpfs -o size=300k tmpfs /dev/shm && exec "$@"', "sh"]
    for unshare in (["unshare", "-m"], ["unshare", "-rm"]):
        if shutil.which("unshare") and subprocess.run([*unshare, *mount, "true"], capture_output=True).returncode == 0:
            return [*unshare, *mount]
    pytest.skip("this system lets nobody mount a small /dev/shm in a namespace (unshare -rm)")


def test_an_evaluation_with_a_small_shared_memory_ends_in_the_same_predictions(readable: Path, tmp_path: Path) -> None:
    begin = small_shared_memory()
    command = ["evaluate", "videomae-moving-digits", "--dataset", "class-folders", "--data-dir", str(readable)]
    command += ["--split", "test", "--labels", "number", "--workers", "2"]
    done = subprocess.run(
        [*begin, sys.executable, "-m", "hf_video_tome", *command, "--output", str(tmp_path / "small")],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "shared memory" in line]
    assert len(lines) == 1
    assert "shared memory (/dev/shm) is too small for the decoded videos" in lines[0]
    assert run_command([*command[:-1], "0", "--output", str(tmp_path / "whole")]) == 0
    predictions = [(tmp_path / name / "predictions.jsonl").read_text() for name in ("small", "whole")]
    assert predictions[0] == predictions[1]
