"""Short names for token merging settings, for tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def setting_name(changes: Mapping[str, Any]) -> str:
    """A short name for settings.

    Args:
        changes: Settings as for `set_token_merging`.

    Returns:
        The name; "as saved" where nothing is changed.

    Examples:
        >>> setting_name({"mode": "drop", "r": 150, "proportional_attention": False})
        'r = 150, drop, no proportional attention'
    """
    words: list[str] = []
    for name, value in changes.items():
        if name == "r":
            words.insert(0, f"r = {','.join(map(str, value)) if isinstance(value, list) else value}")
        elif name in ("mode", "schedule", "scope"):
            words.append(str(value))
        elif name == "proportional_attention":
            words.append(f"{'' if value else 'no '}proportional attention")
        elif value is not None:
            words.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(words) or "as saved"


def distinct_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Short names for settings that say only in what they differ.

    Args:
        settings: Settings as for `set_token_merging`.

    Returns:
        One name for each.

    Examples:
        >>> distinct_names([{"r": 0}, {"r": 24, "mode": "drop"}, {"r": 38, "mode": "drop"}])
        ['r = 0', 'r = 24, drop', 'r = 38, drop']
    """
    common = {
        name
        for name in settings[0]
        if len(settings) > 1 and all(name in other and other[name] == settings[0][name] for other in settings)
    }
    names = []
    for changes in settings:
        own = {name: value for name, value in changes.items() if name not in common}
        if changes.get("r") == 0:
            own = {"r": 0}  # nothing else counts
        names.append(setting_name(own))
    return names if len(set(names)) == len(names) else [setting_name(changes) for changes in settings]
