"""Means over clips with their standard errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..metrics.standard_errors import mean_with_error


class Estimate(NamedTuple):
    """Mean over clips with its standard error.

    Attributes:
        value: The mean; None if no clip has a value.
        standard_error: Standard error of the mean; None if fewer than two clips have a value.
        clips: Number of clips with a value.
    """

    value: float | None
    standard_error: float | None
    clips: int


def estimate(values: ArrayLike) -> Estimate:
    """Computes mean and standard error over the clips with a value.

    Args:
        values: (n,) float, one for each clip; NaN where a clip has none.

    Returns:
        The estimate.

    Examples:
        >>> estimate([1.0, 3.0, float("nan")])
        Estimate(value=2.0, standard_error=1.0, clips=2)
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size == 0:
        return Estimate(None, None, 0)
    mean, error = mean_with_error(known)
    return Estimate(mean, None if math.isnan(error) else error, int(known.size))
