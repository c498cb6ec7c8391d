"""Schedules: the number of tokens that each layer removes, known before the model runs."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Sequence
from math import inf, nextafter
from typing import Any

from .setting_error import SettingError
from .values import is_between, shown

SCHEDULE_INFLECTIONS = {"constant": 0.0, "decreasing": -1.0, "increasing": 1.0}
"""Inflection of each named schedule."""

MAX_SHARE = 0.5
"""Largest share of its tokens that a layer can remove by bipartite matching, which pairs each token at most once."""

ALMOST_ALL = nextafter(1.0, 0.0)
"""Largest share for modes that can remove all tokens but a few."""

MAX_R = 2**53
"""Largest number of tokens allowed for r; up to here, the arithmetic of the schedules is exact."""

MAX_LAYERS = 1024
"""Largest number of layers of a schedule: far more than any model has, and few enough for a list."""


def check_r(r: Any, max_share: float | None = MAX_SHARE) -> int | float | list[int | float]:
    """Checks the number of tokens to remove per layer and returns it in its JSON-safe form.

    Args:
        r: An int from 0 to `MAX_R`, a share of the initial tokens, or a sequence of these, one per layer.
        max_share: Largest share that the mode can remove; any share below 1 when None.

    Returns:
        The same value as a plain int, float or list of these.

    Raises:
        SettingError: If `r` is none of these.

    Examples:
        >>> check_r((4, 2, 0))
        [4, 2, 0]
    """
    entries = r if isinstance(r, Sequence) and not isinstance(r, str) else [r]
    if len(entries) > MAX_LAYERS:  # before the entries are checked one by one
        raise SettingError("r", r, f"a list of at most {MAX_LAYERS} entries, one per layer", got=str(len(r)))
    if isinstance(r, numbers.Integral):
        if _is_count(r):
            return operator.index(r)  # see `_plain_float`
    elif isinstance(r, numbers.Real):
        if _is_share(r, max_share):
            return _plain_float(r)
    elif entries is r and all(_is_count(x) or _is_share(x, max_share) for x in r):
        return [operator.index(x) if isinstance(x, numbers.Integral) else _plain_float(x) for x in r]
    shares = "(0, 1)" if max_share in (None, ALMOST_ALL) else f"(0, {max_share}]"
    allowed = f"an int >= 0, a share in {shares}, or a list of these, one per layer"
    if any(isinstance(x, numbers.Integral) and is_between(x, MAX_R + 1, inf) for x in entries):
        allowed += f", no int above {MAX_R}"
    raise SettingError("r", r, allowed)


def _is_count(value: object) -> bool:
    return isinstance(value, numbers.Integral) and is_between(value, 0, MAX_R)


def _is_share(value: object, max_share: float | None) -> bool:
    high = 1 if max_share is None else max_share
    return not isinstance(value, numbers.Integral) and is_between(value, 0, high) and value not in (0, 1)


def _plain_float(value: Any) -> float:
    """Returns a number as a float that torch.compile treats as a constant.

    `float` (and `int`) would leave keyword arguments of a compiled call symbolic, and all token counts with them.
    """
    return value.__float__()


def check_schedule(schedule: Any) -> str | float:
    """Checks a schedule and returns it in its JSON-safe form.

    Args:
        schedule: "constant", "decreasing", "increasing", or an inflection in [-1, 1].

    Returns:
        The name unchanged, or the inflection as a float.

    Raises:
        SettingError: If `schedule` is none of these.

    Examples:
        >>> check_schedule("decreasing"), check_schedule(-1)
        ('decreasing', -1.0)
    """
    if isinstance(schedule, str):
        if schedule in SCHEDULE_INFLECTIONS:
            return schedule
    elif is_between(schedule, -1, 1):
        return _plain_float(schedule)
    names = ", ".join(repr(name) for name in SCHEDULE_INFLECTIONS)
    raise SettingError("schedule", schedule, f"one of {names}, or an inflection in [-1, 1]")


def tokens_of_share(share: float, num_tokens: int) -> int:
    """Converts a share to a number of tokens, rounded down.

    Examples:
        >>> tokens_of_share(0.1, 288), tokens_of_share(0.29, 100)
        (28, 29)
    """
    return int(share * num_tokens + 1e-9)  # 0.29 * 100 is a little less than 29


def requested_removals(
    r: int | float | Sequence[int | float],
    schedule: str | float,
    num_layers: int,
    num_tokens: int,
    *,
    max_share: float = MAX_SHARE,
    single_layer: bool = False,
) -> list[int]:
    """Returns the number of tokens that each layer is asked to remove, before capping at the limit of the mode.

    With inflection f, layer l of L removes int(lo + (hi - lo) / (L - 1) * l) tokens, where lo = int(r * (1 - f)) and
    hi = 2r - lo: f = 0 is constant, f = -1 falls from 2r to 0, f = +1 rises from 0 to 2r. All schedules remove about
    r * L tokens in total.

    Args:
        r: Number of tokens to remove per layer: an int, a share of `num_tokens` (rounded down), or a list of these,
            one per layer (padded with zeros).
        schedule: "constant", "decreasing", "increasing", or an inflection in [-1, 1].
        num_layers: Number of layers L.
        num_tokens: Number of unprotected tokens in a matched set before the first layer.
        max_share: Largest share allowed.
        single_layer: Whether an int or a share is removed by layer 0 alone.

    Returns:
        A list of `num_layers` ints.

    Raises:
        SettingError: If `r` or `schedule` is out of range, a list has more entries than there are layers, or a list or
            a single layer is combined with a schedule other than "constant".
        ValueError: If there are more than `MAX_LAYERS` layers.

    Examples:
        >>> requested_removals(10, "decreasing", num_layers=5, num_tokens=100)
        [20, 15, 10, 5, 0]
    """
    if num_layers > MAX_LAYERS:
        raise ValueError(f"at most {MAX_LAYERS} layers can merge tokens, got {shown(num_layers)}")
    checked = check_r(r, max_share)
    inflection = check_schedule(schedule)
    if isinstance(inflection, str):
        inflection = SCHEDULE_INFLECTIONS[inflection]
    if isinstance(checked, list):
        if len(checked) > num_layers:
            raise SettingError("r", r, f"a list of at most {num_layers} entries, one per layer", got=str(len(checked)))
        if inflection != 0:
            raise SettingError(
                "r",
                r,
                "an int or a share",
                given={"schedule": schedule},
                because="a list of r per layer needs the 'constant' schedule",
            )
        return [_count(x, num_tokens) for x in checked] + [0] * (num_layers - len(checked))
    count = _count(checked, num_tokens)
    if single_layer:
        if inflection != 0 and count:
            because = "the mode removes all tokens at one layer"
            raise SettingError("schedule", schedule, "'constant'", because=because)
        return [count, *[0] * (num_layers - 1)][:num_layers]
    if num_layers == 1:
        return [count]
    low = int(count * (1 - inflection))
    high = 2 * count - low
    return [int(low + (high - low) / (num_layers - 1) * layer) for layer in range(num_layers)]


def _count(r: int | float, num_tokens: int) -> int:
    return tokens_of_share(r, num_tokens) if isinstance(r, float) else r


def max_removable(num_tokens: int, num_protected: int = 0) -> int:
    """Returns the largest number of tokens that a layer can remove from a set: half of the unprotected ones.

    Examples:
        >>> max_removable(1569, num_protected=1)
        784
    """
    return max(num_tokens - num_protected, 0) // 2


def removals_per_layer(requested: Sequence[int], num_tokens: int, num_protected: int = 0) -> list[int]:
    """Returns the number of tokens that each layer removes: the requested number, capped at half of its tokens.

    Args:
        requested: Number of tokens that each layer is asked to remove.
        num_tokens: Number of tokens in the set before the first layer, including protected ones.
        num_protected: Number of tokens that never merge (such as CLS).

    Returns:
        One int per layer.

    Examples:
        >>> removals_per_layer([150] * 12, num_tokens=1568)
        [150, 150, 150, 150, 150, 150, 150, 150, 150, 109, 54, 27]
    """
    removals = []
    for r in requested:
        removed = min(r, max_removable(num_tokens, num_protected))
        removals.append(removed)
        num_tokens -= removed
    return removals
