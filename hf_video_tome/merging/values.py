"""Checks of numbers that may be of any size, and how errors show them."""

from __future__ import annotations

import numbers
import sys
from typing import Any

_MAX_LENGTH = 80


def is_between(value: Any, low: float, high: float) -> bool:
    """Whether a value is a real number from `low` to `high`, without turning it into a float, which it may not fit.

    Args:
        value: Any value; booleans are no numbers.
        low: The lowest number.
        high: The highest number.

    Returns:
        Whether it is.

    Examples:
        >>> is_between(0.5, -1, 1), is_between(10**400, -1, 1), is_between("0.5", -1, 1)
        (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(low <= value <= high)  # type: ignore[operator]


def shown(value: object) -> str:
    """The `repr` of a value, cut where it is long: a file or a caller may give a list of millions.

    Args:
        value: Any value.

    Returns:
        One short text.

    Examples:
        >>> shown([4, 2]), shown("a" * 1000)
        ('[4, 2]', "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (1002 characters)")
        >>> shown(10**5000)
        'an int of more than 4300 digits'
    """
    try:
        text = repr(value)
    except ValueError:  # as Python has it for ints that take long to write
        return f"{_article(value)} of more than {sys.get_int_max_str_digits()} digits"
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]}... ({len(text)} characters)"


def _article(value: object) -> str:
    return "an int" if isinstance(value, int) else f"a {type(value).__name__} with an int"
