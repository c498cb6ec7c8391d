"""What commands print: whole numbers, no terminal's commands, in every encoding."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.cli import app, printing, run
from hf_video_tome.cli.printing import PrintableStream, one_line, printable

from ..classified_videos import LABELS, save_checkpoint
from ..commands import Commands

ENCODINGS = ["utf-8", "cp1252", "ascii", "iso8859-1", "cp932"]
ESCAPES = "\x1b[31m\x1b]0;title\x07\r\x9b2J\u202eflow\u2066"
SHOWN = r"\x1b[31m\x1b]0;title\x07\r\x9b2J\u202eflow\u2066"
COMMANDS_OF_TERMINALS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069]")


class Output(io.TextIOWrapper):
    """A file, or a terminal, of an encoding."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors="strict", newline="")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode(self.encoding)


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, str]]:
    """Runs something, and gives what it printed on stdout and stderr."""

    def printed(
        what: Callable[[], Any], code: Any = None, encoding: str = "utf-8", columns: int | None = None
    ) -> tuple[str, str]:
        out, err = (Output(encoding, terminal=columns is not None) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            patch.setenv("TERM", "xterm")
            for name in ("FORCE_COLOR", "COLUMNS"):
                patch.delenv(name, raising=False)
            if columns is not None:
                patch.setenv("COLUMNS", str(columns))
            assert what() == code
        return out.text(), err.text()

    return printed


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", text)


@contextmanager
def terminal(columns: int) -> Iterator[Output]:
    """A terminal of so many columns, for property tests, which take no fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        output = Output(terminal=True)
        patch.setattr(sys, "stdout", output)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "xterm")
        yield output


# --- characters
@given(text=st.text(), encoding=st.sampled_from(ENCODINGS))
def test_what_is_printable_is_shown_by_every_terminal_and_encoding(text: str, encoding: str) -> None:
    shown = printable(text, encoding)
    shown.encode(encoding)
    assert not COMMANDS_OF_TERMINALS.search(shown)
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert printable(shown, encoding) == shown


@pytest.mark.parametrize(
    "text", ["plain", "ü", "हिन्दी क्\u200dष", "نمی\u200cخواهم", "👩\u200d💻", "C++", "日本語", "e\u0301", "a\u00a0b"]
)
def test_letters_marks_and_symbols_of_all_languages_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        (ESCAPES, "utf-8", SHOWN),
        ("a\nb\tc", "utf-8", r"a\nb\tc"),
        ("clip\udce9.mp4", "utf-8", r"clip\udce9.mp4"),
        ("64 → 32", "cp1252", "64 -> 32"),
        ("1 ± 2", "cp1252", "1 ± 2"),
        ("1 ± 2", "ascii", "1 +/- 2"),
        ("日本", "cp1252", r"\u65e5\u672c"),
        ("👩", "ascii", r"\U0001f469"),
    ],
)
def test_other_characters_are_spelled_out(text: str, encoding: str, shown: str) -> None:
    assert printable(text, encoding) == shown


def test_an_error_is_one_line_and_keeps_the_spaces_of_names() -> None:
    assert one_line("first\n  second\r\nthird   fourth") == "first second third fourth"
    assert one_line("a\u00a0b\u3000c\rd") == "a\u00a0b\u3000c\rd"  # the last one is shown, not sent


# --- streams
def test_nothing_goes_past_the_streams_of_a_command() -> None:
    out = Output("cp1252")
    stream = PrintableStream(out)
    print("label", ESCAPES, "→", file=stream)
    stream.write("\r 10%|█")  # as progress bars do
    stream.write("\n\x1b[A")
    stream.write("\x1b[Anot alone")
    text = out.text()
    assert text == f"label {SHOWN} ->\n" + "\r 10%|\\u2588" + "\n\x1b[A" + r"\x1b[Anot alone"
    assert not hasattr(stream, "buffer")  # past which bytes would go


def test_the_streams_are_put_back() -> None:
    before = sys.stdout, sys.stderr
    with printing.safe_printing():
        assert isinstance(sys.stdout, PrintableStream)
        with printing.safe_printing():
            assert not isinstance(sys.stdout.stream, PrintableStream)
    assert (sys.stdout, sys.stderr) == before


# --- tables
NUMBERS = st.lists(st.tuples(st.text("abc /", max_size=60), st.floats(0, 1e9)), min_size=1, max_size=4)


@given(rows=NUMBERS, columns=st.integers(1, 130))
def test_a_table_never_cuts_a_number_nor_loses_a_letter(rows: list[tuple[str, float]], columns: int) -> None:
    cells = [(name, f"{number:.1f}", f"{number:.3e} ± 0.01") for name, number in rows]
    with terminal(columns) as output:
        printing.print_table(("settings", "clips/s", "accuracy"), cells, text=("settings",), title="a table")
    text = without_colours(output.text())
    words = text.split()
    for name, *numbers in cells:
        for number in numbers:
            assert f" {number}" in text
        assert len(name.split()) == 0 or name.split()[0][:8] in text
    assert sum(word.count("c") for word in words) >= sum(name.count("c") for name, *_ in cells)
    assert "…" not in text


def test_tables_and_fields_are_not_folded_where_nobody_looks(printed) -> None:
    path = "/data/" + "long folder/" * 60 + "clip.mp4"
    out, _ = printed(lambda: printing.print_table(("file", "clips/s"), [(path, "128.4")], text=("file",)))
    assert out.splitlines()[1] == f"{path}    128.4"
    out, _ = printed(lambda: printing.print_fields([("model", path), ("output", Path(path))]))
    assert out == f"model   {path}\noutput  {path}\n"
    out, _ = printed(lambda: printing.print_paragraph(f"see {path}"))
    assert out == f"see {path}\n"


def test_fields_are_folded_on_a_terminal_and_not_cut(printed) -> None:
    path = "/data/" + "folder-without-spaces/" * 10 + "clip.mp4"
    out, _ = printed(lambda: printing.print_fields([("output", path)]), columns=40)
    assert "".join(line[8:] for line in without_colours(out).splitlines()) == path


# --- commands
@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose labels hold escape sequences, and what an encoding may lack."""
    names = [f"{ESCAPES}{index}\n→ ü" for index in range(LABELS)]
    return save_checkpoint(tmp_path_factory.mktemp("hostile") / "model", id2label=dict(enumerate(names)))


@pytest.mark.parametrize("encoding", ENCODINGS[:3])
@pytest.mark.parametrize("as_json", [False, True])
def test_classify_shows_labels_and_names_of_files(
    hostile: Path, class_folders: Path, tmp_path: Path, printed, encoding: str, as_json: bool
) -> None:
    video = tmp_path / f"a{ESCAPES.replace('/', '')}\n.mp4"
    video.symlink_to(next(class_folders.glob("test/*/clip_00.mp4")))
    words = ["classify", str(video), f"{ESCAPES}missing.mp4", "--model", str(hostile), "--r", "4", "--top-k", "2"]
    out, err = printed(lambda: run([*words, *(["--json"] if as_json else [])]), code=2, encoding=encoding)
    assert not COMMANDS_OF_TERMINALS.search(out + err)
    assert f"error: {SHOWN}missing.mp4: no such file" in err
    if as_json:
        content = json.loads(out)
        assert content["results"][0]["file"] == str(video)
        assert content["results"][0]["top"][0]["label"].startswith(ESCAPES)
    else:
        assert SHOWN in out
        assert ("→" if encoding == "utf-8" else "->") in out
        assert "Traceback" not in err


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_evaluate_prints_in_every_encoding_and_on_narrow_terminals(
    checkpoint: Path, readable: Path, tmp_path: Path, printed, encoding: str
) -> None:
    (readable / "test" / "running").rename(readable / "test" / f"running{ESCAPES}")
    command = ["evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(readable)]
    command += ["--split", "test", "--workers", "0", "-r", "0", "-r", "8", "--output", str(tmp_path / "out")]
    _, err = printed(lambda: run(command), code=2, encoding=encoding)
    assert SHOWN in err
    assert not COMMANDS_OF_TERMINALS.search(err)
    command += ["--labels", "number"]
    for columns in (None, 80, 40):
        resume = ["--resume"] if (tmp_path / "out").exists() else []
        out, err = printed(lambda more=resume: run(command + more), code=0, encoding=encoding, columns=columns)
        rates = json.loads((tmp_path / "out" / "timing.json").read_text())["clips_per_second"]
        lines = [line.split() for line in without_colours(out).splitlines()]
        numbers = [line[-1] for line in lines if "64" in line and line[-1].replace(".", "").isdigit()]
        assert numbers == [f"{rate:.1f}" for rate in rates]
        if columns is None:
            assert str(tmp_path / "out" / "predictions.jsonl") in out
            assert f"output    {tmp_path / 'out'}" in out


def commands() -> list[list[str]]:
    """The words of every command."""
    group = typer.main.get_command(app)
    found: list[list[str]] = [[]]
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        found.append([name])
        found += [[name, part] for part in getattr(command, "commands", {})]
    return found


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_every_help_is_printed_in_every_encoding(printed, encoding: str) -> None:
    for words in commands():
        out, _ = printed(lambda words=words: run([*words, "--help"]), code=0, encoding=encoding)
        assert "Usage: hf-video-tome" in out


def test_bad_values_are_shown_too(printed) -> None:
    for words in (["classify", "a.mp4", "--dtype", ESCAPES], ["classify", "a.mp4", f"--{ESCAPES}"], [ESCAPES]):
        _, err = printed(lambda words=words: run(words), code=2)
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert not COMMANDS_OF_TERMINALS.search(err)


# --- outputs that take nothing more
def test_who_has_read_enough_ends_a_command_quietly(commands: Commands) -> None:
    done = commands.run("--version", stdout="closed pipe")  # before anything was printed, as `| true` does
    assert done.stderr == ""
    assert done.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(commands: Commands) -> None:
    done = commands.run("--version", stdout="/dev/full")
    assert done.returncode == 2
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"
