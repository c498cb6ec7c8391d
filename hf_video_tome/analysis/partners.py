"""What merged tokens have in common with those that they were merged with, and what chance would give.

Everything is counted by original tokens: each token that shares a merged token with others counts once, whatever the
size of its group, with the mean over those others, its partners.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..merging.layout import TokenLayout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def matched_sets(layout: TokenLayout, scope: str) -> Ints:
    """Says for each patch token of a clip in which set it is matched: tokens of two sets never merge.

    Args:
        layout: Token layout of a clip.
        scope: "clip", "frame", "tube" or "time".

    Returns:
        (T, P) int64.

    Examples:
        >>> matched_sets(TokenLayout(1, num_frames=2, num_patches=3), "tube").tolist()
        [[0, 0, 0], [1, 1, 1]]
    """
    frames, places = np.indices((layout.num_frames, layout.num_patches))
    return {"clip": np.zeros_like(frames), "time": places}.get(scope, frames)


def partner_means(groups: ArrayLike, values: ArrayLike) -> Floats:
    """Mean, for each token, of what it has with the others in its group.

    Args:
        groups: (N,) int, merged token that holds each original token; negative if dropped.
        values: (N, N) float, a value for each pair, such as a distance, or whether they lie in different frames. The
            diagonal does not count.

    Returns:
        (N,) float: the mean over the partners of each token; NaN for one that has none.

    Examples:
        >>> partner_means([0, 0, 1], [[0, 4, 9], [4, 0, 9], [9, 9, 0]]).tolist()
        [4.0, 4.0, nan]
    """
    holder, pairs = np.asarray(groups), np.asarray(values, dtype=np.float64)
    together = (holder[:, None] == holder) & (holder >= 0)
    np.fill_diagonal(together, False)
    count = together.sum(1)
    total = np.where(together, pairs, 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(holder), np.nan), where=count > 0)


def partner_mean(groups: ArrayLike, values: ArrayLike) -> float:
    """Mean of `partner_means` over all tokens that have partners; NaN if none has.

    Args:
        groups: As for `partner_means`.
        values: As for `partner_means`.

    Returns:
        The mean.
    """
    means = partner_means(groups, values)
    known = means[~np.isnan(means)]
    return float(known.mean()) if known.size else float("nan")


def random_partner_mean(groups: ArrayLike, sets: ArrayLike, values: ArrayLike) -> float:
    """What `partner_mean` would be on average if groups of the same sizes held random tokens.

    Exact: the mean over all ways to shuffle the tokens inside each matched set. All pairs of a set are then equally
    likely to be partners, so only the number of merged tokens of each set counts. That tokens near each other are
    alike, and that even positions are matched with odd ones, is not part of it.

    Args:
        groups: As for `partner_means`; no group has tokens of two sets.
        sets: (N,) int, the set in which each token is matched.
        values: As for `partner_means`.

    Returns:
        The mean; NaN if nothing was merged.

    Examples:
        >>> random_partner_mean([0, 0, 1], [0, 0, 0], [[0, 4, 9], [4, 0, 9], [9, 9, 0]])  # (4 + 9 + 9) / 3
        7.333333333333333
    """
    merged = ~np.isnan(partner_means(groups, values))
    if not merged.any():
        return float("nan")
    sets = np.asarray(sets)
    numbers, inverse = np.unique(sets, return_inverse=True)
    everyone = partner_means(sets, values)
    expected = np.array([everyone[sets == number].mean() for number in numbers])
    return float(expected[inverse[merged]].mean())
