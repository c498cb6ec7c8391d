"""Pooling of the final tokens."""

from __future__ import annotations

from torch import Tensor


def mean_pool(x: Tensor, size: Tensor | None = None) -> Tensor:
    """Returns the mean over tokens, weighted by their sizes if given.

    The weighted mean of merged tokens equals the plain mean of the tokens that they stand for.

    Args:
        x: (B, N, C) float states.
        size: (B, N) float sizes, or None for a plain mean.

    Returns:
        (B, C) in the dtype of x.

    Examples:
        >>> import torch
        >>> mean_pool(torch.tensor([[[1.0], [4.0]]]), torch.tensor([[2.0, 1.0]])).tolist()
        [[2.0]]
    """
    if size is None:
        return x.mean(1)
    weight = size / size.sum(dim=1, keepdim=True)
    return (x.to(weight.dtype) * weight.unsqueeze(-1)).sum(dim=1).to(x.dtype)
