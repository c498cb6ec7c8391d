"""Rotary position embeddings of V-JEPA 2 for tokens at any position, not only on the grid."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_positions(num_frames: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Returns the positions of the tokens of an unmerged clip.

    Args:
        num_frames: Number of tubelets along time.
        rows: Number of patches along the height.
        columns: Number of patches along the width.
        dtype: Float dtype of the positions.
        device: Device of the positions.

    Returns:
        (1, num_frames * rows * columns, 3), (t, h, w) of each token.

    Examples:
        >>> grid_positions(2, 1, 2, torch.float32, torch.device("cpu"))[0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    token = torch.arange(num_frames * rows * columns, device=device)
    axes = (token // (rows * columns), token // columns % rows, token % columns)
    return torch.stack(axes, dim=-1).to(dtype).unsqueeze(0)


def rotary_tables(position: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns the cosines and sines for rotating queries and keys of tokens at the given positions.

    At integer positions, they are bit-identical to those of the stock layers, including rounding to the dtype of the
    queries.

    Args:
        position: (B or 1, N, 3) float, (t, h, w) of each token.
        dim: Number of channels of a head that each axis rotates.
        dtype: Dtype of the queries.

    Returns:
        Cosines and sines, each (B or 1, 1, N, 3 * dim).
    """
    omega = torch.arange(dim // 2, dtype=dtype, device=position.device)
    omega /= dim / 2.0
    omega = 1.0 / 10000**omega
    angle = position.to(dtype).unsqueeze(-1) * omega
    # Repeats the table as a whole although neighbouring channels are rotated in pairs: the checkpoints expect it.
    angle = angle.repeat(1, 1, 1, 2).flatten(-2).unsqueeze(1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotates neighbouring pairs of the first channels of each head; the others are unchanged.

    Args:
        x: (B, H, N, D) float queries or keys.
        cosine: (B or 1, 1, N, D') float, D' <= D.
        sine: (B or 1, 1, N, D') float.

    Returns:
        (B, H, N, D).
    """
    turned = x[..., : cosine.shape[-1]]
    first, second = turned.unflatten(-1, (-1, 2)).unbind(dim=-1)
    swapped = torch.stack((-second, first), dim=-1).flatten(-2)
    turned = turned * cosine + swapped * sine
    return torch.cat((turned, x[..., cosine.shape[-1] :]), dim=-1)
