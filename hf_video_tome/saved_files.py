"""Files of saved checkpoints, in a folder or on the Hub, and other JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .merging.values import shown


def find_saved_files(name_or_path: str | os.PathLike[str], names: Sequence[str], **hub_options: Any) -> Iterator[Path]:
    """Finds the files of a checkpoint by name.

    Args:
        name_or_path: A folder, or a model id on the Hub.
        names: Names of the files.
        **hub_options: Options of the Hub, as for `transformers.utils.cached_file`.

    Yields:
        The files that exist, in the order of `names`; files on the Hub are requested one at a time.

    Raises:
        OSError: If the Hub cannot be reached or denies access.
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
        The content.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not valid JSON; the message begins with the path.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or too long a number or too deeply nested
        raise ValueError(f"{path}: not valid JSON ({error})") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that contains an object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not valid JSON or contains anything else; the message begins with the path.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold a JSON object, got {shown(content)}")
    return content
