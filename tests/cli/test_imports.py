"""`--import`: modes of one's own in the installed command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_video_tome.cli import imports, run

from ..commands import Commands, environments_of_torchrun
from .test_start import COMMANDS

MINE = """
from hf_video_tome.merging import assign_pairs, register_mode
@register_mode("mine")
def mine(context):
    return assign_pairs(context.cosine_matching())
"""


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stands for a new process in an empty folder, of which nothing is left after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(imports, "IMPORTED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def evaluate(checkpoint: Path, data: Path, output: str, *more: str) -> list[str]:
    words = ["evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(data), "--split", "test"]
    return [*words, "-r", "8", "--batch-size", "2", "--workers", "1", "--output", output, *more]


def test_a_mode_of_ones_own_in_every_process_of_torchrun(
    commands: Commands, checkpoint: Path, class_folders: Path, tmp_path: Path
) -> None:
    Path("my_modes.py").write_text(MINE)
    more = ("--import", str(tmp_path / "my_modes.py"), "--mode", "mine")
    words = evaluate(checkpoint, class_folders, str(tmp_path / "mine"), *more)
    commands.run_together(words, *environments_of_torchrun(2))
    run(evaluate(checkpoint, class_folders, "merge", "--mode", "merge"))
    assert json.loads(Path("mine/timing.json").read_text())["processes"] == 2
    merged = Path("merge/predictions.jsonl").read_text()
    assert merged.count('"mode": "merge"') == 10
    assert Path("mine/predictions.jsonl").read_text() == merged.replace('"mode": "merge"', '"mode": "mine"')


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_imports_before_it_looks_at_anything_else(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--import", "nowhere.py"]) == 2
    assert capsys.readouterr().err == "error: --import nowhere.py: no such file\n"
    assert run(["--import", "nowhere.py", *path]) == 2
    assert capsys.readouterr().err == "error: --import nowhere.py: no such file\n"


@pytest.mark.parametrize("words", ["--import my_modes.py {}", "{} --import my_modes.py", "{} --import=my_modes.py"])
def test_the_mode_is_known_to_the_option_and_its_help(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my_modes.py").write_text(MINE)
    assert run(words.format("classify clip.mp4 --mode mine --model ./nowhere").split()) == 2
    assert "./nowhere: no such folder" in capsys.readouterr().err  # which is looked at after the mode
    assert run(words.format("classify --help").split()) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("Imported: mine.") == 1
    assert text.index("--mode MODE") < text.index("Imported: mine.") < text.index("--schedule SCHEDULE")


def test_without_an_import_the_help_is_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["classify", "--help"]) == 0
    assert "Imported" not in capsys.readouterr().out


def test_several_files_and_modules_and_what_lies_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "one.py").write_text("from beside import *")
    (tmp_path / "folder" / "beside.py").write_text(MINE)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "two.py").write_text(MINE.replace("mine", "two"))
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        run(
            ["classify", "--help", "--import", "folder/one.py", "--import", "package.two", "--import", "folder/one.py"]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "Imported: mine, two." in " ".join(captured.out.split())
    assert captured.err == ""


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("raises.py", "import os\nraise RuntimeError('no\\nluck')", "raises.py, line 2: RuntimeError: no luck"),
        ("leaves.py", "import sys; sys.exit('bye')", "leaves.py, line 1: SystemExit: bye"),
        ("wrong.py", "x = = 1", "SyntaxError: invalid syntax (wrong.py, line 1)"),
        ("taken.py", MINE.replace("mine", "merge"), "line 3: ValueError: the mode 'merge' is registered already"),
        ("random.py", "", "cannot be imported as 'random', which is "),
        ("a.b.py", "", "cannot be imported as 'a.b': rename the file"),
        ("folder.py/", "", "must be a file that ends in .py, or a module such as package.module, got 'folder.py/'"),
        ("no_such.module", "", "ModuleNotFoundError: No module named 'no_such'"),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(
    name: str, code: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith(".py"):
        Path(name).write_text(code)
    for _ in range(2):  # a module that failed is not taken for one that is there
        assert run(["classify", "clip.mp4", "--import", name]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith("error: --import ")
        assert message in captured.err
        assert len(captured.err.splitlines()) == 1
        assert captured.out == ""


def test_a_file_that_registers_nothing_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("nothing.py").write_text("x = 1")
    assert run(["classify", "--help", "--import", "nothing.py"]) == 0
    assert capsys.readouterr().err == "note: --import nothing.py: registers nothing new\n"
