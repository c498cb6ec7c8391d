"""Rotary positions of V-JEPA 2 for tokens that lie anywhere, not only on the grid."""

from __future__ import annotations

import torch
from torch import Tensor


def grid_positions(num_frames: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Positions of the tokens of a clip that was not merged.

    Args:
        num_frames: Tubelet slots along time.
        rows: Patches along the height.
        columns: Patches along the width.
        dtype: Float dtype of the positions.
        device: Where they are made.

    Returns:
        (1, num_frames * rows * columns, 3): (t, h, w) of each token.

    Examples:
        >>> grid_positions(2, 1, 2, torch.float32, torch.device("cpu"))[0].tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]
    """
    token = torch.arange(num_frames * rows * columns, device=device)
    axes = (token // (rows * columns), token // columns % rows, token % columns)
    return torch.stack(axes, dim=-1).to(dtype).unsqueeze(0)


def rotary_tables(position: Tensor, dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What queries and keys of tokens at these positions are turned by.

    At whole positions it is what the stock layers compute, bit for bit, rounding to the dtype of the queries included.

    Args:
        position: (B or 1, N, 3) float, (t, h, w) of each token.
        dim: Channels of a head that each axis turns.
        dtype: Dtype of the queries.

    Returns:
        Cosines and sines, each (B or 1, 1, N, 3 * dim).
    """
    omega = torch.arange(dim // 2, dtype=dtype, device=position.device)
    omega /= dim / 2.0
    omega = 1.0 / 10000**omega
    angle = position.to(dtype).unsqueeze(-1) * omega
    # Repeated as a whole while channels are turned in neighbouring pairs: so it is in the checkpoints.
    angle = angle.repeat(1, 1, 1, 2).flatten(-2).unsqueeze(1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turns neighbouring pairs of the first channels of each head; the others stay.

    Args:
        x: (B, H, N, D) float queries or keys.
        cosine: (B or 1, 1, N, D') float, D' <= D.
        sine: Likewise.

    Returns:
        (B, H, N, D).
    """
    turned = x[..., : cosine.shape[-1]]
    first, second = turned.unflatten(-1, (-1, 2)).unbind(dim=-1)
    swapped = torch.stack((-second, first), dim=-1).flatten(-2)
    turned = turned * cosine + swapped * sine
    return torch.cat((turned, x[..., cosine.shape[-1] :]), dim=-1)
