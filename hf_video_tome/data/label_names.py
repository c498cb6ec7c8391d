"""Class names from files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .annotations import as_integer, check_unique, read_json, read_table, read_text

_NAME_COLUMNS = ("name", "key", "label", "class", "class_name")
_INDEX_COLUMNS = ("id", "index", "label_id", "class_id")


def read_label_names(path: Path, *, keys: str | None = None) -> list[str]:
    """Reads class names.

    Args:
        path: A `.json` file (a list of names, or a mapping from name to index or from index to name), a `.csv` file
            (`id` and `name` or `key` in its header, or an index and a name without a header), or a text file with one
            name per line.
        keys: What the keys of a JSON mapping are, "name" or "index", if both keys and values could be the indices.
            None rejects such a mapping, unless both readings agree.

    Returns:
        The names ordered by index.

    Raises:
        ValueError: If a name occurs twice, the indices are not 0, 1, 2, ..., or they cannot be told from the names.
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
    """Returns the (index, name) pairs of a mapping in either direction."""
    by_index = [(as_integer(key), value) for key, value in content.items()]
    by_name = [(as_integer(value), key) for key, value in content.items()]

    def may_be(pairs: Iterable[tuple[int | None, object]]) -> bool:
        """Returns whether the pairs are all of the indices, each with a name."""
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
