"""Checks of settings and of options of modes."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Iterable
from typing import Any

from .schedule import MAX_R
from .setting_error import SettingError
from .values import is_between

Check = Callable[[Any], Any]
"""Returns a value in its JSON-safe form, or raises a `SettingError`."""


def one_of(name: str, allowed: Iterable[str] | Callable[[], Iterable[str]], optional: bool = False) -> Check:
    """Returns a check for a setting that takes one of several names.

    Args:
        name: Name of the setting.
        allowed: The allowed names, or a function that returns them at every check.
        optional: Whether None is allowed too.

    Returns:
        The check.

    Examples:
        >>> one_of("pooling", ("weighted", "mean"))("mean")
        'mean'
    """

    def check(value: object) -> object:
        names = list(allowed() if callable(allowed) else allowed)
        if (optional and value is None) or (isinstance(value, str) and value in names):
            return value
        raise SettingError(name, value, f"one of {', '.join(map(repr, names))}", optional=optional)

    return check


def true_or_false(name: str, none_means: str | None = None) -> Check:
    """Returns a check for a setting that is on or off.

    Args:
        name: Name of the setting.
        none_means: Meaning of None; if not given, None is not allowed.

    Returns:
        The check.

    Examples:
        >>> true_or_false("restore")(True)
        True
    """

    def check(value: object) -> object:
        if isinstance(value, bool) or (value is None and none_means is not None):
            return value
        raise SettingError(name, value, f"True, False, or None for {none_means}" if none_means else "True or False")

    return check


def at_least(name: str, least: int, optional: bool = False) -> Check:
    """Returns a check for a setting that takes an int from a least one on.

    Args:
        name: Name of the setting.
        least: The least value.
        optional: Whether None is allowed too.

    Returns:
        The check.

    Examples:
        >>> at_least("window", 0)(2)
        2
    """

    def check(value: object) -> object:
        if optional and value is None:
            return value
        if isinstance(value, numbers.Integral) and is_between(value, least, MAX_R):
            return operator.index(value)
        raise SettingError(name, value, f"an int >= {least}", optional=optional)

    return check
