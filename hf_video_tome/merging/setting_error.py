"""The error of a setting that does not take its value."""

from __future__ import annotations

from .values import shown


class SettingError(ValueError):
    """A setting was given a value that it does not take: "{field} must be {allowed}, got {value}".

    Args:
        field: Name of the setting.
        value: The value.
        allowed: What the setting takes.
        got: The value in words, where its `repr` would not tell what is wrong with it.

    Examples:
        >>> print(SettingError("r", -1, "an int >= 0"))
        r must be an int >= 0, got -1
    """

    def __init__(self, field: str, value: object, allowed: str, got: str | None = None) -> None:
        super().__init__(field, value, allowed, got)  # all of them, so that the error pickles
        self.field = field
        self.value = value
        self.allowed = allowed
        self.got = got

    def __str__(self) -> str:
        return f"{self.field} must be {self.allowed}, got {shown(self.value) if self.got is None else self.got}"

    def with_field(self, field: str) -> SettingError:
        """Returns the same error with the setting called by another name."""
        return type(self)(field, self.value, self.allowed, self.got)
