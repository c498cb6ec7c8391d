"""Outputs of models that merge tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

from ..merging.trace import TokenMergingTrace


@dataclass
class TokenMergingOutputMixin:
    """What base models that merge tokens return besides the fields of the stock output.

    Args:
        token_sizes: (B, N) float, how many original tokens each token of `last_hidden_state` stands for; None while
            all are one.
        token_merging: The trace, if `output_token_merging=True` was asked for.
    """

    token_sizes: Tensor | None = None
    token_merging: TokenMergingTrace | None = None


# The first base comes last in the order of the fields.
@dataclass
class BaseModelOutputWithTokenMerging(TokenMergingOutputMixin, BaseModelOutputWithPooling):
    """What a base model returns when it merges tokens."""


@dataclass
class VideoClassifierOutputWithTokenMerging(ImageClassifierOutput):
    """What a classifier returns when it merges tokens.

    Args:
        token_merging: The trace, if `output_token_merging=True` was asked for.
    """

    token_merging: TokenMergingTrace | None = None
