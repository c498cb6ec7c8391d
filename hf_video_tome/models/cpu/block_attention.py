"""Attention in blocks of queries, for half precision on CPUs.

On CPUs with bfloat16 instructions but no matrix units (AMX), the fused attention of PyTorch computes in float32: it is
as slow in bfloat16 as in float32, and slower than all linear layers together. Matrix products and a softmax over
blocks of logits that fit in the cache take less than half of that time (see `docs/fast-path.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..._compat import multiplies_bfloat16_without_amx
from .switch import ENABLED

BLOCK_BYTES = 2 << 20
"""Size of a block of logits, which should fit in the L2 cache. 1 to 4 MiB were equally fast."""


MULTIPLIES_BFLOAT16_WITHOUT_AMX = multiplies_bfloat16_without_amx()
"""Whether this machine has such a CPU; a constant, because compilers cannot trace the query."""


def is_faster_in_blocks(query: Tensor, training: bool) -> bool:
    """Returns whether attention in blocks is faster than the fused kernel for these queries.

    Blocks are not used with gradients, because the graph would keep all of them, nor for export, because programs also
    run on other machines. Training never uses blocks: checkpointed layers run with and without gradients, and must
    compute the same.
    """
    return (
        ENABLED
        and query.device.type == "cpu"
        and query.dtype is torch.bfloat16
        and not training
        and not torch.is_grad_enabled()
        and not torch.compiler.is_exporting()
        and MULTIPLIES_BFLOAT16_WITHOUT_AMX
    )


def attend_in_blocks(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, block_bytes: int = BLOCK_BYTES
) -> Tensor:
    """Computes attention in blocks of queries, so that only a few logits are in memory at a time.

    Args:
        query: (B, H, N, D) float.
        key: (B, H, M, D) float.
        value: (B, H, M, D) float.
        bias: (B, 1, 1, M) float, added to the logits of each key, or None.
        scaling: Factor of the logits.
        block_bytes: Size of a block of logits in bytes; a block has at least one row.

    Returns:
        The context (B, N, H, D).

    Examples:
        >>> query = key = value = torch.randn(2, 3, 50, 8)
        >>> attend_in_blocks(query, key, value, None, scaling=8**-0.5).shape
        torch.Size([2, 50, 3, 8])
    """
    if torch.compiler.is_compiling():  # avoids unrolling all blocks into the graph
        return _attend_in_blocks(query, key, value, bias, scaling, block_bytes)
    return _attend(query, key, value, bias, scaling, block_bytes)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, block_bytes: int
) -> Tensor:
    num_rows = _rows_per_block(query, key, block_bytes)
    batch_size, num_heads, num_queries, _ = query.shape
    context = _empty_context(query, key, block_bytes)
    if num_rows >= 2 * num_queries:
        _attend_by_heads(query, key, value, bias, scaling, num_rows // num_queries, context)
        return context
    query = query * scaling
    for clip in range(batch_size):
        clip_bias = None if bias is None else bias[clip].flatten()
        for head in range(num_heads):
            for start in range(0, num_queries, num_rows):
                rows = slice(start, start + num_rows)
                logits = linear(query[clip, head, rows], key[clip, head], clip_bias)
                context[clip, rows, head] = logits.softmax(dim=-1) @ value[clip, head]
    return context


def _rows_per_block(query: Tensor, key: Tensor, block_bytes: int) -> int:
    return max(block_bytes // (key.shape[2] * query.element_size()), 1)


def _empty_context(query: Tensor, key: Tensor, block_bytes: int) -> Tensor:
    """Returns an empty context (B, N, H, D) with the memory layout of `_attend`: head by head for short sequences."""
    batch_size, num_heads, num_queries, head_dim = query.shape
    if _rows_per_block(query, key, block_bytes) >= 2 * num_queries:
        return query.new_empty(batch_size, num_heads, num_queries, head_dim).transpose(1, 2)
    return query.new_empty(batch_size, num_queries, num_heads, head_dim)


def _attend_by_heads(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, num_heads: int, context: Tensor
) -> None:
    """Computes attention for short sequences into `context`: each block has all queries of several heads."""
    query_heads, key_heads, value_heads = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), value.flatten(0, 1)
    head_bias = None if bias is None else bias.expand(-1, query.shape[1], -1, -1).flatten(0, 1)
    context_heads = context.transpose(1, 2).flatten(0, 1)
    nothing = query.new_zeros(())
    for start in range(0, query_heads.shape[0], num_heads):
        heads = slice(start, start + num_heads)
        # Scale and bias are fused into the product, which is also more exact: they apply before rounding.
        added, times = (nothing, 0) if head_bias is None else (head_bias[heads], 1)
        logits = torch.baddbmm(added, query_heads[heads], key_heads[heads], beta=times, alpha=scaling)
        torch.bmm(logits.softmax(dim=-1), value_heads[heads], out=context_heads[heads])


_attend_in_blocks = torch.library.custom_op("hf_video_tome::attend_in_blocks", _attend, mutates_args=())
"""Attention in blocks as one operator in graphs of `torch.compile`."""


@_attend_in_blocks.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, block_bytes: int) -> Tensor:
    return _empty_context(query, key, block_bytes)
