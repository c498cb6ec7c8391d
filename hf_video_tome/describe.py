"""Descriptions of token merging settings for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from .merging.setting_error import PREFIX
from .merging.settings import SETTINGS, TokenMergingSettings, are_off, is_off


def setting_name(changes: Mapping[str, Any]) -> str:
    """Returns a short name for settings, as used in tables.

    Args:
        changes: Settings as for `set_token_merging`.

    Returns:
        The name; "as saved" if nothing is changed.

    Examples:
        >>> setting_name({"mode": "drop", "r": 150, "proportional_attention": False})
        'r = 150, drop, no proportional attention'
    """
    said = [name for name, value in changes.items() if value is not None]  # None: left to the architecture
    said.sort(key=lambda name: name != "r")  # r first
    return ", ".join(SETTINGS[name].short_name(name, changes[name]) for name in said) or "as saved"


def distinct_names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns short names for settings that only mention their differences.

    Args:
        settings: Settings as for `set_token_merging`.

    Returns:
        One name per entry.

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
        if "r" in changes and are_off(changes):
            own = {"r": 0}  # nothing else counts
        names.append(setting_name(own))
    return names if len(set(names)) == len(names) else [setting_name(changes) for changes in settings]


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Describes the settings that decide which tokens remain.

    Args:
        settings: Result of `token_merging_settings(resolved=True)` of a config.

    Returns:
        One line without a full stop.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> describe_settings(VideoMAEConfig(token_merging_r=150).token_merging_settings(resolved=True))
        'merge, r = 150 per layer, constant schedule, scope clip'
        >>> describe_settings(VideoMAEConfig().token_merging_settings(resolved=True))
        'off (r = 0): the stock model'
        >>> describe_settings(VideoMAEConfig(token_merging_r=[150, 75]).token_merging_settings(resolved=True))
        'merge, r = 150,75 by layer, scope clip'
        >>> config = VideoMAEConfig(token_merging_input="run_length", token_merging_input_keep=2 / 3)
        >>> describe_settings(config.token_merging_settings(resolved=True))
        'input run_length, keeping 0.6667 of the tubelets'
    """
    r = settings["r"]
    if are_off(settings):
        return "off (r = 0): the stock model"
    start = ""
    if settings.get("input") is not None:
        keep = settings["input_keep"]
        above = settings.get("input_threshold")
        kept = f"{SETTINGS['input_keep'].default if keep is None else _readable(keep)} of the tubelets"
        if above is not None:
            kept = f"tubelets that change by more than {_readable(above)}"
        start = f"input {settings['input']}, keeping {kept}"
        if is_off(r):
            return start
        start += ", then "
    mode = settings["mode"] + (
        f" (threshold {_readable(settings['threshold'])})" if settings["threshold"] is not None else ""
    )
    place = {"clip": "", "time": "place"}.get(settings["scope"], "frame")
    if isinstance(r, list):  # a list replaces the schedule
        amount = f"r = {','.join(map(_readable, r))} by layer" + (f", per {place}" if place else "")
    else:
        per = f"layer and {place}" if place else "layer"
        amount = f"r = {r} per {per}" if isinstance(r, int) else f"r = {_readable(r)} of the tokens per {per}"
        amount += f", {_readable(settings['schedule'])} schedule"
    return f"{start}{mode}, {amount}, scope {settings['scope']}"


def _readable(value: Any) -> str:
    """Returns a value as text; floats are rounded: 0.6667 says no less than 0.6666666666666666."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def settings_table() -> str:
    """Returns the Markdown table of all settings in the docs.

    Examples:
        >>> print(settings_table().splitlines()[0])
        | field | option | what it does | default |
    """
    rows = ["| field | option | what it does | default |", "|---|---|---|---|"]
    for it in fields(TokenMergingSettings):
        info = SETTINGS[it.name]
        option = f"`--{it.name.replace('_', '-')}`" if info.is_option else ""
        default = info.default_in_words(it.default)
        rows.append(f"| `{PREFIX}{it.name}` | {option} | {info.description} | {default} |")
    return "\n".join(rows) + "\n"


def mode_options_table() -> str:
    """Returns the Markdown table of the options of all modes in the docs.

    Examples:
        >>> print(mode_options_table().splitlines()[0])
        | mode | option | what it does | default |
    """
    from .merging.modes import MODES

    rows = ["| mode | option | what it does | default |", "|---|---|---|---|"]
    for mode in sorted(MODES):
        for name, option in MODES[mode].options.items():
            rows.append(f"| `{mode}` | `{name}` | {option.help} | `{option.default!r}` |")
    return "\n".join(rows) + "\n"
