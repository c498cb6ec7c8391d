"""Proportional attention: a token of size s weighs as much as s identical tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

HEAD_DIM_MULTIPLE = 8
"""Fused attention kernels need head dimensions that are a multiple of this."""


LOG_OF_PADDING = -10_000.0
"""Replaces log(0): low enough for an attention weight of exactly 0, and finite in half precision, because -inf - -inf
is NaN."""


def log_size(size: Tensor) -> Tensor:
    """Returns the log of token sizes (B, N), which is finite even for padding."""
    return size.log().clamp_min(LOG_OF_PADDING)


def size_bias(size: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns the bias added to the attention logits of each key, equal for all queries and heads.

    From "Token Merging: Your ViT But Faster" (ICLR 2023), section 3.

    Args:
        size: (B, N) float token sizes, 0 for padding.
        dtype: Dtype of the queries.

    Returns:
        (B, 1, 1, N), log(size), or `LOG_OF_PADDING` for padding.

    Examples:
        >>> size_bias(torch.tensor([[1.0, 2.0]]), torch.float32).squeeze().tolist()
        [0.0, 0.6931471824645996]
    """
    return log_size(size).to(dtype)[:, None, None, :]


def append_size_channel(
    query: Tensor, key: Tensor, value: Tensor, size: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Encodes the size bias in extra channels of queries and keys, for attention kernels without mask support.

    q' = [q, 1 / scaling] and k' = [k, log size], so scaling * q'.k' = scaling * q.k + log size on any kernel. A second
    channel holds the rounding error of log size in the dtype of the keys. All three are zero-padded to a head
    dimension that is a multiple of 8; crop the output to the original head dimension.

    Args:
        query: (B, H, N, D) float.
        key: (B, H, N, D) float.
        value: (B, H, N, D) float.
        size: (B, N) float token sizes, 0 for padding.
        scaling: Factor by which the kernel multiplies the logits.

    Returns:
        Query, key and value, each (B, H, N, D') with D' > D.

    Examples:
        >>> q = k = v = torch.randn(1, 2, 5, 16)
        >>> [x.shape[-1] for x in append_size_channel(q, k, v, torch.ones(1, 5), 0.25)]
        [24, 24, 24]
    """
    head_dim = query.shape[-1]
    padded = -(-(head_dim + 2) // HEAD_DIM_MULTIPLE) * HEAD_DIM_MULTIPLE
    exact = log_size(size)
    rounded = exact.to(key.dtype)
    bias = torch.stack((rounded, (exact - rounded).to(key.dtype)), dim=-1)[:, None].expand(*key.shape[:-1], 2)
    query = torch.cat((query, query.new_full((*query.shape[:-1], 2), 1.0 / scaling)), dim=-1)
    key = torch.cat((key, bias), dim=-1)
    padding = (0, padded - head_dim - 2)
    return pad(query, padding), pad(key, padding), pad(value, (0, padded - head_dim))
