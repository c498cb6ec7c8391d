"""Patch embedding as a matrix product, for half precision on CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ..untouched import are_untouched
from .switch import ENABLED


def embed_tubelets(projection: nn.Module, pixel_values: Tensor) -> Tensor:
    """Computes patch embeddings, with a matrix product if that is faster than the equivalent convolution.

    On CPUs, a 3D convolution in bfloat16 can take ten times as long as the product; in float32 it is faster.

    Args:
        projection: The stock convolution, with a kernel and stride of one tubelet.
        pixel_values: (B, T, C, H, W) float.

    Returns:
        (B, T' * H' * W', D), frame by frame and row by row.

    Examples:
        >>> projection = nn.Conv3d(3, 16, kernel_size=(2, 8, 8), stride=(2, 8, 8))
        >>> embed_tubelets(projection, torch.randn(1, 4, 3, 32, 24)).shape
        torch.Size([1, 24, 16])
    """
    if (
        ENABLED
        and pixel_values.device.type == "cpu"
        and pixel_values.dtype is torch.bfloat16
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and type(projection) is nn.Conv3d
        and type(projection.weight) is nn.Parameter
        and projection.weight.dtype is torch.bfloat16
        and are_untouched([projection])
    ):
        return _tubelets_by_matrix(projection.weight, projection.bias, pixel_values)
    return projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)


def _tubelets_by_matrix(weight: Tensor, bias: Tensor | None, pixel_values: Tensor) -> Tensor:
    """Computes the convolution (D, C, t, h, w) over whole tubelets of (B, T, C, H, W) as a matrix product."""
    frames, height, width = weight.shape[2:]
    # Partial tubelets are ignored, as in the convolution.
    slots, rows, columns = (
        size // side for size, side in zip(pixel_values[0, :, 0].shape, (frames, height, width), strict=True)
    )
    pixels = pixel_values[:, : slots * frames, :, : rows * height, : columns * width]
    tubelets = pixels.unflatten(4, (columns, width)).unflatten(3, (rows, height)).unflatten(1, (slots, frames))
    # (B, slots, t, C, rows, h, columns, w): frames before channels, so that copies are longer.
    matrix = tubelets.permute(0, 1, 4, 6, 2, 3, 5, 7).flatten(4).flatten(1, 3)
    return linear(matrix, weight.transpose(1, 2).flatten(1), bias)
