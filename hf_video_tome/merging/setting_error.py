"""Error for an invalid value of a setting or another argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .values import shown

PREFIX = "token_merging_"
"""Prefix of setting names in config fields and keyword arguments of a call."""


class SettingError(ValueError):
    """Invalid value of a setting: "{field} must be {allowed}, got {value}".

    A command line, which has other names for the settings, can rename them: see `message`.

    Args:
        field: Name of the setting.
        value: The invalid value.
        allowed: Description of the allowed values.
        got: Description of the value, if its `repr` does not show what is wrong.
        optional: Whether None is allowed too.
        given: Other settings and their values, if the restriction only applies to these.
        because: Reason, if it is not obvious.

    Examples:
        >>> print(SettingError("r", -1, "an int >= 0"))
        r must be an int >= 0, got -1
        >>> error = SettingError("scope", "frame", "'clip'", given={"input": "random"})
        >>> print(error)
        scope must be 'clip' with input='random', got 'frame'
        >>> print(error.renamed(lambda name: PREFIX + name))
        token_merging_scope must be 'clip' with token_merging_input='random', got 'frame'
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
        """Returns the error message.

        Args:
            name: Maps the name of a setting to the name shown.
            assignment: Separator between the name and the value of other settings.
            takes_none: Whether None can be passed at all; on a command line it cannot.
        """
        allowed = self.allowed + (", or None" if self.optional and takes_none else "")
        conditions = [f"{name(other)}{assignment}{shown(value)}" for other, value in self.given.items()]
        condition = f" with {' and '.join(conditions)}" if conditions else ""
        reason = f" ({self.because})" if self.because else ""
        got = shown(self.value) if self.got is None else self.got
        return f"{name(self.field)} must be {allowed}{condition}{reason}, got {got}"

    def renamed(self, name: Callable[[str], str]) -> SettingError:
        """Returns the same error with all settings renamed."""
        given = {name(other): value for other, value in self.given.items()}
        return _rebuild(type(self), {**vars(self), "field": name(self.field), "given": given})


def _rebuild(kind: type[SettingError], fields: dict[str, Any]) -> SettingError:
    notes = fields.get("__notes__", ())
    error = kind(**{name: value for name, value in fields.items() if name != "__notes__"})
    for note in notes:
        error.add_note(note)
    return error
