"""VideoPrism with token merging: the stock modules of transformers, subclassed."""

from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.videoprism import modeling_videoprism as stock

from ..._compat import (
    ALL_ATTENTION_FUNCTIONS,
    TransformersKwargs,
    attn_implementation,
    can_return_tuple,
    capture_outputs,
)
from ...merging.plan import Plan
from ...merging.proportional import size_bias
from ...merging.reduction import Reduction
from ...merging.step import Step
from ...merging.tokens import Tokens
from ..attention import split_heads
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import TokenMergingOutputMixin
from ..run_layers import TokenRecorder
from .configuration_videoprism import VideoPrismVisionConfig


def size_arguments(
    module: nn.Module, size: Tensor | None, num_queries: int, dtype: torch.dtype, remedy: str
) -> dict[str, Tensor]:
    """Returns the arguments with which an attention implementation adds log(size) to the logits after the soft-cap.

    Flash attention does not support a bias, and the soft-cap would also apply to a bias in extra channels.

    Args:
        module: Attention module; its config names the implementation.
        size: (B, N) float token sizes; None adds nothing.
        num_queries: Number of queries.
        dtype: Dtype of the queries.
        remedy: Alternative that works with every implementation, for the error.

    Returns:
        Keyword arguments of the implementation.

    Raises:
        ValueError: If the implementation does not support sizes.
    """
    if size is None:
        return {}
    config: Any = module.config
    implementation = attn_implementation(config) or "eager"
    bias = size_bias(size, dtype)
    if implementation == "eager":
        return {"attention_mask": bias}
    if implementation == "flex_attention":
        # Not a mask: float masks of transformers crash on CPUs (torch 2.13).
        return {"position_bias": bias.expand(-1, config.num_attention_heads, num_queries, -1)}
    raise ValueError(
        f"attn_implementation must be 'eager' or 'flex_attention' to weigh merged tokens by their size (VideoPrism's "
        f"soft-cap rules out all others), got {implementation!r}; {remedy}"
    )


def frames_to_clips(x: Tensor, num_frames: int) -> Tensor:
    """Joins the frames of each clip: (B * T, P, ...) -> (B, T * P, ...)."""
    return x.unflatten(0, (-1, num_frames)).flatten(1, 2)


def clips_to_frames(x: Tensor, num_frames: int) -> Tensor:
    """Splits each clip into frames: (B, T * P, ...) -> (B * T, P, ...)."""
    return x.unflatten(1, (num_frames, -1)).flatten(0, 1)


@dataclass
class VideoPrismModelOutputWithTokenMerging(
    TokenMergingOutputMixin, stock.BaseModelOutputWithSpatialAndTemporalStates
):
    """Output of the base model when it merges tokens."""


class VideoPrismAttention(stock.VideoPrismAttention):
    """Self-attention that weighs keys by token size and decides which tokens merge."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        step: Step | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Reduction]:
        """Attends within frames or patch positions.

        Args:
            hidden_states: (B * T, P, C) in the spatial encoder, (B * P, T, C) in the temporal one.
            attention_mask: As for the stock module; must be None if tokens merge.
            step: How to merge, or None.
            **kwargs: Passed to the attention implementation.

        Returns:
            The output, shaped like `hidden_states`, and the weights; with a step, also the reduction, which the caller
            applies to the tokens of whole clips.
        """
        if step is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        queries = split_heads(self.q_proj(hidden_states), self.head_dim)
        keys = split_heads(self.k_proj(hidden_states), self.head_dim)
        values = split_heads(self.v_proj(hidden_states), self.head_dim)
        size = step.attention_size
        if size is not None:
            size = clips_to_frames(size, step.layout.num_frames)
        remedy = "or set token_merging_proportional_attention=False"
        arguments = {"attention_mask": None, **size_arguments(self, size, queries.shape[2], queries.dtype, remedy)}
        interface = ALL_ATTENTION_FUNCTIONS.get_interface(
            attn_implementation(self.config), stock.eager_attention_forward
        )
        context, weights = interface(
            self,
            queries,
            keys,
            values,
            **arguments,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            softcap=self.attn_logit_softcapping,
            **kwargs,
        )
        return self.o_proj(context.flatten(2)), weights, step.decide(keys, step.layout.num_frames)


class VideoPrismLayer(stock.VideoPrismLayer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        step: Step | None = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor, Tokens]:
        """Attends, merges the tokens of each frame, and applies the MLP.

        Args:
            hidden_states: (B * T, P, C) in the spatial encoder, (B * P, T, C) in the temporal one.
            attention_mask: As for the stock module; must be None if tokens merge.
            step: How to merge, or None.
            **kwargs: Passed to the attention.

        Returns:
            The states, (B * T, P', C) if tokens merge; with a step, also the tokens.
        """
        if step is None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attention_output, _, reduction = self.attention(self.layernorm_before(hidden_states), step=step, **kwargs)
        hidden_states = self.dropout(attention_output) + hidden_states
        num_frames = step.layout.num_frames
        clips = reduction.apply(frames_to_clips(hidden_states, num_frames))
        clips, tokens = step.complete(clips, reduction)
        hidden_states = clips_to_frames(clips, num_frames)
        layer_output = self.dropout(self.mlp(self.layernorm_after(hidden_states)))
        return layer_output + hidden_states, tokens


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.VideoPrismAttention: VideoPrismAttention,
    stock.VideoPrismLayer: VideoPrismLayer,
}


class VideoPrismVisionModel(TokenMergingModelMixin, stock.VideoPrismVisionModel):
    """`transformers.VideoPrismVisionModel` that merges tokens as set in its config.

    Args:
        config: A VideoPrism vision config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = VideoPrismVisionConfig
    module_classes = MODULE_CLASSES

    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> stock.BaseModelOutputWithSpatialAndTemporalStates | tuple:
        """Encodes clips.

        Args:
            pixel_values_videos: (B, T, C, H, W) float, from 0 to 1.
            interpolate_pos_encoding: Whether to interpolate the position embeddings, in space and time, so that clips
                of other sizes and numbers of frames fit.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for `transformers.VideoPrismVisionModel`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; if tokens merge, `last_hidden_state` is (B, T * P', C), and `token_sizes` and
            `token_merging` are included. `hidden_states` are those of transformers: entry i <= spatial layers is
            (B * T, P'_i, C), later ones are (B * P', T, C), and the last is `last_hidden_state`.

        Raises:
            ValueError: If the clips do not fit the checkpoint, or the attention implementation cannot weigh merged
                tokens by their size.
        """
        if plan is None:
            any_shape = bool(interpolate_pos_encoding)
            plan = self._make_plan(pixel_values_videos, kwargs, any_size=any_shape, any_frames=any_shape)
        assert pixel_values_videos is not None
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values_videos, interpolate_pos_encoding, **kwargs)
        return self._forward_merging(
            pixel_values_videos, interpolate_pos_encoding, plan, output_token_merging, **kwargs
        )

    @capture_outputs
    def _forward_merging(
        self,
        pixel_values_videos: Tensor,
        interpolate_pos_encoding: bool | None,
        plan: Plan,
        output_token_merging: bool,
        **kwargs: Any,
    ) -> VideoPrismModelOutputWithTokenMerging:
        num_frames = plan.layout.num_frames
        spatial_states = self.spatial_embeddings(pixel_values_videos, interpolate_pos_encoding)
        recorder, _ = TokenRecorder.start(plan, frames_to_clips(spatial_states, num_frames), output_token_merging)
        for index, layer in enumerate(self.spatial_layers):
            spatial_states, tokens = layer(spatial_states, step=recorder.step(index), **kwargs)
            recorder.append(tokens, num_frames * spatial_states.shape[1])

        # Sizes only count patches within a frame, so temporal attention ignores them.
        temporal_states = self.temporal_embeddings(
            self.layernorm1(spatial_states), pixel_values_videos.shape, interpolate_pos_encoding
        )
        for layer in self.temporal_layers:
            temporal_states = layer(temporal_states, **kwargs)
        places = self.layernorm2(temporal_states).unflatten(0, (-1, spatial_states.shape[1]))
        last_hidden_state, token_sizes = plan.leave(places.transpose(1, 2).flatten(1, 2), recorder.tokens)
        return VideoPrismModelOutputWithTokenMerging(
            last_hidden_state=last_hidden_state,
            last_temporal_hidden_state=temporal_states,
            last_spatial_hidden_state=spatial_states,
            token_sizes=token_sizes,
            token_merging=recorder.trace(),
        )


class VideoPrismForVideoClassification(TokenMergingHeadMixin, stock.VideoPrismForVideoClassification):
    """`transformers.VideoPrismForVideoClassification` that merges tokens as set in its config.

    Its logits are (B, num_labels) like those of all classifiers here; those of the stock model are (B, 1, num_labels).

    Args:
        config: A VideoPrism vision config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> import torch
        >>> config = VideoPrismVisionConfig(image_size=32, tubelet_size=[1, 8, 8], num_frames=4, hidden_size=16,
        ...                                 num_spatial_layers=2, num_temporal_layers=1, num_attention_heads=2,
        ...                                 intermediate_size=32, num_labels=5, token_merging_r=4)
        >>> model = VideoPrismForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (64, 48, 32))
    """

    config_class = VideoPrismVisionConfig
    module_classes = MODULE_CLASSES | {stock.VideoPrismVisionModel: VideoPrismVisionModel}

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool | None = False,
        output_token_merging: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values_videos: (B, T, C, H, W) float, from 0 to 1.
            labels: (B,) int64 class indices, for the loss.
            interpolate_pos_encoding: Whether to interpolate the position embeddings, in space and time, so that clips
                of other sizes and numbers of frames fit.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for `transformers.VideoPrismForVideoClassification`, and `token_merging_*` settings of this
                call.

        Returns:
            The output of transformers, with `token_merging` if requested; `logits` are (B, num_labels).

        Raises:
            ValueError: If the clips do not fit the checkpoint, or the attention implementation cannot weigh merged
                tokens by their size.
        """
        any_shape = bool(interpolate_pos_encoding)
        plan = self._make_plan(pixel_values_videos, kwargs, any_size=any_shape, any_frames=any_shape)
        outputs = self.vision_model(
            pixel_values_videos,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_token_merging=output_token_merging,
            plan=plan,
            return_dict=True,
            **kwargs,
        )
        tokens = outputs.last_hidden_state
        size = plan.pooling_weights(getattr(outputs, "token_sizes", None))
        arguments = size_arguments(self.head, size, 1, tokens.dtype, "or set token_merging_pooling='mean'")
        # Removes the dimension of the single pooling query, as losses and pipelines expect.
        pooled = self.head_layernorm(self.head(tokens, **arguments, **kwargs)[0]).squeeze(1)
        return self._classify(pooled, outputs, labels, **kwargs)
