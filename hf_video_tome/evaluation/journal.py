"""Journals: predictions written batch by batch, so that a killed process loses at most one batch."""

from __future__ import annotations

import errno
import json
import os
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
"""Prediction for one video with one of the settings, or the reason why it is unreadable."""

_PATTERN = "journal-*.jsonl"
_LINE = re.compile(rb'\["([0-9a-f]{8})", (.*)\]')


class JournalRemovedError(FileNotFoundError):
    """Raised when the output folder, or the journal in it, was removed while it was being written."""


class Journal:
    """Journals of all processes of an evaluation, one of which this process writes.

    Each process appends to its own file, one batch at a time. A line is a JSON list of a checksum and a row; rows
    without a checksum, written by older versions, are also read. An unfinished last line, from a killed process, is
    ignored; a damaged line is an error.

    Args:
        folder: Folder of the journals.
        process: Index of this process.

    Examples:
        >>> import tempfile
        >>> journal = Journal(tempfile.mkdtemp(), process=0)
        >>> with journal:
        ...     journal.append([{"position": 0, "setting": 0, "top": [3, 1]}])
        >>> journal.rows()
        [{'position': 0, 'setting': 0, 'top': [3, 1]}]
    """

    def __init__(self, folder: str | os.PathLike[str], process: int) -> None:
        self.folder = Path(folder)
        self.path = self._path(process)
        self._handle: Any = None
        self._identity: os.stat_result | None = None
        self._positions: dict[Path, tuple[int, int]] = {}

    def _path(self, process: int) -> Path:
        return self.folder / f"journal-{process:05d}.jsonl"

    def __enter__(self) -> Journal:
        self._handle = self.path.open("ab")
        self._identity = os.fstat(self._handle.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows and waits until they are on disk.

        Args:
            rows: JSON-safe rows of one batch.

        Raises:
            JournalRemovedError: If the file was removed.
        """
        self.check_there()
        self._handle.write("".join(map(_line, rows)).encode())
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def check_there(self) -> None:
        """Checks that this process's journal, if open, still exists.

        Raises:
            JournalRemovedError: If the file was removed or replaced.
        """
        if self._identity is None:
            return
        try:
            if os.path.samestat(self._identity, self.path.stat()):
                return
        except FileNotFoundError:
            pass
        what = "the journal in it" if self.folder.is_dir() else "it"
        reason = f"{what} was removed while the evaluation was writing to it, with its predictions"
        raise JournalRemovedError(errno.ENOENT, reason, str(self.folder))

    def exists(self) -> bool:
        """Returns whether any process has written a non-empty journal."""
        return any(path.stat().st_size for path in self.folder.glob(_PATTERN))

    def rows(self) -> list[Row]:
        """Reads the rows of all processes, complete lines only.

        Raises:
            ValueError: If a line is damaged.
        """
        return [row for path in sorted(self.folder.glob(_PATTERN)) for row in _read(path)[0]]

    def new_rows(self) -> list[Row]:
        """Reads the rows that all processes added since the last call.

        Raises:
            ValueError: If a line is damaged.
            JournalRemovedError: If the file of this process was removed.
        """
        self.check_there()
        found: list[Row] = []
        for path in sorted(self.folder.glob(_PATTERN)):
            rows, *position = _read(path, *self._positions.get(path, (0, 0)))
            self._positions[path] = (position[0], position[1])
            found += rows
        return found

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replaces the content of all journals, before any process writes.

        Args:
            rows: JSON-safe rows.
        """
        first = self._path(0)
        write_atomically(first, "".join(_line(row) for row in rows))
        for path in self.folder.glob(_PATTERN):
            if path != first:
                path.unlink()

    def delete(self) -> None:
        """Deletes the journals of all processes."""
        for path in self.folder.glob(_PATTERN):
            path.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Writes a file atomically.

    Args:
        path: The file; it may exist.
        text: Its content.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def read_rows(content: bytes, path: Path, first: int = 1) -> list[Row]:
    """Reads rows, one per line.

    Args:
        content: Complete lines: JSON objects, or lists of a checksum and an object.
        path: The file, for error messages.
        first: Number of the first line.

    Returns:
        The rows.

    Raises:
        ValueError: If a line is damaged; the message names it and the remedies.
    """
    rows = []
    for number, line in enumerate(content.split(b"\n")[:-1], first):
        try:
            rows.append(_row(line))
        except ValueError as error:
            raise ValueError(
                f"{path}: line {number} is damaged ({error}): restore an intact copy of the file, delete that line to "
                "repeat its batch (--resume), or start over (--overwrite)"
            ) from None
    return rows


def _line(row: Mapping[str, Any]) -> str:
    text = json.dumps(row, allow_nan=False)
    return f'["{zlib.crc32(text.encode()):08x}", {text}]\n'


def _row(line: bytes) -> Row:
    if not line.startswith(b"{"):
        match = _LINE.fullmatch(line)
        if match is None or int(match[1], 16) != zlib.crc32(match[2]):
            raise ValueError("its checksum does not match")
        line = match[2]
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    known = isinstance(row, dict) and isinstance(row.get("position"), int)
    if not known or ("error" not in row and not isinstance(row.get("setting"), int)):
        raise ValueError("it is not a prediction")
    return row


def _read(path: Path, offset: int = 0, lines: int = 0) -> tuple[list[Row], int, int]:
    """Reads complete lines from a byte offset; also returns the offset and the number of lines after them."""
    with path.open("rb") as handle:
        handle.seek(offset)
        content = handle.read()
    finished = content[: content.rfind(b"\n") + 1]
    rows = read_rows(finished, path, lines + 1)
    return rows, offset + len(finished), lines + len(rows)
