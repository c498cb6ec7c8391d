"""Flex attention without its compiler: the same numbers, and none of the seconds that each new shape takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention


def _uncompiled(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, training: bool = False, **kwargs: Any
) -> torch.Tensor:
    return flex_attention(query, key, value, **kwargs)


@pytest.fixture
def uncompiled_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.integrations.flex_attention

    monkeypatch.setattr(transformers.integrations.flex_attention, "compile_friendly_flex_attention", _uncompiled)


def skip_if_flex_cannot_run_here() -> None:
    """Skips where this torch cannot compile flex attention for this CPU at all, merging or not."""
    query = torch.randn(1, 2, 16, 16)
    try:
        torch.compile(flex_attention)(query, query, query)
    except Exception as error:
        pytest.skip(f"torch {torch.__version__} cannot compile flex_attention for this CPU: {error}")
