"""Annotation files and folders of video files, as the data set builders read them.

Every reader checks what it reads and raises a `ValueError` that names the file, the line and what is allowed. Builders
leave all access to files to this module: `datasets` replaces `open` and `Path` in the modules of its builders.
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# What data sets usually come in; downloaders add one of these to another.
_USUAL = ".mp4 .webm .mkv .avi .mov .m4v .mpg .mpeg .wmv .flv .3gp .ogv .ts .mts .m2ts"
# All else that FFmpeg reads video from.
_OTHERS = """
    .vob .asf .3g2 .ogg .mxf .f4v .divx .xvid .m2v .m1v .mpe .mpv .m2p .m2t .mp4v .mpeg4 .mpg4 .mk3d .qt .hdmov .mqv
    .wm .wtv .dvr-ms .rm .rmvb .ogm .ogx .mjpg .mjpeg .mj2 .y4m .ivf .nut .dv .dif .gxf .lrv .insv .mod .tod .evo .trp
    .tp .dav .amv .nsv .psp .ismv .drc .vc1 .h261 .h263 .h264 .264 .avc .h265 .265 .hevc .h266 .266 .vvc .obu .av1
    .avs2 .avs3 .cavs .bik .smk .roq .swf .fli .flc .kux .viv .ser .usm .moflex .gif .apng
"""
VIDEO_SUFFIXES: tuple[str, ...] = (*_USUAL.split(), *_OTHERS.split())
"""Suffixes of video files in lower case; earlier ones are preferred where a video is there twice."""

SPLIT_NAMES: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "validate", "valid"),
    "test": ("test", "testing"),
}
"""The splits, and the names under which annotation files and folders hold them; the first one is the usual one."""

UNLABELLED = -1
"""Label of a row without a class, as `datasets.ClassLabel` has it."""

_NAME_COLUMNS = ("name", "key", "label", "class", "class_name")
_INDEX_COLUMNS = ("id", "index", "label_id", "class_id")
_INTEGER = re.compile(r"[+-]?\d+(\.0*)?")


class Row(NamedTuple):
    """A row of an annotation file.

    Attributes:
        where: File and line, for messages.
        values: The cells by column, without surrounding white space; `""` for an empty one.
    """

    where: str
    values: dict[str, str]

    def text(self, column: str) -> str:
        """Return a cell that must not be empty."""
        value = self.values.get(column, "")
        if not value:
            raise ValueError(f"{self.where}: `{column}` is empty")
        return value

    def integer(self, column: str, minimum: int = 0, maximum: int | None = None) -> int:
        """Return a cell that must hold an integer within the bounds."""
        value = self.values.get(column, "")
        number = as_integer(value)
        if number is None or number < minimum or (maximum is not None and number > maximum):
            allowed = f"of at least {minimum}" if maximum is None else f"in {minimum}..{maximum}"
            raise ValueError(f"{self.where}: `{column}` must be an integer {allowed}, got {value!r}")
        return number


def as_integer(value: object) -> int | None:
    """Return an integer that may be written as text or as a float (`7`, `"7"`, `"7.0"`); None for anything else."""
    text = "" if isinstance(value, bool) else str(value).strip()
    return int(text.split(".")[0]) if _INTEGER.fullmatch(text) else None


def canonical_split(name: object) -> str | None:
    """Return `train`, `validation` or `test` for one of their names in any case, None for any other name."""
    lowered = str(name).strip().lower()
    return next((split for split, names in SPLIT_NAMES.items() if lowered in names), None)


def absolute(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path, with `~` expanded. Links stay: data folders are often made of them."""
    return Path(os.path.abspath(os.path.expanduser(path)))


def first_existing(folders: Iterable[Path], names: Iterable[str]) -> Path | None:
    """Return the first file that exists, all names of a folder before the next folder."""
    names = list(names)
    return next((folder / name for folder in folders for name in names if (folder / name).is_file()), None)


def read_text(path: Path) -> str:
    """Read a UTF-8 file, with or without a byte order mark."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a UTF-8 text file ({error})") from None


def read_table(path: Path, required: Sequence[str] = (), unnamed: Sequence[str] = ()) -> list[Row]:
    """Read a CSV file with a header line.

    Args:
        path: The file.
        required: Columns that it must have; others are read as well.
        unnamed: What the first columns are called where the first line begins with an integer and so is no header. If
            empty, there must be a header.

    Returns:
        Its rows; there is at least one. Blank lines are left out.

    Raises:
        ValueError: If a column or all rows are missing, or a row has another number of cells than the header.
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
    """Raise a `ValueError` that names the columns which are missing."""
    missing = [column for column in required if column not in columns]
    if missing:
        names = ", ".join(f"`{column}`" for column in missing)
        raise ValueError(f"{path}: missing column {names}; it has {', '.join(columns) or 'none'}")


def read_json(path: Path) -> Any:
    """Read a JSON file, or raise a `ValueError` that names file and line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number or nesting without end
        raise ValueError(f"{path}: not JSON that can be read ({error})") from None


def read_label_names(path: Path, *, keys: str | None = None) -> list[str]:
    """Read the names of classes.

    Args:
        path: A `.json` file (a list of names, or a mapping from name to index or from index to name), a `.csv` file
            (`id` and `name` or `key` in its header, or an index and a name without one), or a text file with one name
            a line.
        keys: What the keys of a JSON mapping are, "name" or "index", where both they and the values may be the
            indices; None refuses such a mapping, unless it means the same in both ways.

    Returns:
        The names in the order of their indices.

    Raises:
        ValueError: If a name is there twice, the indices are not 0, 1, 2, ..., or it is not clear which they are.
    """
    suffix = path.suffix.lower()
    pairs: list[tuple[object, object]]
    if suffix == ".json":
        content = read_json(path)
        if isinstance(content, dict):
            pairs = _indexed(path, content, keys)
        elif isinstance(content, list):
            pairs = list(enumerate(content))
        else:
            raise ValueError(f"{path}: must hold a list of names or a mapping, got {type(content).__name__}")
    elif suffix == ".csv":
        table = read_table(path, unnamed=("id", "name"))
        columns = {column.lower(): column for column in table[0].values}
        index_column = next((columns[name] for name in _INDEX_COLUMNS if name in columns), None)
        name_column = next((columns[name] for name in _NAME_COLUMNS if name in columns), None)
        if index_column is None or name_column is None:
            raise ValueError(
                f"{path}: must have one of the columns {', '.join(_INDEX_COLUMNS)} and one of "
                f"{', '.join(_NAME_COLUMNS)}; it has {', '.join(columns.values())}"
            )
        pairs = [(row.integer(index_column), row.text(name_column)) for row in table]
    else:
        pairs = list(enumerate(line.strip() for line in read_text(path).rstrip().splitlines()))
    names: dict[int, str] = {}
    for index, name in pairs:
        number = as_integer(index)
        if number is None or number in names:
            raise ValueError(
                f"{path}: the index of {name!r} must be an integer that no other class has, got {index!r}"
            )
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{path}: the name of class {number} must be text that is not empty, got {name!r}")
        names[number] = name.strip()
    if not names or sorted(names) != list(range(len(names))):
        raise ValueError(f"{path}: the indices must be 0, 1, 2, ..., got {sorted(names)[:5]} ... of {len(names)}")
    check_unique((name, f"{path}, class {index}") for index, name in sorted(names.items()))
    return [names[index] for index in range(len(names))]


def _indexed(path: Path, content: Mapping[str, object], keys: str | None) -> list[tuple[object, object]]:
    """Return the pairs of index and name of a mapping from either to the other."""
    by_index = [(as_integer(key), value) for key, value in content.items()]
    by_name = [(as_integer(value), key) for key, value in content.items()]

    def may_be(pairs: Iterable[tuple[int | None, object]]) -> bool:
        """Whether these are all of the indices, and names with them."""
        indices, names = zip(*pairs, strict=True)
        return set(indices) == set(range(len(content))) and all(isinstance(name, str) for name in names)

    if content and may_be(by_index) and may_be(by_name):
        if keys is None and set(by_index) != set(by_name):
            raise ValueError(
                f"{path}: both its keys and its values are 0 to {len(content) - 1}, so that it is not clear which are "
                "the names; give them as a list"
            )
        return list(by_name if keys == "name" else by_index)
    if all(index is not None for index, _ in by_index) and not (content and may_be(by_name)):
        return list(content.items())
    return [(value, key) for key, value in content.items()]


def check_unique(items: Iterable[tuple[str, str]]) -> None:
    """Raise a `ValueError` for an id that is there twice.

    Args:
        items: Ids, each with where it stands.
    """
    seen: dict[str, str] = {}
    for identifier, where in items:
        if identifier in seen:
            raise ValueError(f"{where}: {identifier!r} is there already ({seen[identifier]})")
        seen[identifier] = where


def without_video_suffix(name: str) -> str | None:
    """Return a file name without its video suffix, or both of them (`a.mp4.mkv`); None if it has none."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in VIDEO_SUFFIXES or not stem:
        return None
    shorter, suffix = os.path.splitext(stem)
    return shorter if suffix.lower() in _USUAL.split() else stem


class VideoFiles:
    """Finds video files by name, whatever their suffix; lists each folder once instead of asking for each file.

    A link with the suffix of a video is one wherever it leads: what it leads to is found out when it is read.
    """

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[dict[str, list[str]], list[str]]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Return the file of that name with any video suffix; None if there is none.

        Args:
            folder: Where to look; it need not exist.
            name: The file name, with or without a suffix. A file of exactly this name comes first.
        """
        names = self._listing(folder)[0].get(without_video_suffix(name) or name, [])
        if not names:
            return None
        return folder / (name if name in names else names[0])

    def names(self, folder: Path) -> list[str]:
        """Return the names of all video files in the folder, sorted; hidden ones are left out."""
        return sorted(name for names in self._listing(folder)[0].values() for name in names)

    def tree(self, folder: Path) -> list[str]:
        """Return the paths of all video files in the folder and in those below it, relative to it, sorted.

        Links to folders are followed, but not round and round; hidden folders are left out.
        """
        return sorted(self._tree(folder, "", ()))

    def _tree(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[str]:
        yield from (prefix + name for name in self.names(folder))
        above = (*above, folder)
        for name in self._listing(folder)[1]:
            inner = folder / name
            if not any(holds(inner, outer) for outer in above):
                yield from self._tree(inner, f"{prefix}{name}/", above)

    def _listing(self, folder: Path) -> tuple[dict[str, list[str]], list[str]]:
        """Return the video files by their names without suffix, and the folders."""
        if folder not in self._listings:
            files: dict[str, list[str]] = {}
            folders: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        stem = without_video_suffix(entry.name)
                        if entry.name.startswith("."):
                            continue
                        if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                            folders.append(entry.name)
                        elif stem is not None and (entry.is_symlink() or entry.is_file()):
                            files.setdefault(stem, []).append(entry.name)
                        elif "." not in entry.name and leads_nowhere(entry):
                            files.setdefault(entry.name, []).append(entry.name)  # perhaps to a folder of videos
            except (FileNotFoundError, NotADirectoryError):
                pass
            for names in files.values():
                names.sort(key=_preference)
            self._listings[folder] = files, folders
        return self._listings[folder]


def _preference(name: str) -> tuple[int, str]:
    suffix = os.path.splitext(name)[1].lower()
    return VIDEO_SUFFIXES.index(suffix) if suffix in VIDEO_SUFFIXES else len(VIDEO_SUFFIXES), name


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Return whether this is a link to something that is not there; one to itself leads to nothing that could be."""
    if not os.path.islink(path):
        return False
    try:
        os.stat(path)
    except OSError as error:
        return error.errno != errno.ELOOP
    return False


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name; a missing folder has none.

    Hidden ones are left out, and links to what holds them.
    """
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in found if not (path.is_symlink() and holds(path, folder)))


def holds(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Return whether a folder is another one, or one above it, whatever links lead there."""
    outer = os.path.realpath(path)
    return os.path.commonpath((outer, os.path.realpath(other))) == outer


def check_links(folder: Path) -> None:
    """Raise a `ValueError` for a link in the folder that may have been one to a folder, and leads nowhere."""
    for path in sorted(folder.iterdir()):
        if "." not in path.name and leads_nowhere(path):
            raise ValueError(f"{path}: is a link to {os.readlink(path)!r}, which is not there")


__all__ = [
    "SPLIT_NAMES",
    "UNLABELLED",
    "VIDEO_SUFFIXES",
    "Row",
    "VideoFiles",
    "absolute",
    "as_integer",
    "canonical_split",
    "check_columns",
    "check_links",
    "check_unique",
    "first_existing",
    "read_json",
    "read_label_names",
    "read_table",
    "read_text",
    "subfolders",
    "without_video_suffix",
]
