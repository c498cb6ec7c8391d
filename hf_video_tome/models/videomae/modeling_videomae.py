"""VideoMAE with token merging: the stock modules of transformers, subclassed."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput
from transformers.models.videomae import modeling_videomae as stock

from ..._compat import TransformersKwargs, can_return_tuple, capture_outputs
from ...merging.attention_statistics import AttentionStatistics
from ...merging.plan import Plan
from ...merging.pooling import mean_pool
from ...merging.reduction import Reduction
from ...merging.step import Step
from ...merging.tokens import Tokens
from ..attention import attend, split_heads
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import BaseModelOutputWithTokenMerging
from ..run_layers import run_layers
from .configuration_videomae import VideoMAEConfig


class VideoMAESelfAttention(stock.VideoMAESelfAttention):
    """Self-attention that weighs keys by token size and decides which tokens merge."""

    def forward(
        self, hidden_states: Tensor, step: Step | None = None
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Reduction]:
        """Returns (context (B, N, C), weights); with a step, (context (B, M, C), weights, reduction)."""
        if step is None:
            return super().forward(hidden_states)
        keys = split_heads(self.key(hidden_states), self.attention_head_size)
        values = split_heads(self.value(hidden_states), self.attention_head_size)
        queries = split_heads(self.query(hidden_states), self.attention_head_size)
        context, weights = attend(
            self,
            stock.eager_attention_forward,
            queries,
            keys,
            values,
            size=step.attention_size,
            scaling=self.scaling,
            dropout=self.dropout_prob,
        )
        attention = AttentionStatistics(queries, keys, self.scaling, step.attention_size)
        reduction = step.decide(keys, attention=attention)
        return reduction.apply(context.flatten(2)), weights, reduction


class VideoMAEAttention(stock.VideoMAEAttention):
    """Attention and its output projection; tokens merge between the two, which is cheapest."""

    def forward(
        self, hidden_states: Tensor, step: Step | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Tensor | None, Reduction]:
        """Returns the output (B, N, C); with a step, (output (B, M, C), weights, reduction)."""
        if step is None:
            return super().forward(hidden_states, **kwargs)
        context, weights, reduction = self.attention(hidden_states, step=step)
        return self.output(context, hidden_states), weights, reduction


class VideoMAELayer(stock.VideoMAELayer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(
        self, hidden_states: Tensor, step: Step | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Tokens]:
        """Returns the states (B, M, C); with a step, also the tokens."""
        if step is None:
            return super().forward(hidden_states, **kwargs)
        attention_output, _, reduction = self.attention(self.layernorm_before(hidden_states), step=step)
        hidden_states = attention_output + reduction.apply(hidden_states)
        hidden_states, tokens = step.complete(hidden_states, reduction, self._mlp)
        layer_output = self.intermediate(self.layernorm_after(hidden_states))
        return self.output(layer_output, hidden_states), tokens

    def _mlp(self, hidden_states: Tensor) -> Tensor:
        """Returns the output of the MLP without the residual connection, for modes that read it."""
        return self.output.dense(self.intermediate(self.layernorm_after(hidden_states)))


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.VideoMAESelfAttention: VideoMAESelfAttention,
    stock.VideoMAEAttention: VideoMAEAttention,
    stock.VideoMAELayer: VideoMAELayer,
}


class VideoMAEModel(TokenMergingModelMixin, stock.VideoMAEModel):
    """`transformers.VideoMAEModel` that merges tokens as set in its config.

    Args:
        config: A VideoMAE config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = VideoMAEConfig
    module_classes = MODULE_CLASSES

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: torch.BoolTensor | None = None,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            bool_masked_pos: (B, N) bool, patches to mask.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for `transformers.VideoMAEModel`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; if tokens merge, `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` are included.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        plan = self._make_plan(pixel_values, kwargs) if plan is None else plan
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values, bool_masked_pos, **kwargs)
        return self._forward_merging(pixel_values, bool_masked_pos, plan, output_token_merging, **kwargs)

    @capture_outputs(tie_last_hidden_states=False)
    def _forward_merging(
        self,
        pixel_values: Tensor,
        bool_masked_pos: torch.BoolTensor | None,
        plan: Plan,
        output_token_merging: bool,
        **kwargs: Any,
    ) -> BaseModelOutputWithTokenMerging:
        embeddings = self.embeddings(self._cast_pixels(pixel_values, plan), bool_masked_pos)
        index = None
        if bool_masked_pos is not None:
            index = plan.layout.token_index(embeddings.device).expand(embeddings.shape[0], -1)
            index = index[~bool_masked_pos].view(embeddings.shape[0], -1)
        hidden_states, tokens, trace = run_layers(
            self.encoder.layer, embeddings, plan, output_token_merging, index=index, pixel_values=pixel_values
        )
        if self.layernorm is not None:
            hidden_states = self.layernorm(hidden_states)
        last_hidden_state, token_sizes = plan.leave(hidden_states, tokens)
        return BaseModelOutputWithTokenMerging(
            last_hidden_state=last_hidden_state, token_sizes=token_sizes, token_merging=trace
        )


class VideoMAEForVideoClassification(TokenMergingHeadMixin, stock.VideoMAEForVideoClassification):
    """`transformers.VideoMAEForVideoClassification` that merges tokens as set in its config.

    Args:
        config: A VideoMAE config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, num_labels=5, token_merging_r=8)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (32, 24, 16))
    """

    config_class = VideoMAEConfig
    module_classes = MODULE_CLASSES | {stock.VideoMAEModel: VideoMAEModel}

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_token_merging: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            labels: (B,) int64 class indices, for the loss.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for `transformers.VideoMAEForVideoClassification`, and `token_merging_*` settings of this
                call.

        Returns:
            The output of transformers, with `token_merging` if requested.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        plan = self._make_plan(pixel_values, kwargs)
        outputs = self.videomae(
            pixel_values, output_token_merging=output_token_merging, plan=plan, return_dict=True, **kwargs
        )
        if self.fc_norm is not None:
            weights = plan.pooling_weights(getattr(outputs, "token_sizes", None))
            pooled = self.fc_norm(mean_pool(outputs.last_hidden_state, weights))
        else:
            pooled = outputs.last_hidden_state[:, 0]
        return self._classify(pooled, outputs, labels, **kwargs)
