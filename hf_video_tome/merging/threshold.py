"""Threshold of the modes that need one."""

from __future__ import annotations

from typing import Any

from .setting_error import SettingError
from .values import is_between

_ALLOWED = "a cosine similarity in [-1, 1]"


def check_threshold(threshold: Any) -> float | None:
    """Checks a threshold and returns it in its JSON-safe form.

    Args:
        threshold: A cosine similarity in [-1, 1], or None.

    Returns:
        The value as a float, or None.

    Raises:
        SettingError: If `threshold` is neither.

    Examples:
        >>> check_threshold(1)
        1.0
    """
    if threshold is None:
        return None
    if is_between(threshold, -1, 1):
        value: float = threshold.__float__()  # see `check_r`
        return value
    raise SettingError("threshold", threshold, _ALLOWED, optional=True)


def missing_threshold(mode: str) -> SettingError:
    """Returns the error for a mode that needs a threshold and has none.

    Args:
        mode: Name of the mode.

    Examples:
        >>> print(missing_threshold("hybrid"))
        threshold must be a cosine similarity in [-1, 1] with mode='hybrid', got None
    """
    return SettingError("threshold", None, _ALLOWED, given={"mode": mode})
