"""Estimates with standard errors."""

from __future__ import annotations

import math
from typing import Any

import torch


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
    hits = _tensor_of(hits, torch.bool)
    if not len(hits):
        raise ValueError("hits must have at least one sample, got none")
    share = int(hits.sum()) / len(hits)
    return share, math.sqrt(share * (1 - share) / len(hits))


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
    values = _tensor_of(values, torch.float64)
    if not len(values):
        raise ValueError("values must have at least one sample, got none")
    mean = values.mean().item()
    if len(values) == 1 or not math.isfinite(mean):
        return mean, math.nan
    return mean, values.std().item() / math.sqrt(len(values))


def _tensor_of(values: Any, dtype: torch.dtype) -> torch.Tensor:
    """Returns values of any shape as a flat tensor, (N,)."""
    if not isinstance(values, torch.Tensor):
        values = torch.tensor(values, dtype=dtype)
    return values.detach().to(dtype).flatten()
