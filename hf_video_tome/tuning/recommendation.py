"""Choice of the settings to recommend: those that the search found, unless simple ones are as good."""

from __future__ import annotations

from collections.abc import Sequence

from .outcomes import difference
from .result import Finalist

BEYOND_NOISE = 2.0
"""Standard errors that a difference has to exceed."""
ENOUGH_TO_COMPARE = 24
"""Number of held-back clips from which on standard errors are reliable: divergences vary much, and the standard error
of a few of them is often far too small."""
SPEED_TOLERANCE = 0.04
"""Largest relative difference between speeds that count as equal."""


def recommend_closest(finalists: Sequence[Finalist]) -> tuple[Finalist, Finalist]:
    """Chooses the settings that change predictions least, of those with equal speed.

    Settings that the search found are recommended if they are better than the best of the simple ones beyond noise, on
    the clips that were held back; otherwise, these are. Simple settings were not chosen on any clips, so all clips say
    which of them is the best. Simple settings that are better than the recommended ones beyond noise take their place.

    Args:
        finalists: The settings, at least one.

    Returns:
        The recommended settings, and the best on the clips of the search.
    """
    ranked = sorted(finalists, key=searched_divergence)
    simple = sorted((it for it in ranked if it.is_simple), key=_overall_divergence)
    found = [it for it in ranked if not it.is_simple and all(is_closer(it, other) for other in simple[:1])]
    best = ranked[0]
    recommended = min(found or simple or ranked, key=_overall_divergence)
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


def _overall_divergence(finalist: Finalist) -> float:
    """Returns the mean divergence on all clips."""
    assert finalist.searched is not None
    divergences = (*finalist.searched.divergences, *finalist.held_back.divergences)
    return sum(divergences) / len(divergences)


def is_closer(one: Finalist, other: Finalist) -> bool:
    """Returns whether predictions change less than with other settings, beyond noise, on the held-back clips."""
    found, _ = difference(one.held_back, other.held_back)
    assert found.value is not None
    return found.value < -BEYOND_NOISE * (found.standard_error or 0.0)
