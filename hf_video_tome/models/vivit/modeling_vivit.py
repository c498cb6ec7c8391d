"""ViViT with token merging: the stock modules of transformers, subclassed."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.models.vivit import modeling_vivit as stock

from ..._compat import TransformersKwargs, can_return_tuple, capture_outputs
from ...merging.attention_statistics import AttentionStatistics
from ...merging.plan import Plan
from ...merging.reduction import Reduction
from ...merging.step import Step
from ...merging.tokens import Tokens
from ..attention import attend, split_heads
from ..cpu.embed_tubelets import embed_tubelets
from ..fused_activation import fused_activation
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import BaseModelOutputWithTokenMerging
from ..run_layers import run_layers
from .configuration_vivit import VivitConfig


class VivitAttention(stock.VivitAttention):
    """Self-attention that weighs keys by token size and decides which tokens merge."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        step: Step | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Reduction]:
        """Returns (output (B, N, C), weights); with a step, (output (B, M, C), weights, reduction)."""
        if step is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        queries = split_heads(self.q_proj(step.queries(hidden_states)), self.head_dim)
        keys = split_heads(self.k_proj(hidden_states), self.head_dim)
        values = split_heads(self.v_proj(hidden_states), self.head_dim)
        context, weights = attend(
            self,
            stock.eager_attention_forward,
            queries,
            keys,
            values,
            size=step.attention_size,
            scaling=self.scaling,
            dropout=self.attention_dropout,
            **kwargs,
        )
        attention = AttentionStatistics(queries, keys, self.scaling, step.attention_size)
        reduction = step.decide(keys, attention=attention)
        return self.o_proj(reduction.apply(context.flatten(2))), weights, reduction


class VivitTubeletEmbeddings(stock.VivitTubeletEmbeddings):
    """Tubelet embeddings, with a faster implementation if tokens merge."""

    def forward(self, pixel_values: Tensor, merges_tokens: bool = False) -> Tensor:
        """Returns (B, N, C)."""
        if not merges_tokens:
            return super().forward(pixel_values)
        return embed_tubelets(self.projection, pixel_values)


class VivitEmbeddings(stock.VivitEmbeddings):
    """CLS and tubelet embeddings with position embeddings; tells the tubelet embeddings whether tokens merge."""

    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, merges_tokens: bool = False
    ) -> Tensor:
        """Returns CLS and tubelets (B, 1 + N, C) for clips (B, T, C, H, W)."""
        if not merges_tokens:
            return super().forward(pixel_values, interpolate_pos_encoding)
        patches = self.patch_embeddings(pixel_values, **_merges_tokens(self.patch_embeddings))
        embeddings = torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        if interpolate_pos_encoding:
            embeddings = embeddings + self.interpolate_pos_encoding(embeddings, *pixel_values.shape[3:])
        else:
            embeddings = embeddings + self.position_embeddings
        return self.dropout(embeddings)


class VivitMLP(stock.VivitMLP):
    """MLP, with a fused activation if tokens merge."""

    def forward(self, hidden_states: Tensor, merges_tokens: bool = False) -> Tensor:
        """Returns (B, N, C)."""
        if not merges_tokens:
            return super().forward(hidden_states)
        return self.fc2(fused_activation(self.activation_fn)(self.fc1(hidden_states)))


def _merges_tokens(module: nn.Module) -> dict[str, bool]:
    """Returns the argument that tells a module above that tokens merge; replaced modules do not get it."""
    return {"merges_tokens": True} if isinstance(module, (VivitTubeletEmbeddings, VivitEmbeddings, VivitMLP)) else {}


class VivitLayer(stock.VivitLayer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        step: Step | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor, Tokens]:
        """Returns the states (B, M, C); with a step, also the tokens."""
        if step is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attention_output, _, reduction = self.attention(self.layernorm_before(hidden_states), step=step, **kwargs)
        hidden_states = self.dropout(attention_output) + reduction.apply(hidden_states)
        hidden_states, tokens = step.complete(hidden_states, reduction, self._mlp)
        return self.dropout(self._mlp(hidden_states)) + hidden_states, tokens

    def _mlp(self, hidden_states: Tensor) -> Tensor:
        """Returns the output of the MLP without the residual connection."""
        return self.mlp(self.layernorm_after(hidden_states), **_merges_tokens(self.mlp))


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.VivitAttention: VivitAttention,
    stock.VivitTubeletEmbeddings: VivitTubeletEmbeddings,
    stock.VivitEmbeddings: VivitEmbeddings,
    stock.VivitMLP: VivitMLP,
    stock.VivitLayer: VivitLayer,
}


class VivitModel(TokenMergingModelMixin, stock.VivitModel):
    """`transformers.VivitModel` that merges tokens as set in its config.

    Args:
        config: A ViViT config, of transformers or of this package.
        add_pooling_layer: Whether to add a pooling layer.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = VivitConfig
    module_classes = MODULE_CLASSES

    def forward(
        self,
        pixel_values: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        attention_mask: Tensor | None = None,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling | tuple:
        """Encodes clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            interpolate_pos_encoding: As for `transformers.VivitModel`.
            attention_mask: As for `transformers.VivitModel`; must be None if tokens merge.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for `transformers.VivitModel`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; if tokens merge, `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` are included.

        Raises:
            ValueError: If the clips do not fit the checkpoint, or an attention mask is given together with merging.
        """
        if plan is None:
            plan = self._make_plan(pixel_values, kwargs, any_size=interpolate_pos_encoding)
        assert pixel_values is not None
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values, interpolate_pos_encoding, attention_mask, **kwargs)
        if attention_mask is not None:
            raise ValueError("attention_mask must be None when tokens are merged: it refers to unmerged tokens")
        return self._forward_merging(pixel_values, interpolate_pos_encoding, plan, output_token_merging, **kwargs)

    @capture_outputs(tie_last_hidden_states=False)
    def _forward_merging(
        self,
        pixel_values: Tensor,
        interpolate_pos_encoding: bool,
        plan: Plan,
        output_token_merging: bool,
        **kwargs: Any,
    ) -> BaseModelOutputWithTokenMerging:
        embeddings = self.embeddings(
            self._cast_pixels(pixel_values, plan), interpolate_pos_encoding, **_merges_tokens(self.embeddings)
        )
        hidden_states, tokens, trace = run_layers(
            self.layers, embeddings, plan, output_token_merging, pixel_values=pixel_values, **kwargs
        )
        sequence_output, token_sizes = plan.leave(self.layernorm(hidden_states), tokens)
        return BaseModelOutputWithTokenMerging(
            last_hidden_state=sequence_output,
            pooler_output=self.pooler(sequence_output) if self.pooler is not None else None,
            token_sizes=token_sizes,
            token_merging=trace,
        )


class VivitForVideoClassification(TokenMergingHeadMixin, stock.VivitForVideoClassification):
    """`transformers.VivitForVideoClassification` that merges tokens as set in its config.

    Args:
        config: A ViViT config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> config = VivitConfig(image_size=32, tubelet_size=[2, 8, 8], num_frames=4, hidden_size=16,
        ...                      num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        ...                      num_labels=5, token_merging_r=8)
        >>> model = VivitForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (33, 25, 17))
    """

    config_class = VivitConfig
    module_classes = MODULE_CLASSES | {stock.VivitModel: VivitModel}
    reads = "prefix"

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_token_merging: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            labels: (B,) int64 class indices, for the loss.
            interpolate_pos_encoding: As for `transformers.VivitForVideoClassification`.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for `transformers.VivitForVideoClassification`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers, with `token_merging` if requested.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        kwargs["output_token_merging"] = output_token_merging  # type: ignore[typeddict-unknown-key]
        plan = self._make_plan(pixel_values, kwargs, any_size=interpolate_pos_encoding)
        outputs = self.vivit(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, plan=plan, return_dict=True, **kwargs
        )
        return self._classify(outputs.last_hidden_state[:, 0], outputs, labels, **kwargs)
