"""Activations as one kernel, with the same result up to rounding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers.activations import FastGELUActivation, NewGELUActivation

from .untouched import are_untouched


def fused_activation(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """Returns an activation as one kernel instead of the eight that the formula in transformers takes.

    Args:
        activation: The stock module.

    Returns:
        A function with the same result (up to 1e-12 in float64), or the module itself if it already is one kernel.

    Examples:
        >>> import torch
        >>> from transformers.activations import ACT2FN
        >>> x = torch.randn(5, dtype=torch.float64)
        >>> torch.allclose(fused_activation(ACT2FN["gelu_fast"])(x), ACT2FN["gelu_fast"](x), atol=1e-11)
        True
    """
    if type(activation) in (FastGELUActivation, NewGELUActivation) and are_untouched([activation]):
        return partial(gelu, approximate="tanh")
    return activation
