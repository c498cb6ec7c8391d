"""Journal of expensive results: a search that is repeated after an interruption takes them from there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..merging.values import shown


class Memo:
    """Results by key, each computed once, and appended to a file as soon as it is known.

    The search is deterministic given these results, so that repeating it continues an interrupted one. An unfinished
    last line, from a killed process, is ignored.

    Args:
        path: The file, which is continued if it exists; None keeps the results in memory only.
        identity: What the results depend on, JSON-safe; the file of another identity is refused.

    Attributes:
        seconds: Time that the search took before, as far as results are known.

    Raises:
        ValueError: If the file belongs to another search, or is damaged.

    Examples:
        >>> memo = Memo(None, {})
        >>> memo.get("a", lambda: 1), memo.get("a", lambda: 2)
        (1, 1)
    """

    def __init__(self, path: str | os.PathLike[str] | None, identity: Mapping[str, Any]) -> None:
        self._path = None if path is None else Path(path)
        self._results: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self.seconds = 0.0
        self._began = time.monotonic()
        expected = json.loads(json.dumps(dict(identity)))
        if self._path is None:
            return
        finished = b""
        if self._path.exists():
            content = self._path.read_bytes()
            finished = content[: content.rfind(b"\n") + 1]
        if finished:
            self._read(finished, expected)
            with self._path.open("r+b") as handle:
                handle.truncate(len(finished))
        else:
            self._path.write_text(json.dumps({"search": expected}) + "\n", encoding="utf-8")

    def _read(self, content: bytes, expected: dict[str, Any]) -> None:
        for number, line in enumerate(content.splitlines(), 1):
            try:
                row = json.loads(line)
                if number > 1:
                    self._results[row["key"]] = row["result"]
                    self._seconds[row["key"]] = row["seconds"]
                    self.seconds = row["elapsed"]
                    continue
                found = row["search"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{self._path}: line {number} is damaged: delete the file to start over") from None
            for name in expected:
                if found.get(name) != expected[name]:
                    raise ValueError(
                        f"{self._path}: belongs to a search with {name} {shown(found.get(name))}, not "
                        f"{shown(expected[name])}: use another folder, or delete the file to start over"
                    )

    def __contains__(self, key: str) -> bool:
        return key in self._results

    @property
    def elapsed(self) -> float:
        """Seconds that the search has taken, before and after interruptions."""
        return self.seconds + time.monotonic() - self._began

    def seconds_of(self, key: str) -> float:
        """Returns the seconds that a result took."""
        return self._seconds[key]

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """Returns the result of a key, computed if it is not known yet.

        Args:
            key: What identifies the result.
            compute: Function that returns it, JSON-safe.
        """
        if key not in self._results:
            began = time.monotonic()
            # As if it was read, so that a repeated search sees the same numbers.
            result = json.loads(json.dumps(compute()))
            self._results[key], self._seconds[key] = result, time.monotonic() - began
            if self._path is not None:
                row = {"key": key, "result": result, "seconds": self._seconds[key], "elapsed": self.elapsed}
                with self._path.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(row) + "\n")
                    handle.flush()
                    os.fsync(handle.fileno())
        return self._results[key]
