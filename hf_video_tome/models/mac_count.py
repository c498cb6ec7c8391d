"""Exact multiply-accumulates (MACs) of one clip: the common form, and what the architectures count alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..configuration import TokenMergingConfigMixin
from ..merging.modes import Context
from ..merging.plan import Plan
from ..merging.scopes import SHARED_SCOPES
from ..merging.tokens import Tokens


@dataclass(frozen=True)
class LayerMacCount:
    """Multiply-accumulates of one layer.

    Attributes:
        name: Such as "layer 3"; layers count from 0.
        tokens: Tokens of the sequence that come in.
        projections: Linear layers of the attention: queries, keys, values and output.
        attention: Products of queries with keys, and of attention weights with values.
        matching: Similarities of tokens; 0 where nothing is merged, and with random modes.
        mlp: Linear layers of the MLP, for the tokens that are left.
    """

    name: str
    tokens: int
    projections: int
    attention: int
    matching: int
    mlp: int

    @property
    def total(self) -> int:
        """All of the layer."""
        return self.projections + self.attention + self.matching + self.mlp


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates of one clip.

    Attributes:
        embedding: Patch embedding.
        layers: All layers of the encoder, in their order; those of a temporal encoder behind those of the spatial one.
        head: What comes after: pooler and classifier.

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
        """Linear layers of the attention of all layers."""
        return sum(layer.projections for layer in self.layers)

    @property
    def attention(self) -> int:
        """Attention products of all layers."""
        return sum(layer.attention for layer in self.layers)

    @property
    def matching(self) -> int:
        """Similarities that the matching of all layers needs."""
        return sum(layer.matching for layer in self.layers)

    @property
    def mlp(self) -> int:
        """MLPs of all layers."""
        return sum(layer.mlp for layer in self.layers)

    @property
    def total(self) -> int:
        """All of them."""
        return self.embedding + sum(layer.total for layer in self.layers) + self.head

    def to_dict(self) -> dict[str, int]:
        """The total and its parts; JSON-safe."""
        parts = ("embedding", "projections", "attention", "matching", "mlp", "head")
        return {"total": self.total, **{part: getattr(self, part) for part in parts}}


class MergingLayer(NamedTuple):
    """What the plan says of one layer that can merge.

    Attributes:
        number: Of the layer, from 0.
        tokens: Tokens of the sequence that come in.
        projected: Tokens that the output projection of the attention is applied to: those that are left, unless the
            mode reads hidden states, which come later.
        left: Tokens of the sequence that are left for the MLP.
        matching: MACs of the matching.
    """

    number: int
    tokens: int
    projected: int
    left: int
    matching: int


def merging_layers(config: TokenMergingConfigMixin, width: int, num_heads: int) -> Iterator[MergingLayer]:
    """Goes through the layers that can merge.

    Args:
        config: The config.
        width: Channels of the keys of all heads together.
        num_heads: Attention heads.

    Yields:
        Tokens and matching of each layer.
    """
    plan = config.token_merging_plan()
    channels = width if plan.settings.head_aggregation == "concat" else width // num_heads
    counts = plan.token_counts()
    decides_late = "hidden_states" in plan.mode.reads
    for index, (removed, tokens, left) in enumerate(zip(plan.removals(), counts[:-1], counts[1:], strict=True)):
        matching = _matching(plan, index, tokens, removed, channels, width) if removed else 0
        yield MergingLayer(index, tokens, tokens if decides_late else left, left, matching)


def _matching(plan: Plan, layer: int, num_tokens: int, removed: int, channels: int, width: int) -> int:
    """MACs of what a mode compares, for all sets of a clip: found by running it on tensors without content."""
    layout, scope = plan.layout, plan.settings.scope
    tokens = torch.empty(1, num_tokens, channels, device="meta")
    metric = layout.split(tokens, scope)[1]
    index = layout.split(torch.empty(1, num_tokens, dtype=torch.int64, device="meta"), scope)[1]
    context = Context(
        keys=metric,
        tokens=Tokens(index=index if "index" in plan.mode.reads else None),
        layout=layout,
        r=removed,
        hidden_states=layout.split(torch.empty(1, num_tokens, width, device="meta"), scope)[1],
        layer=layer,
        num_layers=len(plan.requested),
        num_protected=layout.set_size(scope)[1],
        shared=scope in SHARED_SCOPES,
        threshold=plan.settings.threshold,
    )
    with FlopCounterMode(display=False) as counter:
        plan.mode.assign(context)
    return counter.get_total_flops() // 2


def attention_products(queries: int, keys: int, width: int, batch: int = 1) -> int:
    """MACs of queries with keys and of weights with values, all heads together.

    Args:
        queries: Number of queries in each of the sequences.
        keys: Number of keys in each.
        width: Channels of all heads together.
        batch: Sequences that are attended to by themselves.

    Examples:
        >>> attention_products(queries=3, keys=5, width=8)
        240
    """
    return 2 * batch * queries * keys * width


def patch_embedding(config: TokenMergingConfigMixin, patch_volume: int, width: int) -> int:
    """MACs of the patch embedding.

    Args:
        config: The config, for the number of patches and of channels.
        patch_volume: Pixels of a patch or tubelet, without channels.
        width: Channels of a token.
    """
    layout, clip = config.token_layout, config.clip_shape
    return layout.num_frames * layout.num_patches * clip.channels * patch_volume * width


def joint_layers(config: Any, mlp_width: int) -> tuple[LayerMacCount, ...]:
    """Layers in which all tokens of a clip attend to each other: VideoMAE, ViViT, V-JEPA 2.

    Args:
        config: A config with `hidden_size` and `num_attention_heads`.
        mlp_width: Channels inside the MLP.

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
        for layer in merging_layers(config, width, config.num_attention_heads)
    )


def side_product(size: Any) -> int:
    """Area of a patch: of an int for both sides, or of (height, width).

    Examples:
        >>> side_product(16), side_product((16, 32))
        (256, 512)
    """
    height, width = (size, size) if isinstance(size, int) else size
    return height * width
