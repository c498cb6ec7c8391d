"""What can be set, what each setting takes, and the frozen object that holds all of it."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .input_stages import INPUT_STAGES
from .layout import SCOPES
from .modes import MODES
from .schedule import MAX_R, check_r, check_schedule
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


def _check_input_keep(value: Any) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, numbers.Integral):
        if is_between(value, 2, MAX_R):
            return operator.index(value)
    elif is_between(value, 0, 1) and value != 0:
        return value.__float__()  # see `check_r`
    hint = " (write 1.0 to keep all)" if value == 1 else ""
    raise SettingError("input_keep", value, f"a share in (0, 1.0], a number of tokens >= 2{hint}, or None")


def true_or_false(name: str, none_means: str | None = None) -> Check:
    """Makes the check of a setting that is on or off.

    Args:
        name: Name of the setting.
        none_means: What None stands for; None is refused without.

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


def is_off(r: float | Sequence[float], input_stage: str | None = None, input_keep: float | int | None = None) -> bool:
    """Whether nothing is removed, so that no other setting matters.

    Args:
        r: Tokens that each layer removes.
        input_stage: Name of the input stage, or None.
        input_keep: What it keeps: a share or a count.

    Examples:
        >>> is_off(0), is_off([0, 0]), is_off([0, 8]), is_off(0.1), is_off(0, "random"), is_off(0, "random", 1.0)
        (True, True, False, False, False, True)
    """
    keeps_all = input_stage is None or (isinstance(input_keep, float) and input_keep == 1.0)
    return keeps_all and not (any(r) if isinstance(r, Sequence) else r)


OFF_FIELDS = {"r": 0, "input": None, "input_keep": None}
"""Settings that say whether anything merges, in the order of the arguments of `is_off`, with their defaults."""


def are_off(settings: Mapping[str, Any]) -> bool:
    """Whether settings by name, of which the others are at their defaults, remove nothing: see `is_off`.

    Examples:
        >>> are_off({"mode": "drop"}), are_off({"r": 0, "input": "random"})
        (True, False)
    """
    return is_off(*(settings.get(name, default) for name, default in OFF_FIELDS.items()))


def _setting(default: Any, check: Check) -> Any:
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class TokenMergingSettings:
    """All settings of token merging, checked one by one. Never changed: `changed` makes another one.

    A model reads it once per forward call, so that one call cannot mix the settings of two.

    Attributes:
        r: Tokens that each layer removes: an int, a share of the initial tokens, or a tuple of these, one per layer.
        schedule: "constant", "decreasing", "increasing", or an inflection in [-1, 1].
        mode: Name of an entry of `MODES`.
        threshold: Threshold of the mode, or None.
        head_aggregation: "mean" or "concat" of the heads' keys.
        proportional_attention: Whether log(size) is added to the attention logits; None for the architecture's choice.
        pooling: "weighted" or "mean": whether a mean over the last tokens weighs them by size.
        scope: "clip", "frame", "tube" or "time"; None for the architecture's choice.
        position: "destination" or "centroid", where merged tokens are located, for layers that read positions.
        input: Name of an entry of `INPUT_STAGES`, which decides what enters the first layer; None: all.
        input_keep: What it keeps: a share of the patch tokens in (0, 1.0], or how many; two thirds when None.
        restore: Whether a base model gives the full grid back, for what reads all tokens in their places.

    Raises:
        SettingError: If a value is out of range.

    Examples:
        >>> TokenMergingSettings(r=150).changed(r=[150, 75]).r
        (150, 75)
    """

    r: int | float | tuple[int | float, ...] = _setting(0, check_r)
    schedule: str | float = _setting("constant", check_schedule)
    mode: str = _setting("merge", one_of("mode", MODES))
    threshold: float | None = _setting(None, _check_threshold)
    head_aggregation: str = _setting("mean", one_of("head_aggregation", HEAD_AGGREGATIONS))
    proportional_attention: bool | None = _setting(
        None, true_or_false("proportional_attention", none_means="the architecture's default")
    )
    pooling: str = _setting("weighted", one_of("pooling", POOLINGS))
    scope: str | None = _setting(None, one_of("scope", SCOPES, optional=True))
    position: str = _setting("destination", one_of("position", POSITIONS))
    input: str | None = _setting(None, one_of("input", INPUT_STAGES, optional=True))
    input_keep: float | int | None = _setting(None, _check_input_keep)
    restore: bool = _setting(False, true_or_false("restore"))

    @property
    def is_off(self) -> bool:
        """Whether nothing merges, so that the model is the stock model and no other setting matters."""
        return is_off(self.r, self.input, self.input_keep)

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
