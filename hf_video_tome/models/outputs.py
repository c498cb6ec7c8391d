"""Outputs of models that merge tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

from ..merging.trace import TokenMergingTrace


@dataclass
class TokenMergingOutputMixin:
    """Output fields that base models add when they merge tokens.

    Args:
        token_sizes: (B, N) float, number of original tokens that each token of `last_hidden_state` stands for; None
            if all are 1.
        token_merging: The trace, if `output_token_merging=True` was passed.
    """

    token_sizes: Tensor | None = None
    token_merging: TokenMergingTrace | None = None


# The first base comes last in the order of the fields.
@dataclass
class BaseModelOutputWithTokenMerging(TokenMergingOutputMixin, BaseModelOutputWithPooling):
    """Output of a base model when it merges tokens."""


@dataclass
class VideoClassifierOutputWithTokenMerging(ImageClassifierOutput):
    """Output of a classifier when it merges tokens.

    Args:
        token_merging: The trace, if `output_token_merging=True` was passed.
    """

    token_merging: TokenMergingTrace | None = None
