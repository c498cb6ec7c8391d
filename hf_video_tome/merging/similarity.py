"""Cosine similarities of tokens, computed in blocks: never all pairs at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

SCORES_PER_BLOCK = 4 << 20
"""Number of scores held in memory at a time, over all clips and sets: 16 MiB in float32."""

Block = Callable[[int, int, int, int], tuple[Tensor, ...]]
"""`(first set, number of sets, first row, number of rows)` -> tensors (sets, rows)."""


def autocast_disabled(x: Tensor) -> AbstractContextManager:
    """Disables autocast, which would compare in half precision; meta tensors do not support it."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def unit_vectors(metric: Tensor, shared: bool = False) -> Tensor:
    """Returns vectors that multiply to cosine similarities.

    The mean of products over sets is a product of longer vectors, so the scores of single sets are never computed.

    Args:
        metric: (B, S, N, D) float.
        shared: Whether the similarity of two tokens is the mean of that in all sets.

    Returns:
        (B, S, N, D) float, without gradient; (B, 1, N, S * D) when shared.
    """
    metric = metric.detach()
    metric = metric / metric.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(metric.dtype).tiny)
    if shared:
        metric = metric.transpose(1, 2).flatten(2).unsqueeze(1) / metric.shape[1] ** 0.5
    return metric


def in_blocks(
    function: Block, shape: tuple[int, ...], num_columns: int, block_size: int = SCORES_PER_BLOCK
) -> tuple[Tensor, ...]:
    """Computes something for each row of a matrix of scores, in blocks of rows and sets.

    A block covers several clips and sets if it can, so a batch needs no more memory than one clip. If the batch size
    is symbolic (in torch.compile or torch.export), each clip has its own.

    Args:
        function: Computes a block of all B * S sets.
        shape: (B, S, number of rows).
        num_columns: Number of scores per row.
        block_size: Number of scores per block; a block has at least one row.

    Returns:
        The results (B, S, number of rows).
    """
    if torch.jit.is_tracing():  # sizes are tensors while tracing; makes them constants
        shape, num_columns = tuple(map(int, shape)), int(num_columns)
    batch, sets, num_rows = shape
    row_size = max(num_columns, 1)
    if has_static_value(batch):
        sets_per_block = max(block_size // max(num_rows * row_size, 1), 1)
        groups = [
            (first, min(sets_per_block, batch * sets - first)) for first in range(0, batch * sets, sets_per_block)
        ]
        groups = groups or [(0, 0)]  # an empty batch
        rows_per_block = max(block_size // row_size, 1)
    else:  # a loop over the batch would fix the batch size
        groups = [(0, batch * sets)]
        rows_per_block = max(block_size // (sets * row_size), 1)
    parts = [(first, min(rows_per_block, num_rows - first)) for first in range(0, num_rows, rows_per_block)]
    columns = zip(*(_joined([function(*group, *part) for part in parts], -1) for group in groups), strict=True)
    return tuple(torch.cat(results).unflatten(0, (-1, sets)) for results in columns)


def _joined(blocks: list[tuple[Tensor, ...]], dim: int) -> list[Tensor]:
    return [torch.cat(results, dim=dim) for results in zip(*blocks, strict=True)]


def nearest(tokens: Tensor, others: Tensor, block_size: int = SCORES_PER_BLOCK) -> tuple[Tensor, Tensor]:
    """Finds the most similar of other tokens, the first of those that are equally similar.

    Args:
        tokens: (B, S, n, D) float, unit vectors.
        others: (B, S, m, D) float, unit vectors, m > 0.
        block_size: Number of scores computed at a time, rounded to whole rows.

    Returns:
        The similarity (B, S, n), and the position among the others (B, S, n) int64.

    Examples:
        >>> nearest(torch.eye(2).view(1, 1, 2, 2), torch.eye(2).flip(0).view(1, 1, 2, 2))[1].tolist()
        [[[1, 0]]]
    """
    rows, columns = tokens.flatten(0, 1), others.flatten(0, 1).transpose(-1, -2)

    def block(first: int, count: int, first_row: int, num_rows: int) -> tuple[Tensor, ...]:
        scores = rows.narrow(0, first, count).narrow(1, first_row, num_rows) @ columns.narrow(0, first, count)
        return tuple(scores.max(dim=-1))

    with autocast_disabled(tokens):
        similarity, position = in_blocks(block, tokens.shape[:-1], others.shape[2], block_size)
    return similarity, position


def descending_order(score: Tensor) -> Tensor:
    """Returns positions in descending order of their scores (..., N); ties are in ascending order of position."""
    if torch.onnx.is_in_onnx_export():
        # The exporter does not support stable sorting, but turns this into TopK, which ONNX defines as stable.
        return score.sort(dim=-1, descending=True).indices
    return score.argsort(dim=-1, descending=True, stable=True)
