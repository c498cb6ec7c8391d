"""What can be set, what each setting takes, and the frozen object that holds all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .layout import SCOPES
from .modes import MODES
from .schedule import check_r, check_schedule
from .setting_error import SettingError
from .values import is_between

HEAD_AGGREGATIONS = ("mean", "concat")
POOLINGS = ("weighted", "mean")
POSITIONS = ("destination", "centroid")
"""Where a merged token is located: where the token was that the others were merged into, or at their weighted
centroid."""

Check = Callable[[Any], Any]
"""Returns a value in its JSON-safe form, or raises a `SettingError`."""


def one_of(name: str, allowed: Iterable[str], optional: bool = False) -> Check:
    """Makes the check of a setting that takes one of a few names.

    Args:
        name: Name of the setting.
        allowed: The names that it takes; read at every check.
        optional: Whether it takes None too.

    Returns:
        The check.

    Examples:
        >>> one_of("pooling", POOLINGS)("mean")
        'mean'
    """

    def check(value: object) -> object:
        if (optional and value is None) or (isinstance(value, str) and value in allowed):
            return value
        names = ", ".join(repr(name) for name in allowed) + (", or None" if optional else "")
        raise SettingError(name, value, f"one of {names}")

    return check


def _check_threshold(value: Any) -> float | None:
    if value is None:
        return None
    if is_between(value, -1, 1):
        return float(value)
    raise SettingError("threshold", value, "a cosine similarity in [-1, 1] or None")


def _check_proportional_attention(value: object) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise SettingError("proportional_attention", value, "True, False, or None for the architecture's default")


def is_off(r: float | Sequence[int]) -> bool:
    """Whether r removes nothing in any layer, so that no other setting matters.

    Examples:
        >>> is_off(0), is_off([0, 0]), is_off([0, 8]), is_off(0.1)
        (True, True, False, False)
    """
    return not (any(r) if isinstance(r, Sequence) else r)


def _setting(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class TokenMergingSettings:
    """All settings of token merging, checked one by one. Never changed: `changed` makes another one.

    A model reads it once per forward call, so that one call cannot mix the settings of two.

    Attributes:
        r: Tokens that each layer removes: an int, a share of the initial tokens, or a tuple of ints, one per layer.
        schedule: "constant", "decreasing", "increasing", or an inflection in [-1, 1].
        mode: Name of an entry of `MODES`.
        threshold: Threshold of the mode, or None.
        head_aggregation: "mean" or "concat" of the heads' keys.
        proportional_attention: Whether log(size) is added to the attention logits; None for the architecture's choice.
        pooling: "weighted" or "mean": whether a mean over the last tokens weighs them by size.
        scope: "clip", "frame", "tube" or "time"; None for the architecture's choice.
        position: "destination" or "centroid", where merged tokens are located, for layers that read positions.

    Raises:
        SettingError: If a value is out of range.

    Examples:
        >>> TokenMergingSettings(r=150).changed(r=[150, 75]).r
        (150, 75)
    """

    r: int | float | tuple[int, ...] = _setting(0, check_r)
    schedule: str | float = _setting("constant", check_schedule)
    mode: str = _setting("merge", one_of("mode", MODES))
    threshold: float | None = _setting(None, _check_threshold)
    head_aggregation: str = _setting("mean", one_of("head_aggregation", HEAD_AGGREGATIONS))
    proportional_attention: bool | None = _setting(None, _check_proportional_attention)
    pooling: str = _setting("weighted", one_of("pooling", POOLINGS))
    scope: str | None = _setting(None, one_of("scope", SCOPES, optional=True))
    position: str = _setting("destination", one_of("position", POSITIONS))

    @property
    def is_off(self) -> bool:
        """Whether nothing merges, so that the model is the stock model and no other setting matters."""
        return is_off(self.r)

    def changed(self, **changes: Any) -> TokenMergingSettings:
        """Returns settings with other values for some of them, each of which is checked by itself."""
        checked = {name: CHECKS[name](value) for name, value in changes.items()}
        frozen: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in checked.items()}
        return replace(self, **frozen)

    def get(self, name: str) -> Any:
        """Returns the value of a setting in its JSON-safe form."""
        value = getattr(self, name)
        return list(value) if isinstance(value, tuple) else value


CHECKS: Mapping[str, Check] = {setting.name: setting.metadata["check"] for setting in fields(TokenMergingSettings)}
"""From the name of each setting to its check."""
