"""Range checks of arbitrary numbers, and short texts of values for errors."""

from __future__ import annotations

import numbers
import sys
from typing import Any

_MAX_LENGTH = 80


def is_between(value: Any, low: float, high: float) -> bool:
    """Returns whether a value is a real number in [low, high], without converting it to float, which may overflow.

    Args:
        value: Any value; booleans do not count as numbers.
        low: The lowest number.
        high: The highest number.

    Returns:
        Whether it is in range.

    Examples:
        >>> is_between(0.5, -1, 1), is_between(10**400, -1, 1), is_between("0.5", -1, 1)
        (True, False, False)
    """
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(low <= value <= high)  # type: ignore[operator]


def shown(value: object) -> str:
    """Returns the `repr` of a value, truncated if long: files and callers may pass lists with millions of entries.

    Args:
        value: Any value.

    Returns:
        A short text.

    Examples:
        >>> shown([4, 2]), shown("a" * 1000)
        ('[4, 2]', "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa... (1002 characters)")
        >>> shown(10**5000)
        'an int of more than 4300 digits'
    """
    try:
        text = repr(value)
    except ValueError:  # Python's limit on the length of printed ints
        return f"{_article(value)} of more than {sys.get_int_max_str_digits()} digits"
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]}... ({len(text)} characters)"


def _article(value: object) -> str:
    return "an int" if isinstance(value, int) else f"a {type(value).__name__} with an int"
