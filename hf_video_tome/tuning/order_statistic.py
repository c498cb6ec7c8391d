"""The threshold that a given number of similarities exceed."""

from __future__ import annotations

import math

from torch import Tensor


def threshold_of_count(scores: Tensor, count: int) -> float:
    """Returns the largest threshold that at least `count` scores exceed, halfway to the next lower score.

    Args:
        scores: (n,) float, cosine similarities.
        count: Number of scores to be above the threshold; all if there are fewer.

    Returns:
        The threshold, in [-1, 1]; infinity if no score is to exceed it. Equal scores are on the same side of it.

    Examples:
        >>> import torch
        >>> threshold_of_count(torch.tensor([0.25, 0.75, 0.5, -0.5]), 2)
        0.375
    """
    count = min(count, len(scores))
    if count <= 0:
        return math.inf
    ordered = scores.sort(descending=True).values
    last = ordered[count - 1]
    lower = ordered[ordered < last]
    following = lower[0].item() if len(lower) else -1.0
    middle = (last.item() + following) / 2
    # Between neighbouring floats, the middle is rounded to one of them.
    threshold = middle if bool(last > middle) else following
    return min(max(threshold, -1.0), 1.0)
