"""Dtype of the clips that a model reads."""

from __future__ import annotations

from typing import Any

import torch

from .model_mixin import TokenMergingModelMixin


def pixel_dtype(model: Any) -> torch.dtype:
    """Returns the dtype in which a model reads clips: that of its weights, but float32 for an input stage.

    Differences of a few grey levels are inexact in half precision: an input stage would choose other tubelets.

    Args:
        model: Any model.

    Returns:
        The dtype for its `pixel_values`; the model casts them itself after the input stage has read them.

    Examples:
        >>> pixel_dtype(torch.nn.Linear(2, 2).bfloat16())
        torch.bfloat16
    """
    dtype: torch.dtype = next(model.parameters()).dtype
    if isinstance(model, TokenMergingModelMixin):
        settings = model.current_token_merging()
        if settings.input is not None and model.config.token_merging_plan(settings=settings).input_stage is not None:
            return torch.promote_types(dtype, torch.float32)
    return dtype
