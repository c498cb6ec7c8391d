"""Files of a saved checkpoint, in a folder or on the Hub, and JSON files of anybody."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .merging.values import shown


def find_saved_files(name_or_path: str | os.PathLike[str], names: Sequence[str], **hub_options: Any) -> Iterator[Path]:
    """The files of a checkpoint that have one of some names.

    Args:
        name_or_path: A folder, or a model id on the Hub.
        names: Names of the files.
        **hub_options: Where and how to look there, as for `transformers.utils.cached_file`.

    Yields:
        Those that there are, in the order of the names; on the Hub looked for one at a time.

    Raises:
        OSError: If the Hub refuses.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        yield from filter(Path.is_file, (folder / name for name in names))
        return
    from transformers.utils import cached_file

    for name in names:
        found = cached_file(str(name_or_path), name, **hub_options, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            yield Path(found)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON; the message begins with the path.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number or nesting without end
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or holds anything else; the message begins with the path.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {shown(content)}")
    return content
