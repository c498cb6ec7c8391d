"""V-JEPA 2 with token merging: the stock modules of transformers, subclassed."""

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput

# The eager attention of V-JEPA 2 ignores its mask; this one is the same with a mask.
from transformers.models.vivit.modeling_vivit import eager_attention_forward
from transformers.models.vjepa2 import modeling_vjepa2 as stock

from ..._compat import TransformersKwargs, can_return_tuple, capture_outputs
from ...merging.attention_statistics import AttentionStatistics
from ...merging.plan import Plan
from ...merging.reduction import Reduction
from ...merging.step import Step
from ...merging.tokens import Tokens
from ..attention import attend, split_heads
from ..cpu.embed_tubelets import embed_tubelets
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import TokenMergingOutputMixin
from ..run_layers import run_layers
from ..untouched import are_untouched
from .configuration_vjepa2 import VJEPA2Config
from .rotary import grid_positions, rotary_tables, rotate


@dataclass
class VJEPA2ModelOutputWithTokenMerging(TokenMergingOutputMixin, stock.VJEPA2WithMaskedInputModelOutput):
    """Output of the base model when it merges tokens."""


class VJEPA2RopeAttention(stock.VJEPA2RopeAttention):
    """Self-attention for tokens at any position that weighs keys by token size and decides which tokens merge."""

    def forward(
        self,
        hidden_states: Tensor,
        position_mask: Tensor | None = None,
        step: Step | None = None,
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Reduction]:
        """Returns (output (B, N, C), weights); with a step, (output (B, M, C), weights, reduction)."""
        if step is None:
            return super().forward(hidden_states, position_mask)
        queries = split_heads(self.query(hidden_states), self.attention_head_size)
        keys = split_heads(self.key(hidden_states), self.attention_head_size)
        values = split_heads(self.value(hidden_states), self.attention_head_size)
        position = step.tokens.position
        assert position is not None  # set by the encoder
        # The axes split the channels of a head evenly, so one table works for all three.
        cosine, sine = rotary_tables(position, self.d_dim, queries.dtype)
        queries, rotated = rotate(queries, cosine, sine), rotate(keys, cosine, sine)
        context, weights = attend(
            self,
            eager_attention_forward,
            queries,
            rotated,
            values,
            size=step.attention_size,
            scaling=self.scaling,
            dropout=self.dropout_prob,
        )
        attention = AttentionStatistics(queries, rotated, self.scaling, step.attention_size)
        reduction = step.decide(keys, attention=attention)  # keys before rotation
        return self.proj(reduction.apply(context.flatten(2))), weights, reduction


class VJEPA2Layer(stock.VJEPA2Layer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(
        self,
        hidden_states: Tensor,
        position_mask: Tensor | None = None,
        step: Step | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tokens]:
        """Returns the states (B, M, C) and, with a step, the tokens, otherwise the attention weights."""
        if step is None:
            return super().forward(hidden_states, position_mask, **kwargs)
        attention_output, _, reduction = self.attention(self.norm1(hidden_states), step=step)
        hidden_states = self.drop_path(attention_output) + reduction.apply(hidden_states)
        hidden_states, tokens = step.complete(hidden_states, reduction, self._mlp)
        return self.drop_path(self._mlp(hidden_states)) + hidden_states, tokens

    def _mlp(self, hidden_states: Tensor) -> Tensor:
        """Returns the output of the MLP without the residual connection."""
        return self.mlp(self.norm2(hidden_states))


class VJEPA2PoolerSelfAttention(stock.VJEPA2PoolerSelfAttention):
    """Self-attention of the pooler that can weigh keys by token size."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Attends to all tokens.

        Args:
            hidden_states: (B, N, C) float.
            attention_mask: (B, N) float token sizes, or None. The stock layers hand it through as it is.

        Returns:
            The output (B, N, C) and the weights.
        """
        if attention_mask is None:
            return super().forward(hidden_states)
        context, weights = attend(
            self,
            eager_attention_forward,
            split_heads(self.q_proj(hidden_states), self.head_dim),
            split_heads(self.k_proj(hidden_states), self.head_dim),
            split_heads(self.v_proj(hidden_states), self.head_dim),
            size=attention_mask,
            scaling=self.scale,
            dropout=self.dropout,
        )
        return self.out_proj(context.flatten(2)), weights


class VJEPA2PoolerCrossAttention(stock.VJEPA2PoolerCrossAttention):
    """Cross-attention of the pooling query that can weigh keys by token size."""

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Attends to all tokens.

        Args:
            queries: (B, Q, C) float.
            keys: (B, N, C) float.
            values: (B, N, C) float.
            attention_mask: (B, N) float token sizes, or None. The stock layers hand it through as it is.

        Returns:
            The output (B, Q, C) and the weights.
        """
        if attention_mask is None:
            return super().forward(queries, keys, values)
        context, weights = attend(
            self,
            eager_attention_forward,
            split_heads(self.q_proj(queries), self.head_dim),
            split_heads(self.k_proj(keys), self.head_dim),
            split_heads(self.v_proj(values), self.head_dim),
            size=attention_mask,
            scaling=self.scale,
            dropout=self.dropout,
        )
        return context.flatten(2), weights


class VJEPA2AttentivePooler(stock.VJEPA2AttentivePooler):
    """Attentive pooler that can weigh tokens by their size."""

    def forward(self, hidden_state: Tensor, size: Tensor | None = None) -> Tensor:
        """Returns (B, C) from the states (B, N, C) and the token sizes (B, N), None for all ones."""
        if size is None:
            return super().forward(hidden_state)
        for layer in self.self_attention_layers:
            hidden_state = layer(hidden_state, attention_mask=size)[0]
        queries = self.query_tokens.repeat(hidden_state.shape[0], 1, 1)
        return self.cross_attention_layer(queries, hidden_state, attention_mask=size)[0].squeeze(1)


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.VJEPA2RopeAttention: VJEPA2RopeAttention,
    stock.VJEPA2Layer: VJEPA2Layer,
    stock.VJEPA2PoolerSelfAttention: VJEPA2PoolerSelfAttention,
    stock.VJEPA2PoolerCrossAttention: VJEPA2PoolerCrossAttention,
    stock.VJEPA2AttentivePooler: VJEPA2AttentivePooler,
}


class VJEPA2Model(TokenMergingModelMixin, stock.VJEPA2Model):
    """`transformers.VJEPA2Model` that merges tokens as set in its config.

    Args:
        config: A V-JEPA 2 config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = VJEPA2Config
    module_classes = MODULE_CLASSES
    _supports_flex_attn = True

    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        context_mask: list[Tensor] | None = None,
        target_mask: list[Tensor] | None = None,
        skip_predictor: bool = False,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> stock.VJEPA2WithMaskedInputModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values_videos: (B, T, C, H, W) float, normalised, of any number of frames.
            context_mask: As for `transformers.VJEPA2Model`; must be None if tokens merge.
            target_mask: As for `transformers.VJEPA2Model`; must be None if tokens merge.
            skip_predictor: Whether to skip the predictor; must be True if tokens merge, because the predictor needs
                all tokens at their original positions.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for `transformers.VJEPA2Model`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; if tokens merge, `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` are included.

        Raises:
            ValueError: If the clips do not fit the checkpoint, or masks or the predictor are requested together with
                merging or a trace.
        """
        if plan is None:
            plan = self._make_plan(pixel_values_videos, kwargs, any_frames=True)
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values_videos, context_mask, target_mask, skip_predictor, **kwargs)
        if context_mask is not None or target_mask is not None:
            raise ValueError(
                "context_mask and target_mask must be None when tokens are merged or traced: they refer to unmerged "
                "tokens"
            )
        if not skip_predictor:
            raise ValueError(
                "skip_predictor must be True when tokens are merged or traced (the predictor needs all tokens), got "
                "False"
            )
        return self._forward_merging(pixel_values_videos, plan, output_token_merging, **kwargs)

    @capture_outputs(tie_last_hidden_states=False)
    def _forward_merging(
        self, pixel_values_videos: Tensor, plan: Plan, output_token_merging: bool, **kwargs: Any
    ) -> VJEPA2ModelOutputWithTokenMerging:
        embeddings = self._embed(pixel_values_videos)
        _, rows, columns = self.config.tubelet_grid(self.config.clip_shape)
        position = grid_positions(
            plan.layout.num_frames,
            rows,
            columns,
            dtype=torch.promote_types(embeddings.dtype, torch.float32),
            device=embeddings.device,
        )
        hidden_states, tokens, trace = run_layers(
            self.encoder.layer,
            embeddings,
            plan,
            output_token_merging,
            position=position,
            pixel_values=pixel_values_videos,
        )
        last_hidden_state, token_sizes = plan.leave(self.encoder.layernorm(hidden_states), tokens)
        return VJEPA2ModelOutputWithTokenMerging(
            last_hidden_state=last_hidden_state,
            masked_hidden_state=last_hidden_state,  # without a mask, all tokens are the context
            token_sizes=token_sizes,
            token_merging=trace,
        )

    def _embed(self, pixel_values_videos: Tensor) -> Tensor:
        """Embeds clips (B, T, C, H, W) as tubelets (B, N, C)."""
        embeddings = self.encoder.embeddings
        patches = embeddings.patch_embeddings
        plain = type(embeddings) is stock.VJEPA2Embeddings and type(patches) is stock.VJEPA2PatchEmbeddings3D
        # The stock module repeats clips that are shorter than a tubelet.
        if (
            not plain
            or pixel_values_videos.shape[1] < patches.tubelet_size
            or not are_untouched([embeddings, patches])
        ):
            return embeddings(pixel_values_videos)
        return embed_tubelets(patches.proj, pixel_values_videos.to(patches.proj.weight.dtype))


class VJEPA2ForVideoClassification(TokenMergingHeadMixin, stock.VJEPA2ForVideoClassification):
    """`transformers.VJEPA2ForVideoClassification` that merges tokens as set in its config.

    Args:
        config: A V-JEPA 2 config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> config = VJEPA2Config(crop_size=32, patch_size=8, frames_per_clip=4, hidden_size=32, num_hidden_layers=2,
        ...                       num_attention_heads=2, num_pooler_layers=1, pred_hidden_size=24,
        ...                       pred_num_attention_heads=2, pred_num_hidden_layers=1, num_labels=5,
        ...                       token_merging_r=8)
        >>> model = VJEPA2ForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (32, 24, 16))
    """

    config_class = VJEPA2Config
    module_classes = MODULE_CLASSES | {stock.VJEPA2Model: VJEPA2Model}
    stock_attn_implementation = "eager"
    _supports_flex_attn = True

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        labels: Tensor | None = None,
        output_token_merging: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values_videos: (B, T, C, H, W) float, normalised, of any number of frames.
            labels: (B,) int64 class indices, for the loss.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for `transformers.VJEPA2ForVideoClassification`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers, with `token_merging` if requested.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        plan = self._make_plan(pixel_values_videos, kwargs, any_frames=True)
        outputs = self.vjepa2(
            pixel_values_videos,
            skip_predictor=True,
            output_token_merging=output_token_merging,
            plan=plan,
            return_dict=True,
            **kwargs,
        )
        weights = plan.pooling_weights(getattr(outputs, "token_sizes", None))
        return self._classify(self.pooler(outputs.last_hidden_state, weights), outputs, labels)
