"""Estimates with standard errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def share_with_error(hits: Any) -> tuple[float, float]:
    """Returns the share of True and its standard error, sqrt(share (1 - share) / n).

    Args:
        hits: (N,) booleans, N at least 1.

    Returns:
        The share, 0 to 1, and its standard error.

    Raises:
        ValueError: If `hits` is empty.

    Examples:
        >>> share_with_error([True, False, True, False])
        (0.5, 0.25)
    """
    hits = np.asarray(hits, dtype=bool)
    if hits.size == 0:
        raise ValueError("hits must have at least one sample, got none")
    share = float(hits.mean())
    return share, math.sqrt(share * (1 - share) / hits.size)


def mean_with_error(values: Any) -> tuple[float, float]:
    """Returns the mean and its standard error, the standard deviation (with n - 1) divided by the square root of n.

    Args:
        values: (N,) numbers, N at least 1; none of them NaN.

    Returns:
        The mean and its standard error, which is NaN for a single or an infinite value.

    Raises:
        ValueError: If `values` is empty.

    Examples:
        >>> mean_with_error([1.0, 3.0])
        (2.0, 1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("values must have at least one sample, got none")
    mean = float(values.mean())
    if values.size == 1 or not math.isfinite(mean):
        return mean, math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(values.size))
