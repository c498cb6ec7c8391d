"""Predictions on disk as they come, so that a process that is killed loses one batch at most."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
"""What is known of one video: its prediction with one of the settings, or why it could not be read."""

_PATTERN = "journal-*.jsonl"


class Journal:
    """The journals of all processes of an evaluation, and the one that this process writes.

    Each process appends to its own file, one JSON object a line, a whole batch at a time. A line that a killed process
    left unfinished is ignored.

    Args:
        folder: Where the journals lie.
        process: Number of this process.

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
        self._offsets: dict[Path, int] = {}

    def _path(self, process: int) -> Path:
        return self.folder / f"journal-{process:05d}.jsonl"

    def __enter__(self) -> Journal:
        self._handle = self.path.open("ab")
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes rows and waits until they are on the disk.

        Args:
            rows: JSON-safe rows of one batch.
        """
        self._handle.write("".join(map(_line, rows)).encode())
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def rows(self) -> list[Row]:
        """Reads the rows of all processes, finished lines only."""
        return [row for path in sorted(self.folder.glob(_PATTERN)) for row in _read(path, 0)[0]]

    def new_rows(self) -> list[Row]:
        """Reads the rows of all processes that were not there when this was called before."""
        found: list[Row] = []
        for path in sorted(self.folder.glob(_PATTERN)):
            rows, self._offsets[path] = _read(path, self._offsets.get(path, 0))
            found += rows
        return found

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Puts these rows in the place of all that is in the journals; before any process writes.

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
    """Writes a file so that whoever looks finds all of it or nothing.

    Args:
        path: The file, which may exist.
        text: Its content.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    scratch.replace(path)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _read(path: Path, offset: int) -> tuple[list[Row], int]:
    """Reads the finished lines from an offset in bytes on; gives also the offset after them."""
    with path.open("rb") as handle:
        handle.seek(offset)
        content = handle.read()
    finished = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in finished.splitlines()], offset + len(finished)
