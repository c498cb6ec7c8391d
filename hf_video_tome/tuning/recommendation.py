"""Choice of the settings to recommend: those that the search found, unless simple ones are as good."""

from __future__ import annotations

from collections.abc import Sequence

from .outcomes import difference
from .result import Finalist

BEYOND_NOISE = 2.0
"""Standard errors that a difference has to exceed."""
SPEED_TOLERANCE = 0.04
"""Largest relative difference between speeds that count as equal."""


def recommend_closest(finalists: Sequence[Finalist]) -> tuple[Finalist, Finalist]:
    """Chooses the settings that change predictions least, of those with equal speed.

    The best on the clips of the search is recommended if it is better than the best of the simple settings beyond
    noise, on the clips that were held back; otherwise, the simple ones are. Simple settings that are better than the
    recommended ones beyond noise take their place.

    Args:
        finalists: The settings, at least one.

    Returns:
        The recommended settings, and the best on the clips of the search.
    """
    ranked = sorted(finalists, key=searched_divergence)
    simple = [it for it in ranked if it.is_simple]
    best = recommended = ranked[0]
    if not best.is_simple and simple and not is_closer(best, simple[0]):
        recommended = simple[0]
    for other in simple:
        if is_closer(other, recommended):
            recommended = other
    return recommended, best


def recommend_fastest(finalists: Sequence[Finalist]) -> tuple[Finalist, Finalist]:
    """Chooses the fastest settings, of those that reach an agreement; simple ones unless others are clearly faster.

    Args:
        finalists: The settings, at least one.

    Returns:
        The recommended settings, and the fastest.
    """
    ranked = sorted(finalists, key=lambda it: (-it.speed, not it.is_simple))
    simple = [it for it in ranked if it.is_simple]
    best = ranked[0]
    if simple and best.speed <= simple[0].speed * (1 + SPEED_TOLERANCE):
        return simple[0], best
    return best, best


def searched_divergence(finalist: Finalist) -> tuple[float, bool]:
    """Returns the key that ranks settings by their divergence on the clips of the search; simple ones win ties."""
    assert finalist.searched is not None
    return finalist.searched.mean_divergence, not finalist.is_simple


def is_closer(one: Finalist, other: Finalist) -> bool:
    """Returns whether predictions change less than with other settings, beyond noise, on the held-back clips."""
    found, _ = difference(one.held_back, other.held_back)
    assert found.value is not None
    return found.value < -BEYOND_NOISE * (found.standard_error or 0.0)
