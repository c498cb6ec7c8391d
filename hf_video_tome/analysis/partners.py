"""Comparison of tokens with their partners, the tokens that they were merged with, and with chance.

Measures are means over original tokens: each merged token counts once, regardless of the size of its group, with the
mean over its partners.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..merging.layout import TokenLayout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def matched_sets(layout: TokenLayout, scope: str) -> Ints:
    """Returns the matched set of each patch token of a clip; tokens of different sets never merge.

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
    """Computes the mean of pairwise values over the partners of each token.

    Args:
        groups: (N,) int, merged token that holds each original token; negative if dropped.
        values: (N, N) float, a value for each pair, such as a distance, or whether they are in different frames. The
            diagonal is ignored.

    Returns:
        (N,) float, mean over the partners of each token; NaN for tokens without partners.

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
    """Computes the mean of `partner_means` over all tokens with partners; NaN if there are none.

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
    """Computes the expected `partner_mean` for groups of the same sizes with random tokens.

    The result is exact: the mean over all permutations of the tokens within each matched set. All pairs of a set are
    then equally likely to be partners, so only the number of merged tokens per set matters. It ignores that nearby
    tokens are similar, and that even positions are matched with odd ones.

    Args:
        groups: As for `partner_means`; groups must not span several sets.
        sets: (N,) int, matched set of each token.
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
