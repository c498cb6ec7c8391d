"""Readers of annotation files: tables, JSON and text.

Every reader checks its input and raises a `ValueError` that names the file, the line and what is allowed. Builders
access files only through this module, `label_names` and `video_files`: `datasets` replaces `open` and `Path` in the
modules of its builders.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "validate", "valid"),
    "test": ("test", "testing"),
}
"""The splits, with the names that annotation files and folders use for them, the most common first."""

UNLABELLED = -1
"""Label of a row without a class, as in `datasets.ClassLabel`."""

_INTEGER = re.compile(r"[+-]?\d+(\.0*)?")


class Row(NamedTuple):
    """A row of an annotation file.

    Attributes:
        where: File and line, for messages.
        values: The cells by column, stripped of surrounding white space; `""` for an empty cell.
    """

    where: str
    values: dict[str, str]

    def text(self, column: str) -> str:
        """Returns a non-empty cell."""
        value = self.values.get(column, "")
        if not value:
            raise ValueError(f"{self.where}: {column} is empty")
        return value

    def integer(self, column: str, minimum: int = 0, maximum: int | None = None) -> int:
        """Returns a cell as an integer within the bounds."""
        value = self.values.get(column, "")
        number = as_integer(value)
        if number is None or number < minimum or (maximum is not None and number > maximum):
            allowed = f"of at least {minimum}" if maximum is None else f"in {minimum}..{maximum}"
            raise ValueError(f"{self.where}: {column} must be an integer {allowed}, got {value!r}")
        return number


def as_integer(value: object) -> int | None:
    """Returns an integer given as a number or as text (`7`, `"7"`, `"7.0"`); None for anything else."""
    text = "" if isinstance(value, bool) else str(value).strip()
    return int(text.split(".")[0]) if _INTEGER.fullmatch(text) else None


def canonical_split(name: object) -> str | None:
    """Returns the canonical split of a name in any case (`train`, `validation` or `test`), None if it is no split."""
    lowered = str(name).strip().lower()
    return next((split for split, names in SPLIT_NAMES.items() if lowered in names), None)


def absolute(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path, with `~` expanded. Links are kept: data folders are often built from them."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def first_existing(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Returns the first existing file, trying all names in one folder before the next folder."""
    names = list(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def read_text(path: Path) -> str:
    """Reads a UTF-8 file, with or without a byte order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from None


def read_table(path: Path, required: Sequence[str] = (), unnamed: Sequence[str] = ()) -> list[Row]:
    """Reads a CSV file with a header line.

    Args:
        path: The file.
        required: Columns that the file must have; others are read as well.
        unnamed: Names of the first columns for a file without a header, whose first line begins with an integer. If
            empty, a header is required.

    Returns:
        The rows, at least one. Blank lines are skipped.

    Raises:
        ValueError: If a column or all rows are missing, or if a row and the header differ in their number of cells.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows: list[Row] = []
    columns: list[str] = []
    has_header = True
    try:
        for line in reader:
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            if not columns:
                has_header = not unnamed or as_integer(cells[0]) is None
                columns = cells if has_header else [*unnamed, *map(str, range(len(unnamed), len(cells)))]
                check_columns(path, columns, required)
                if has_header:
                    continue
            where = f"{path}, line {reader.line_num}"
            if len(cells) != len(columns):
                first = "the header has" if has_header else "there must be"
                raise ValueError(f"{where}: has {len(cells)} cells, but {first} {len(columns)}")
            rows.append(Row(where, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not a CSV file ({error})") from None
    if not rows:
        raise ValueError(f"{path}: holds no row")
    return rows


def check_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    """Raises a `ValueError` that names the missing columns."""
    missing = [column for column in required if column not in columns]
    if missing:
        raise ValueError(f"{path}: missing column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")


def read_json(path: Path) -> Any:
    """Reads a JSON file; a `ValueError` names the file and the line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # an endless number or nesting
        raise ValueError(f"{path}: not JSON that can be read ({error})") from None


def check_unique(items: Iterable[tuple[str, str]]) -> None:
    """Checks that ids are unique.

    Args:
        items: Ids, each with its location.

    Raises:
        ValueError: If an id occurs twice.
    """
    seen: dict[str, str] = {}
    for identifier, where in items:
        if identifier in seen:
            raise ValueError(f"{where}: {identifier!r} is there already ({seen[identifier]})")
        seen[identifier] = where
