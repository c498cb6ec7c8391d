"""Which processes are the package's own command, and leave registration to the work of it."""

from __future__ import annotations

import sys

import pytest

from hf_video_tome._own_command import is_own_command


@pytest.mark.parametrize(
    "words",
    [
        "/venv/bin/hf-video-tome classify clip.mp4",
        "-u /venv/bin/hf-video-tome",
        "hf-video-tome.exe --help",
        "-m hf_video_tome evaluate",
        "-u -m hf_video_tome evaluate",  # as torchrun has it
        "-Wignore -Xdev -m hf_video_tome",
    ],
)
def test_its_own_command(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python", *words.split()])
    assert is_own_command()


@pytest.mark.parametrize(
    "words",
    [
        "",
        "-i",
        "train.py hf-video-tome -m hf_video_tome",
        "hf-video-tome.py",
        "/data/hf-video-tome/train.py",
        "-m hf_video_tome_plugin",
        "-m hf_video_tome.cli",
        "-m pytest -m hf_video_tome",
        "-m",
        "-c 'import hf_video_tome' -m hf_video_tome",
        "-c from_multiprocessing.spawn_import_spawn_main --multiprocessing-fork hf-video-tome",
        "/venv/bin/torchrun -m hf_video_tome evaluate",
    ],
)
def test_all_others(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python", *words.split()])
    assert not is_own_command()


def test_a_program_around_python_may_name_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [])
    assert not is_own_command()
