"""Energy of tokens: high if a token is one of many that are alike."""

from __future__ import annotations

import torch
from torch import Tensor

from .similarity import SCORES_PER_BLOCK, autocast_disabled, in_blocks


def energy(vectors: Tensor, margin: float, block_size: int = SCORES_PER_BLOCK) -> Tensor:
    """Computes the energy of each token of a set: the mean of f(cosine similarity) to all of them.

    f(w) = w from the margin m on, and exp(w - m) - 1 below it.

    From "Accelerating Transformers with Spectrum-Preserving Token Merging" (NeurIPS 2024),
    https://arxiv.org/abs/2405.16148, with its alpha of 1.

    Args:
        vectors: (B, S, N, D) float, unit vectors.
        margin: The margin m.
        block_size: Number of similarities computed at a time, rounded to whole rows.

    Returns:
        (B, S, N) float.

    Examples:
        >>> energy(torch.eye(3)[[0, 0, 0, 1]].view(1, 1, 4, 3), margin=0.9).argmin().item()
        3
    """
    rows = vectors.flatten(0, 1)
    columns = rows.transpose(-1, -2)

    def block(first: int, count: int, first_row: int, num_rows: int) -> tuple[Tensor, ...]:
        cosine = rows.narrow(0, first, count).narrow(1, first_row, num_rows) @ columns.narrow(0, first, count)
        return (torch.where(cosine >= margin, cosine, (cosine - margin).exp() - 1).mean(dim=-1),)

    with autocast_disabled(vectors):
        # f needs three more tensors of the size of a block.
        [result] = in_blocks(block, vectors.shape[:-1], vectors.shape[2], max(block_size // 4, 1))
    return result


def margin_of_layer(layer: int, num_layers: int) -> float:
    """Returns the margin of a layer, which falls from 0.9 in the first.

    Examples:
        >>> margin_of_layer(0, 12), margin_of_layer(6, 12)
        (0.9, 0.45)
    """
    return 0.9 - 0.9 * layer / num_layers
