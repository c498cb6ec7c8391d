"""Exact proportional attention for every attention implementation of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .._compat import ALL_ATTENTION_FUNCTIONS, attn_implementation, sdpa_attention_forward
from ..merging.proportional import append_size_channel, size_bias
from .cpu.block_attention import attend_in_blocks, is_faster_in_blocks


def takes_mask(implementation: str | None, device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether an attention implementation gets token sizes as a float mask (B, 1, 1, N) or as extra channels.

    Flash and flex attention do not support masks. sdpa does, but on GPUs a mask rules out its flash kernel, which
    needs half precision.

    Examples:
        >>> takes_mask("sdpa", torch.device("cpu"), torch.bfloat16)
        True
        >>> takes_mask("sdpa", torch.device("cuda"), torch.bfloat16)
        False
    """
    if implementation == "sdpa":
        return device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16)
    return implementation == "eager"


def attend(
    module: nn.Module,
    eager_attention_forward: Callable[..., tuple[Tensor, Tensor | None]],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    size: Tensor | None,
    scaling: float,
    dropout: float,
    implementation: str | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Runs an attention implementation of transformers, with log(size) added to the logits of each key.

    Args:
        module: The attention module, with its config.
        eager_attention_forward: The eager attention of the architecture.
        query: (B, H, N, D) float.
        key: (B, H, N, D) float.
        value: (B, H, N, D) float.
        size: (B, N) float token sizes; None adds nothing, not even a mask.
        scaling: Factor of the logits.
        dropout: Dropout probability of the attention weights in training.
        implementation: Name of the implementation; that of the config when None.
        **kwargs: Passed to the implementation.

    Returns:
        The context (B, N, H, D) and the attention weights (B, H, N, N), or None if the implementation has none.
    """
    implementation = attn_implementation(module.config) if implementation is None else implementation
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
    mask, head_dim = None, query.shape[-1]
    if size is not None:
        if takes_mask(implementation, query.device, query.dtype):
            mask = size_bias(size, query.dtype)
        else:
            query, key, value = append_size_channel(query, key, value, size, scaling)
    if interface is sdpa_attention_forward and is_faster_in_blocks(query, module.training):
        return attend_in_blocks(query, key, value, mask, scaling), None
    context, weights = interface(
        module,
        query,
        key,
        value,
        mask,
        scaling=scaling,
        dropout=dropout if module.training else 0.0,
        is_causal=False,
        **kwargs,
    )
    return context[..., :head_dim], weights


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """Splits queries, keys or values into heads: (B, N, H * D) -> (B, H, N, D)."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)
