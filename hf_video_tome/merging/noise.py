"""Random numbers in place of scores: the control that a method has to beat."""

from __future__ import annotations

import torch
from torch import Tensor


def uniform_noise(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Returns uniform random numbers in [0, 1).

    Args:
        shape: Shape of the result.
        like: Tensor with the dtype and device of the result.
        generator: Random number generator; the global one of PyTorch when None.
    """
    if generator is None:  # exporters reject the argument, even if it is None
        return torch.rand(shape, dtype=like.dtype, device=like.device)
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)
