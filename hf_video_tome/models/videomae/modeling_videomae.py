"""VideoMAE with token merging: the stock modules of transformers, subclassed."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput
from transformers.models.videomae import modeling_videomae as stock
from transformers.utils.generic import TransformersKwargs, can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from ...merging import TokenMerge, TokenMergingPlan, TokenMergingState, TokenMergingStep, mean_pool
from ..attention import attend
from ..base import (
    TokenMergingHeadMixin,
    TokenMergingModelMixin,
    convert_modules,
    run_layers,
)
from ..outputs import BaseModelOutputWithTokenMerging
from .configuration_videomae import VideoMAEConfig


class VideoMAESelfAttention(stock.VideoMAESelfAttention):
    """Self-attention that weighs keys by token size and hands out its keys."""

    def forward(
        self, hidden_states: Tensor, token_merging: TokenMergingStep | None = None
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Tensor]:
        """Returns (context (B, N, C), weights), and the keys (B, H, N, D) where tokens are to be merged."""
        if token_merging is None:
            return super().forward(hidden_states)
        hidden_shape = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        keys = self.key(hidden_states).view(hidden_shape).transpose(1, 2)
        values = self.value(hidden_states).view(hidden_shape).transpose(1, 2)
        queries = self.query(hidden_states).view(hidden_shape).transpose(1, 2)
        context, weights = attend(
            self,
            self.config._attn_implementation,
            stock.eager_attention_forward,
            queries,
            keys,
            values,
            size=token_merging.attention_size,
            scaling=self.scaling,
            dropout=self.dropout_prob if self.training else 0.0,
        )
        return context.flatten(2), weights, keys


class VideoMAEAttention(stock.VideoMAEAttention):
    """Attention and its output projection; tokens merge between the two, where there is least to compute."""

    def forward(
        self, hidden_states: Tensor, token_merging: TokenMergingStep | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, TokenMerge]:
        """Returns the output (B, N, C), or where tokens are to be merged (B, M, C) and how they merge."""
        if token_merging is None:
            return super().forward(hidden_states, **kwargs)
        context, _, keys = self.attention(hidden_states, token_merging=token_merging)
        merge = token_merging.decide(keys)
        return self.output(merge.apply(context), hidden_states), merge


class VideoMAELayer(stock.VideoMAELayer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(
        self, hidden_states: Tensor, token_merging: TokenMergingStep | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, TokenMergingState]:
        """Returns the states (B, M, C), and the new merging state where one came in."""
        if token_merging is None:
            return super().forward(hidden_states, **kwargs)
        attention_output, merge = self.attention(self.layernorm_before(hidden_states), token_merging=token_merging)
        hidden_states = attention_output + merge.apply(hidden_states)
        layer_output = self.intermediate(self.layernorm_after(hidden_states))
        return self.output(layer_output, hidden_states), merge.state


class VideoMAEEncoder(stock.VideoMAEEncoder):
    """Encoder that hands the merging state of one call from layer to layer."""

    def forward(
        self,
        hidden_states: Tensor,
        token_merging: TokenMergingPlan | None = None,
        output_token_merging: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Returns the last states, and sizes and trace where tokens are merged."""
        if token_merging is None:
            return super().forward(hidden_states, **kwargs)
        hidden_states, state, trace = run_layers(self.layer, hidden_states, token_merging, output_token_merging)
        return BaseModelOutputWithTokenMerging(
            last_hidden_state=hidden_states, token_sizes=state.size, token_merging=trace
        )


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.VideoMAESelfAttention: VideoMAESelfAttention,
    stock.VideoMAEAttention: VideoMAEAttention,
    stock.VideoMAELayer: VideoMAELayer,
    stock.VideoMAEEncoder: VideoMAEEncoder,
}


class VideoMAEModel(TokenMergingModelMixin, stock.VideoMAEModel):
    """`transformers.VideoMAEModel` that merges tokens when its config says so.

    Args:
        config: A VideoMAE config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = VideoMAEConfig

    def __init__(self, config: VideoMAEConfig, **token_merging: Any) -> None:
        super().__init__(self._token_merging_config(config, token_merging))
        convert_modules(self, MODULE_CLASSES)

    def forward(
        self,
        pixel_values: Tensor,
        bool_masked_pos: torch.BoolTensor | None = None,
        output_token_merging: bool = False,
        token_merging: TokenMergingPlan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            bool_masked_pos: (B, N) bool, patches to leave out.
            output_token_merging: Whether to return the trace of the merging.
            token_merging: What each layer does; as the settings say when None.
            **kwargs: As for `transformers.VideoMAEModel`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; with merging its `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` come with it.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        plan = self._make_plan(pixel_values, kwargs) if token_merging is None else token_merging
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values, bool_masked_pos, **kwargs)
        return self._forward_merging(pixel_values, bool_masked_pos, plan, output_token_merging, **kwargs)

    @capture_outputs(tie_last_hidden_states=False)
    def _forward_merging(
        self,
        pixel_values: Tensor,
        bool_masked_pos: torch.BoolTensor | None,
        plan: TokenMergingPlan,
        output_token_merging: bool,
        **kwargs: Any,
    ) -> BaseModelOutputWithTokenMerging:
        outputs = self.encoder(
            self.embeddings(pixel_values, bool_masked_pos),
            token_merging=plan,
            output_token_merging=output_token_merging,
        )
        if self.layernorm is not None:
            outputs.last_hidden_state = self.layernorm(outputs.last_hidden_state)
        return outputs


class VideoMAEForVideoClassification(TokenMergingHeadMixin, stock.VideoMAEForVideoClassification):
    """`transformers.VideoMAEForVideoClassification` that merges tokens when its config says so.

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

    def __init__(self, config: VideoMAEConfig, **token_merging: Any) -> None:
        # The stock head would build the stock base model: its own __init__ is skipped.
        super(stock.VideoMAEForVideoClassification, self).__init__(self._token_merging_config(config, token_merging))
        config = self.config
        self.num_labels = config.num_labels
        self.videomae = VideoMAEModel(config)
        self.fc_norm = nn.LayerNorm(config.hidden_size) if config.use_mean_pooling else None
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        self.post_init()

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
            output_token_merging: Whether to return the trace of the merging as `token_merging`.
            **kwargs: As for `transformers.VideoMAEForVideoClassification`, and `token_merging_*` settings of this
                call.

        Returns:
            The output of transformers, with `token_merging` where it was asked for.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        plan = self._make_plan(pixel_values, kwargs)
        outputs = self.videomae(
            pixel_values, output_token_merging=output_token_merging, token_merging=plan, return_dict=True, **kwargs
        )
        if self.fc_norm is not None:
            size = getattr(outputs, "token_sizes", None) if plan.settings.pooling == "weighted" else None
            pooled = self.fc_norm(mean_pool(outputs.last_hidden_state, size))
        else:
            pooled = outputs.last_hidden_state[:, 0]
        return self._classify(pooled, outputs, labels, **kwargs)
