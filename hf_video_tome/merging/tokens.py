"""Per-call token state."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """The tokens of one forward call between two layers. Made anew per call and passed along; never changed in place.

    In a batch of clips with different numbers of tokens, shorter ones are padded with tokens of size 0. They come last
    in each matched set, nothing attends to them, and they never merge.

    Attributes:
        size: (B, N) float, how many original tokens each token stands for, 0 for padding; None while all are one.
        source: (B, N0) int64, the position of the token that holds each original token, -1 if dropped; None if no
            trace was asked for.
        position: (B, N, A) float, where each token is located on A axes, or (1, N, A) while that is the same for all
            clips; None for models that have no use for it: most embed positions before the first layer.
        index: (B, N) int64, where each token started: t * P + p of patch p of P in frame t, -1 for prefix tokens and
            padding; None where no layer reads it.
        group: (B, N) int64; only tokens of the same group merge while there are pairs of these. None: all may.
        length: (B,) int64, tokens of each matched set that are no padding; None while there is none.
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
    """Returns the tokens before anything merged, every one in its place.

    Args:
        batch_size: Clips, B.
        num_tokens: Tokens of the sequence, N0.
        device: Where the source map is made.
        track: Whether a trace was asked for.
        position: (1, N0, A) or (B, N0, A) float positions, for models that need them in every layer.

    Examples:
        >>> initial_tokens(1, 3, torch.device("cpu"), track=True).source.tolist()
        [[0, 1, 2]]
    """
    source = torch.arange(num_tokens, device=device).repeat(batch_size, 1) if track else None
    return Tokens(source=source, position=position)


def is_real(length: Tensor, num_tokens: int) -> Tensor:
    """Whether tokens, or slots, are no padding, which comes last.

    Args:
        length: (...) int64, tokens of each set that are no padding.
        num_tokens: Tokens of each set, padding included.

    Returns:
        (..., num_tokens) bool.

    Examples:
        >>> is_real(torch.tensor([1, 3]), 3).tolist()
        [[True, False, False], [True, True, True]]
    """
    return torch.arange(num_tokens, device=length.device) < length.unsqueeze(-1)
