"""Per-call token state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """Per-call token state, passed from layer to layer and never changed in place.

    If clips of a batch have different numbers of tokens, shorter ones are padded with tokens of size 0. Padding comes
    last in each matched set, receives no attention and never merges.

    Attributes:
        size: (B, N) float, number of original tokens that each token stands for, 0 for padding; None if all are 1.
        source: (B, N0) int64, position of the token that holds each original token, -1 if dropped; None if no trace is
            requested.
        position: (B, N, A) float, coordinates of each token on A axes, or (1, N, A) if equal for all clips; None for
            models that embed positions before the first layer, as most do.
        index: (B, N) int64, original index of each token: t * P + p for patch p of frame t, -1 for prefix tokens and
            padding; None if no layer reads it.
        group: (B, N) int64; tokens merge within their group where possible. None if all tokens may merge.
        length: (B,) int64, number of tokens in each matched set without padding; None if no set is padded.
    """

    size: Tensor | None = None
    source: Tensor | None = None
    position: Tensor | None = None
    index: Tensor | None = None  # type: ignore[assignment]  # hides a method of tuples
    group: Tensor | None = None
    length: Tensor | None = None


def initial_tokens(
    batch_size: int, num_tokens: int, device: torch.device, track: bool = False, position: Tensor | None = None
) -> Tokens:
    """Returns the token state before any merging.

    Args:
        batch_size: Number of clips, B.
        num_tokens: Number of tokens of the sequence, N0.
        device: Device of the source map.
        track: Whether a trace is requested.
        position: (1, N0, A) or (B, N0, A) float positions, for models that need them in every layer.

    Examples:
        >>> initial_tokens(1, 3, torch.device("cpu"), track=True).source.tolist()
        [[0, 1, 2]]
    """
    source = torch.arange(num_tokens, device=device).repeat(batch_size, 1) if track else None
    return Tokens(source=source, position=position)


def marked_first(mask: Tensor) -> Tensor:
    """Returns the positions of marked tokens, then of all others, both in ascending order.

    Args:
        mask: (..., N) bool.

    Returns:
        (..., N) int64.

    Examples:
        >>> marked_first(torch.tensor([False, True, False, True])).tolist()
        [1, 3, 0, 2]
    """
    num_tokens = mask.shape[-1]
    position = torch.arange(num_tokens, device=mask.device)
    return position.where(mask, position + num_tokens).argsort(dim=-1)  # all differ: exporters know no stable sorting


def is_real(length: Tensor, num_tokens: int) -> Tensor:
    """Returns a mask of the tokens, or slots, that are not padding, which comes last.

    Args:
        length: (...) int64, number of tokens of each set without padding.
        num_tokens: Number of tokens of each set including padding.

    Returns:
        (..., num_tokens) bool.

    Examples:
        >>> is_real(torch.tensor([1, 3]), 3).tolist()
        [[True, False, False], [True, True, True]]
    """
    return torch.arange(num_tokens, device=length.device) < length.unsqueeze(-1)


def gather_tokens(x: Tensor, index: Tensor) -> Tensor:
    """Gathers tokens: x (B, S, N, C), index (B, S, n) int64 -> (B, S, n, C)."""
    return x.gather(2, index.unsqueeze(-1).expand(*index.shape, x.shape[-1]))
