"""Token merging options of the commands, generated from the settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from ..merging.setting_error import SettingError
from ..merging.settings import SETTINGS, TokenMergingSettings
from ..merging.values import shown
from .common import InputError, option_name

Group = TypeVar("Group", bound="SettingOptions")

SEVERAL = "Can be given more than once."
"""Help of an option that takes several values."""
_SHORT = {"r": ["-r"]}
_DEFAULTS_OF_CHECKPOINT = {"r": "as saved with the checkpoint, else 0"}


def setting_option(name: str, several: bool = False) -> Any:
    """Returns the annotation of the option of a setting.

    Args:
        name: Name of the setting.
        several: Whether it can be given more than once.
    """
    if several:
        return Annotated[list[str] | None, option_of(name, SEVERAL)]
    return (
        Annotated[str | None, option_of(name)] if SETTINGS[name].metavar else Annotated[bool | None, option_of(name)]
    )


def option_of(name: str, more: str = "", default: str | None = None) -> Any:
    """Returns the `typer.Option` of a setting.

    Args:
        name: Name of the setting.
        more: What the help says after the description of the setting.
        default: The default in words, in place of that of the setting.
    """
    info, option = SETTINGS[name], option_name(name)
    shown = default or _DEFAULTS_OF_CHECKPOINT.get(name) or info.default or getattr(TokenMergingSettings, name)
    names = [option, *_SHORT.get(name, [])] if info.metavar else [f"{option}/--no-{option.removeprefix('--')}"]
    return typer.Option(
        *names,
        metavar=info.metavar or None,
        help=f"{info.description} {more}".rstrip(),
        show_default=False if shown is None else shown,
    )


def parse_setting(name: str, text: str, option: str | None = None) -> Any:
    """Parses the value of a setting, and checks it as far as possible without the model.

    Args:
        name: Name of the setting.
        text: The typed value: a number, a word, or comma-separated numbers.
        option: Name of the option in the error; None uses that of the setting.

    Returns:
        The JSON-safe value.

    Raises:
        InputError: If the value is invalid.

    Examples:
        >>> parse_setting("r", "150"), parse_setting("r", "8,8,4"), parse_setting("schedule", "decreasing")
        (150, [8, 8, 4], 'decreasing')
    """
    if text == "none" and getattr(TokenMergingSettings, name) is None:
        return None
    parse = SETTINGS[name].parse or _numbers_or_text
    try:
        return SETTINGS[name].check(parse(text))
    except SettingError as error:
        error.got = shown(text)
        raise InputError(error.message(lambda field: option or option_name(field), " ", takes_none=False)) from None


def _numbers_or_text(text: str) -> Any:
    parts = [_number_or_text(part) for part in text.split(",")]
    return parts if len(parts) > 1 else parts[0]


def _number_or_text(text: str) -> int | float | str:
    # int() and float() also accept 1_0, nan and digits of all scripts.
    if re.fullmatch(r"\s*[-+]?\d+\s*", text, re.ASCII) and len(text) < 1000:
        return int(text)
    if re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", text, re.ASCII):
        return float(text)
    return text


def parse_settings(**options: Any) -> dict[str, Any]:
    """Parses the values of the given options.

    Args:
        **options: Values by setting name; None for options that were not given.

    Returns:
        Settings for `set_token_merging`, checked as far as possible without the model.

    Raises:
        InputError: If a value is invalid.
    """
    return {
        name: value if name not in SETTINGS or not isinstance(value, str) else parse_setting(name, value)
        for name, value in options.items()
        if value is not None
    }


def with_options(*names: str) -> Callable[[type[Group]], type[Group]]:
    """Returns a decorator that makes a class a dataclass with one option field per setting, in order."""

    def decorate(group: type[Group]) -> type[Group]:
        group.__annotations__ |= {name: setting_option(name) for name in names}
        for name in names:
            setattr(group, name, None)
        return dataclass(frozen=True)(group)

    return decorate


class SettingOptions:
    """Values of setting options as typed; None if not given."""

    def settings(self, **others: Any) -> dict[str, Any]:
        """Returns the given options as settings for `set_token_merging`.

        Args:
            **others: Values of the command's other setting options, by name.

        Raises:
            InputError: If a value is invalid for any model.
        """
        return parse_settings(**others, **asdict(self))  # type: ignore[call-overload]


_OPTIONS = tuple(name for name, info in SETTINGS.items() if info.is_option)
_REMOVAL = ("r", "mode", "schedule")


@with_options(*(name for name in _OPTIONS if name not in _REMOVAL))
class MatchingOptions(SettingOptions):
    """Options for all settings except r, mode and schedule, for commands that compare several of these."""


class PresetName(StrEnum):
    """Names of the presets: typer has no lists of literals."""

    paper = "paper"
    balanced = "balanced"
    fast = "fast"


@with_options(*_OPTIONS)
class MergingOptions(SettingOptions):
    """Options for all settings, for commands that take one value of each."""

    preset: Annotated[
        PresetName | None,
        typer.Option(
            help="Settings by name, instead of all others: balanced (at least 2.5 times fewer operations), fast (4 "
            "times; 3 for models that attend to space and time separately), or those of the paper."
        ),
    ] = None


ModeOption = setting_option("mode")
ModesOption = setting_option("mode", several=True)
ScheduleOption = setting_option("schedule")
SchedulesOption = setting_option("schedule", several=True)
