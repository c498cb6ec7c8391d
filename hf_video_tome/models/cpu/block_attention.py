"""Attention in blocks of queries, for half precision on CPUs.

The fused attention of PyTorch computes in float32 on CPUs that multiply bfloat16 matrices but have no matrix units
(AMX): it takes as long in bfloat16 as in float32, and longer than all linear layers together. Matrix products and a
softmax over blocks of logits that stay in the cache took less than half of that time (see `docs/fast-path.md`).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from ..._compat import multiplies_bfloat16_without_amx
from .switch import ENABLED

BLOCK_BYTES = 2 << 20
"""Logits that are held at a time. From 1 to 4 MiB were equally fast; they should stay in the second-level caches."""


MULTIPLIES_BFLOAT16_WITHOUT_AMX = multiplies_bfloat16_without_amx()
"""Whether this machine's is such a CPU. Compilers can read it, but not ask."""


def is_faster_in_blocks(query: Tensor, training: bool) -> bool:
    """Whether these queries should be attended with in blocks rather than by the fused kernel.

    Not where there may be gradients, whose graph would hold all blocks, and not while exporting: programs are for
    other machines, too. Training has no blocks even without gradients: checkpointed layers run again with them, and
    must compute the same.
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
    """Attention of which only a few logits exist at any time.

    Args:
        query: (B, H, N, D) float.
        key: (B, H, M, D) float.
        value: (B, H, M, D) float.
        bias: (B, 1, 1, M) float, added to the logits of each key, or None.
        scaling: Factor of the logits.
        block_bytes: Bytes of logits in one block; at least one row is.

    Returns:
        The context (B, N, H, D).

    Examples:
        >>> query = key = value = torch.randn(2, 3, 50, 8)
        >>> attend_in_blocks(query, key, value, None, scaling=8**-0.5).shape
        torch.Size([2, 50, 3, 8])
    """
    if torch.compiler.is_compiling():  # which would unroll all blocks into its graph
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
    """(B, N, H, D), as it lies in memory after attention in blocks: head by head for short sequences."""
    batch_size, num_heads, num_queries, head_dim = query.shape
    if _rows_per_block(query, key, block_bytes) >= 2 * num_queries:
        return query.new_empty(batch_size, num_heads, num_queries, head_dim).transpose(1, 2)
    return query.new_empty(batch_size, num_queries, num_heads, head_dim)


def _attend_by_heads(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, num_heads: int, context: Tensor
) -> None:
    """The same for short sequences, into `context`: all queries of some heads are one block."""
    query_heads, key_heads, value_heads = query.flatten(0, 1), key.flatten(0, 1).transpose(1, 2), value.flatten(0, 1)
    head_bias = None if bias is None else bias.expand(-1, query.shape[1], -1, -1).flatten(0, 1)
    context_heads = context.transpose(1, 2).flatten(0, 1)
    nothing = query.new_zeros(())
    for start in range(0, query_heads.shape[0], num_heads):
        heads = slice(start, start + num_heads)
        # Scaled and added to inside the product, which is more exact, too: it happens before the logits are rounded.
        added, times = (nothing, 0) if head_bias is None else (head_bias[heads], 1)
        logits = torch.baddbmm(added, query_heads[heads], key_heads[heads], beta=times, alpha=scaling)
        torch.bmm(logits.softmax(dim=-1), value_heads[heads], out=context_heads[heads])


_attend_in_blocks = torch.library.custom_op("hf_video_tome::attend_in_blocks", _attend, mutates_args=())
"""One operator for graphs of `torch.compile`."""


@_attend_in_blocks.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float, block_bytes: int) -> Tensor:
    return _empty_context(query, key, block_bytes)
