"""Output of the commands: tables, lines, errors, progress bars, JSON.

Labels, file names and messages of other libraries may contain escape sequences, bidirectional control characters, or
characters missing from the output encoding. While a command runs, stdout and stderr are `PrintableStream`s, which
print such characters as Python escapes.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

UNLIMITED = 1_000_000
"""Width, in columns, of a pipe or file."""
NARROWEST_TEXT = 16
"""Smallest width, in columns, to which a text column is folded."""
NARROWEST_BAR = 60
"""Terminal width, in columns, needed for a progress bar; narrower terminals get lines."""
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # inside words of Hindi or Persian, and inside emoji
_SPELLINGS = {
    "→": "->",
    "±": "+/-",
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
}  # for encodings without our own symbols
_CURSOR_MOVES = re.compile(r"\r|(?:\n|\x1b\[A)+$")


# --- characters
def printable(text: str, encoding: str | None = None, keep: str = "") -> str:
    r"""Escapes control characters and characters missing from an encoding.

    Args:
        text: Any text.
        encoding: Output encoding; None means UTF-8.
        keep: Control characters to keep, such as line breaks.

    Returns:
        The text with such characters as Python string escapes.

    Examples:
        >>> print(printable("\x1b[31mred\u202e.mp4"))
        \x1b[31mred\u202e.mp4
        >>> print(printable("64 → 32, naïve", "ascii"))
        64 -> 32, na\xefve
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep else _printable_character(character, encoding or "utf-8") for character in text
    )


def _printable_character(character: str, encoding: str) -> str:
    if unicodedata.category(character) not in _HIDDEN or character in _JOINERS:
        try:
            character.encode(encoding)
            return character
        except UnicodeEncodeError:
            if character in _SPELLINGS:
                return _SPELLINGS[character]
    return character.encode("unicode_escape").decode("ascii")


def one_line(message: object) -> str:
    """Returns a message without line breaks."""
    if isinstance(message, OSError) and message.strerror:
        message = f"{message.strerror}: {message.filename}" if message.filename else message.strerror
    return re.sub(r"(?:[ \t]|\r?\n)+", " ", str(message)).strip(" ")


# --- streams
class OutputError(OSError):
    """Raised when stdout or stderr is not writable: its reader is gone, or its disk is full."""


class OutputStream(io.TextIOBase):
    """Stream that raises `OutputError`, to distinguish its errors from those of files.

    Args:
        stream: Underlying stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self.stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        """Writes text."""
        with _output_errors():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream."""
        with _output_errors():
            self.stream.flush()

    def isatty(self) -> bool:
        """Returns whether the stream is a terminal."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Returns the file descriptor of the stream."""
        return self.stream.fileno()

    def writable(self) -> bool:
        """Returns True: the stream is writable."""
        return True


class PrintableStream(OutputStream):
    """Stream that prints only `printable` text, line breaks and tabs.

    Progress bars of other libraries may move the cursor before their text.
    """

    def write(self, text: str) -> int:
        """Writes text."""
        moves = _CURSOR_MOVES.match(text)
        begin = moves.end() if moves else 0
        super().write(text[:begin] + printable(text[begin:], self.encoding, keep="\n\t"))
        return len(text)


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(error.errno, error.strerror) from error


def print_safely() -> None:
    """Replaces stdout and stderr with `PrintableStream`s."""
    sys.stdout, sys.stderr = _safe(sys.stdout), _safe(sys.stderr)


@contextmanager
def safe_printing() -> Iterator[None]:
    """Replaces stdout and stderr with `PrintableStream`s inside the block."""
    before = sys.stdout, sys.stderr
    print_safely()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _safe(stream: Any) -> Any:
    return stream if stream is None or isinstance(stream, PrintableStream) else PrintableStream(stream)


def _raw(stream: Any) -> Any:
    """Returns the underlying stream, for code that escapes characters before layout and colouring."""
    stream = getattr(stream, "rich_proxied_file", stream)
    return OutputStream(stream.stream) if isinstance(stream, PrintableStream) else stream


class PrintableConsole(Console):
    """Rich console that prints only `printable` text and does not interpret markup in file names and labels."""

    def __init__(self, stderr: bool = False) -> None:
        file = _raw(sys.stderr if stderr else sys.stdout)
        super().__init__(file=file, markup=False, highlight=False, emoji=False, soft_wrap=False)
        if not self.is_screen:
            self.width = UNLIMITED

    @property
    def is_screen(self) -> bool:
        """Whether the output is a real terminal: colours can be forced for others."""
        return bool(self.file.isatty())

    def render_str(self, text: str, **options: Any) -> Text:
        """Renders text before layout."""
        return super().render_str(printable(text, self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders anything, escaping text that did not come through `render_str`."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text, self.encoding, keep="\n"), style)


# --- lines
def print_line(text: object = "", stderr: bool = False) -> None:
    """Prints one line without wrapping."""
    file = sys.stderr if stderr else sys.stdout
    print(printable(str(text), getattr(file, "encoding", None)), file=file, flush=True)


def print_lines(text: str) -> None:
    """Prints text with line breaks."""
    for line in text.split("\n"):
        print_line(line)


def print_paragraph(text: str) -> None:
    """Prints text, wrapped between words on a terminal."""
    _print(PrintableConsole(), text)


def write_json(content: Mapping[str, Any]) -> None:
    """Prints one JSON object on stdout, in ASCII, which is safe for all encodings and terminals."""
    print_lines(json.dumps(content, indent=2, allow_nan=False))


def is_main_process() -> bool:
    """Returns whether this process prints: the first of those started by torchrun or accelerate launch."""
    return os.environ.get("RANK", "0") == "0"


def came_from_main(error: BaseException | None) -> bool:
    """Returns whether an exception, or its cause, was raised by the main process in all processes."""
    from ..evaluation.processes import FROM_MAIN

    while error is not None:
        if FROM_MAIN in getattr(error, "__notes__", ()):
            return True
        error = error.__cause__
    return False


def print_error(message: object) -> None:
    """Prints one line, `error: ...`, on stderr; errors of all processes are printed once, by the main one."""
    if not is_main_process() and isinstance(message, BaseException) and not came_from_main(message):
        print_line(f"error: process {os.environ['RANK']}: {one_line(message)}", stderr=True)
    elif is_main_process():
        print_line(f"error: {one_line(message)}", stderr=True)


def print_note(message: object) -> None:
    """Prints one line, `note: ...`, on stderr, in the main process only."""
    if is_main_process():
        print_line(f"note: {one_line(message)}", stderr=True)


# --- tables
def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Prints names and values, one per line; long values are folded on a terminal, but never truncated."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(name, str(value))
    _print(PrintableConsole(), table)


def print_table(
    names: Sequence[str], rows: Iterable[Sequence[str]], *, text: Collection[str], title: str = ""
) -> None:
    """Prints a table; text is folded on a narrow terminal, numbers are not.

    Args:
        names: Names of the columns.
        rows: Cells of each row.
        text: Names of text columns; the others are numeric and right-aligned.
        title: Title line above the table.
    """
    screen, cells = PrintableConsole(), [list(names), *map(list, rows)]
    widest = [
        max(cell_len(printable(cell, screen.encoding)) for cell in column) for column in zip(*cells, strict=True)
    ]
    needed = sum(
        min(width, NARROWEST_TEXT) if name in text else width for name, width in zip(names, widest, strict=True)
    )
    gap = 2 if sum(widest) + 2 * len(names) <= screen.width else 1
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for name in names:
        justify: Any = "left" if name in text else "right"
        table.add_column(name, justify=justify, no_wrap=name not in text, overflow="fold")
    for row in cells[1:]:
        table.add_row(*row)
    if title:
        print_line(title)
    screen.width = max(screen.width, needed + gap * len(names))
    _print(screen, table)


def _print(screen: PrintableConsole, renderable: RenderableType) -> None:
    """Prints without rich's trailing spaces."""
    with screen.capture() as captured:
        screen.print(renderable)
    print("\n".join(line.rstrip(" ") for line in captured.get().split("\n")), end="", file=screen.file, flush=True)


# --- progress
@contextmanager
def progress_bar(description: str, total: int, enabled: bool = True) -> Iterator[Callable[[], None]]:
    """Shows a progress bar on stderr, or one line if stderr is not a terminal.

    Args:
        description: Description of the task.
        total: Number of steps.
        enabled: Whether to show anything.

    Yields:
        The function to call after each step.
    """
    if enabled and not fits_bar():
        print_line(f"{description} ...", stderr=True)
    if not enabled or not fits_bar():
        yield lambda: None
        return
    with live_bar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda: progress.advance(task)


def fits_bar() -> bool:
    """Returns whether stderr is a terminal wide enough for a progress bar."""
    screen = PrintableConsole(stderr=True)
    return screen.is_terminal and screen.is_screen and screen.width >= NARROWEST_BAR


def live_bar(*columns: Any, text_first: bool = True) -> Progress:
    """Returns a progress bar on stderr, with the task's description (folded, not truncated) before or after it."""
    text = TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold"))
    # stdout is not redirected: it may be machine-readable.
    return Progress(
        *((text, *columns) if text_first else (*columns, text)),
        console=PrintableConsole(stderr=True),
        redirect_stdout=False,
    )
