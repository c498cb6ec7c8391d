"""Exact multiply-accumulates (MACs) of one clip: result classes, and counts that architectures share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ..configuration import TokenMergingConfigMixin
from ..merging.attention_statistics import AttentionStatistics
from ..merging.plan import Plan
from ..merging.step import Step
from ..merging.tokens import Tokens


@dataclass(frozen=True)
class LayerMacCount:
    """Multiply-accumulates of one layer.

    Attributes:
        name: Name such as "layer 3", counted from 0.
        tokens: Number of tokens that enter the layer.
        projections: Linear layers of the attention: queries, keys, values and output.
        attention: Products of queries with keys, and of attention weights with values.
        matching: Products that the mode computes to decide; 0 if no tokens merge, and for random modes.
        mlp: Linear layers of the MLP, for the remaining tokens.
    """

    name: str
    tokens: int
    projections: int
    attention: int
    matching: int
    mlp: int

    @property
    def total(self) -> int:
        """Total of the layer."""
        return self.projections + self.attention + self.matching + self.mlp


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one clip.

    Attributes:
        embedding: Patch embedding.
        layers: All layers of the encoder in order; those of a temporal encoder come after the spatial ones.
        head: Pooler and classifier.

    Examples:
        >>> layer = LayerMacCount("layer 0", tokens=8, projections=40, attention=30, matching=4, mlp=26)
        >>> MacCount(embedding=10, layers=(layer,), head=2).total
        112
    """

    embedding: int
    layers: tuple[LayerMacCount, ...]
    head: int

    @property
    def projections(self) -> int:
        """Linear layers of attention in all layers."""
        return sum(layer.projections for layer in self.layers)

    @property
    def attention(self) -> int:
        """Attention products in all layers."""
        return sum(layer.attention for layer in self.layers)

    @property
    def matching(self) -> int:
        """Products for matching in all layers."""
        return sum(layer.matching for layer in self.layers)

    @property
    def mlp(self) -> int:
        """MLPs in all layers."""
        return sum(layer.mlp for layer in self.layers)

    @property
    def total(self) -> int:
        """Total of the clip."""
        return self.embedding + sum(layer.total for layer in self.layers) + self.head

    def to_dict(self) -> dict[str, int]:
        """Returns the total and its parts as a JSON-safe dictionary."""
        parts = ("embedding", "projections", "attention", "matching", "mlp", "head")
        return {"total": self.total, **{part: getattr(self, part) for part in parts}}


class MergingLayer(NamedTuple):
    """Token counts of one layer that can merge.

    Attributes:
        number: Number of the layer, from 0.
        tokens: Number of tokens that enter the layer.
        projected: Number of tokens in the output projection of the attention: the remaining ones, unless the mode
            reads hidden states and decides later.
        left: Number of tokens that remain for the MLP.
        matching: MACs of the matching.
    """

    number: int
    tokens: int
    projected: int
    left: int
    matching: int


def merging_layers(
    config: TokenMergingConfigMixin, width: int, num_heads: int, mlp_width: int
) -> Iterator[MergingLayer]:
    """Iterates over the layers that can merge.

    Args:
        config: The config.
        width: Number of channels of all heads.
        num_heads: Number of attention heads.
        mlp_width: Number of channels inside the MLP.

    Yields:
        Token counts and matching of each layer.
    """
    plan = config.token_merging_plan()
    counts = plan.token_counts()
    decides_late = plan.settings.decides_late
    for index, (removed, tokens, left) in enumerate(zip(plan.removals(), counts[:-1], counts[1:], strict=True)):
        matching = _matching(plan, index, tokens, removed, width, num_heads, mlp_width) if removed else 0
        yield MergingLayer(index, tokens, tokens if decides_late else left, left, matching)


def _matching(
    plan: Plan, layer: int, num_tokens: int, removed: int, width: int, num_heads: int, mlp_width: int
) -> int:
    """Counts the MACs of a mode for all sets of a clip, by running it on meta tensors."""

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    def mlp(x: Tensor) -> Tensor:
        return x @ empty(width, mlp_width) @ empty(mlp_width, width)

    channels = width if plan.settings.head_aggregation == "concat" else width // num_heads
    heads = empty(1, num_heads, num_tokens, width // num_heads)
    tokens = Tokens(index=empty(1, num_tokens, dtype=torch.int64))
    step = Step(removed, tokens, plan.layout, plan.settings, layer, len(plan.requested))
    context = step.context(empty(1, num_tokens, channels), AttentionStatistics(heads, heads, 1.0))
    context = step.with_states(context, empty(1, num_tokens, width), mlp)
    with FlopCounterMode(display=False) as counter:
        plan.mode.assign(context)
    return counter.get_total_flops() // 2


def attention_products(queries: int, keys: int, width: int, batch: int = 1) -> int:
    """Returns the MACs of queries times keys and weights times values, for all heads.

    Args:
        queries: Number of queries per sequence.
        keys: Number of keys per sequence.
        width: Number of channels of all heads.
        batch: Number of sequences, each with its own attention.

    Examples:
        >>> attention_products(queries=3, keys=5, width=8)
        240
    """
    return 2 * batch * queries * keys * width


def patch_embedding(config: TokenMergingConfigMixin, patch_volume: int, width: int) -> int:
    """Returns the MACs of the patch embedding.

    Args:
        config: The config, for the number of patches and channels.
        patch_volume: Number of pixels of a patch or tubelet, without channels.
        width: Number of channels of a token.
    """
    layout, clip = config.token_layout, config.clip_shape
    return layout.num_frames * layout.num_patches * clip.channels * patch_volume * width


def joint_layers(config: Any, mlp_width: int) -> tuple[LayerMacCount, ...]:
    """Counts layers in which all tokens of a clip attend to each other: VideoMAE, ViViT, V-JEPA 2.

    Args:
        config: A config with `hidden_size` and `num_attention_heads`.
        mlp_width: Number of channels inside the MLP.

    Returns:
        One entry per layer.
    """
    width = config.hidden_size
    return tuple(
        LayerMacCount(
            name=f"layer {layer.number}",
            tokens=layer.tokens,
            # Tokens merge before the output projection.
            projections=(3 * layer.tokens + layer.projected) * width**2,
            attention=attention_products(layer.tokens, layer.tokens, width),
            matching=layer.matching,
            mlp=2 * layer.left * width * mlp_width,
        )
        for layer in merging_layers(config, width, config.num_attention_heads, mlp_width)
    )


def side_product(size: Any) -> int:
    """Returns the area of a patch, given one int for both sides or (height, width).

    Examples:
        >>> side_product(16), side_product((16, 32))
        (256, 512)
    """
    height, width = (size, size) if isinstance(size, int) else size
    return height * width
