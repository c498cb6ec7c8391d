"""Help and version come at once: what takes seconds to import is imported by the work of a command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from hf_video_tome.cli import app
from hf_video_tome.version import __version__

SLOW = {"torch", "transformers", "numpy", "datasets", "evaluate", "accelerate", "av", "huggingface_hub", "matplotlib"}
SCRIPT = "import sys\nfrom hf_video_tome.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
"""What installers write for an entry of `project.scripts`."""


def command_paths(group: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, command in getattr(group, "commands", {}).items():
        yield from command_paths(command, (*path, name))


COMMANDS = list(command_paths(typer.main.get_command(app)))


def imported(process: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a process of `python -Ximporttime` imported."""
    lines = [line for line in process.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def run_python(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-Ximporttime", *map(str, words)], capture_output=True, text=True)


def test_all_commands_are_looked_at() -> None:
    assert {("classify",), ("analyze",), ("analyze", "splice")} <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_imports_nothing_that_is_slow(path: tuple[str, ...]) -> None:
    process = run_python("-m", "hf_video_tome", *path, "--help")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(f"Usage: {' '.join(('hf-video-tome', *path))} ")
    assert "hf_video_tome" in imported(process)
    assert not SLOW & imported(process)


def test_version_imports_nothing_that_is_slow_in_the_installed_script_either(tmp_path: Path) -> None:
    script = tmp_path / "hf-video-tome"
    script.write_text(SCRIPT)
    for start in ([script], ["-m", "hf_video_tome"]):
        process = run_python(*start, "--version")
        assert (process.returncode, process.stdout) == (0, f"hf-video-tome {__version__}\n"), process.stderr
        assert not SLOW & imported(process)


def test_the_same_modules_are_imported_by_others_together_with_the_registration() -> None:
    """Or nothing above could fail."""
    process = run_python("-c", "import hf_video_tome.cli")
    assert {"torch", "transformers", "hf_video_tome"} <= imported(process)
