"""The error of a setting, or another argument, that does not take its value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .values import shown

PREFIX = "token_merging_"
"""What the names of settings begin with where they are fields of a config or keywords of a call."""


class SettingError(ValueError):
    """A setting was given a value that it does not take: "{field} must be {allowed}, got {value}".

    Whoever knows the setting by another name, as a command line does, has the error say that: see `message`.

    Args:
        field: Name of the setting.
        value: The value.
        allowed: What the setting takes.
        got: The value in words, where its `repr` would not tell what is wrong with it.
        optional: Whether it takes None too.
        given: Other settings and their values, for which alone that is so.
        because: Why, if that is not plain.

    Examples:
        >>> print(SettingError("r", -1, "an int >= 0"))
        r must be an int >= 0, got -1
        >>> error = SettingError("threshold", None, "a number in [-1, 1]", given={"mode": "hybrid"})
        >>> print(error)
        threshold must be a number in [-1, 1] with mode='hybrid', got None
        >>> print(error.renamed(lambda name: "token_merging_" + name))
        token_merging_threshold must be a number in [-1, 1] with token_merging_mode='hybrid', got None
    """

    def __init__(
        self,
        field: str,
        value: object,
        allowed: str,
        got: str | None = None,
        *,
        optional: bool = False,
        given: Mapping[str, Any] | None = None,
        because: str | None = None,
    ) -> None:
        super().__init__(field, value, allowed, got)
        self.field = field
        self.value = value
        self.allowed = allowed
        self.got = got
        self.optional = optional
        self.given = dict(given or {})
        self.because = because

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), dict(vars(self)))

    def __str__(self) -> str:
        return self.message()

    def message(self, name: Callable[[str], str] = str, assignment: str = "=", takes_none: bool = True) -> str:
        """Returns the error in words.

        Args:
            name: Returns what a setting is to be called.
            assignment: What stands between the name of another setting and its value.
            takes_none: Whether None can be given at all, as it cannot on a command line.
        """
        allowed = self.allowed + (", or None" if self.optional and takes_none else "")
        conditions = [f"{name(other)}{assignment}{shown(value)}" for other, value in self.given.items()]
        condition = f" with {' and '.join(conditions)}" if conditions else ""
        reason = f" ({self.because})" if self.because else ""
        got = shown(self.value) if self.got is None else self.got
        return f"{name(self.field)} must be {allowed}{condition}{reason}, got {got}"

    def renamed(self, name: Callable[[str], str]) -> SettingError:
        """Returns the same error with all settings called by other names."""
        given = {name(other): value for other, value in self.given.items()}
        return _rebuild(type(self), {**vars(self), "field": name(self.field), "given": given})


def _rebuild(kind: type[SettingError], fields: dict[str, Any]) -> SettingError:
    return kind(**fields)
