"""Motionformer with token merging: the plain modules, subclassed."""

from typing import Any, Unpack

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput

from ..._compat import TransformersKwargs, can_return_tuple, capture_outputs
from ...merging.plan import Plan
from ...merging.reduction import Reduction
from ...merging.step import Step
from ...merging.tokens import Tokens
from ..attention import attend
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import BaseModelOutputWithTokenMerging
from ..run_layers import run_layers
from .configuration_motionformer import MotionformerConfig
from .plain import modeling_motionformer as stock


class MotionformerAttention(stock.MotionformerAttention):
    """Trajectory attention that weighs keys by token size and decides which tokens merge."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, step: Step | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None] | tuple[Tensor, Tensor | None, Reduction]:
        """Returns (output (B, N, C), weights); with a step, (output (B, M, C), weights, reduction)."""
        if step is None:
            return super().forward(hidden_states, **kwargs)
        query, key, value = self.project(hidden_states)
        reduction = step.decide(key)
        cls_attention = self.attend_merged(query[:, :, :1], key, value, step.attention_size, **kwargs)
        if step.num_kept is not None:
            context, weights = cls_attention
            return self.o_proj(context.flatten(2)), weights, reduction
        sizes = step.set_sizes
        patch_size = frame_size = None
        if sizes is not None and step.merges_frames:
            # All tokens of a frame have the same size, which only matters relative to other frames.
            frame_size = sizes[:, 0]
        elif sizes is not None:
            patch_size = sizes.flatten(0, 1)
        num_frames = step.grid(hidden_states.shape[1])[0]
        frames = self.fold_frames(query, key, value, num_frames)
        frame_attention = self.attend_merged(*frames, patch_size, **kwargs)
        return *self.combine(*cls_attention, *frame_attention, frame_size, merge=reduction.apply), reduction

    def attend_merged(
        self, query: Tensor, key: Tensor, value: Tensor, size: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """Runs the attention implementation, with key sizes (B, M) for proportional attention, or None."""
        return attend(
            self,
            stock.eager_attention_forward,
            query,
            key,
            value,
            size=size,
            scaling=self.scaling,
            dropout=self.attention_dropout,
            **kwargs,
        )


class MotionformerLayer(stock.MotionformerLayer):
    """Transformer layer that merges tokens between attention and MLP."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, step: Step | None = None, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Tokens]:
        """Returns the states (B, M, C); with a step, also the tokens."""
        if step is None:
            return super().forward(hidden_states, **kwargs)
        attention_output, _, reduction = self.attention(self.layernorm_before(hidden_states), step=step, **kwargs)
        hidden_states = reduction.apply(hidden_states) + self.drop_path(self.dropout(attention_output))
        hidden_states, tokens = step.complete(hidden_states, reduction)
        return self.feed_forward(hidden_states), tokens


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.MotionformerAttention: MotionformerAttention,
    stock.MotionformerLayer: MotionformerLayer,
}


class MotionformerModel(TokenMergingModelMixin, stock.MotionformerModel):
    """The plain `MotionformerModel` that merges tokens as set in its config.

    Args:
        config: A Motionformer config, with token merging fields or without.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = MotionformerConfig
    module_classes = MODULE_CLASSES

    def forward(
        self,
        pixel_values: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            interpolate_pos_encoding: As for the plain model.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for the plain model, and `token_merging_*` settings of this call.

        Returns:
            The output of the plain model; if tokens merge, `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` are included.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        if plan is None:
            plan = self._make_plan(pixel_values, kwargs, any_size=interpolate_pos_encoding)
        assert pixel_values is not None
        if not plan.merges and not output_token_merging:
            return super().forward(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **kwargs)
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
        embeddings = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        hidden_states, tokens, trace = run_layers(self.layers, embeddings, plan, output_token_merging, **kwargs)
        last_hidden_state, token_sizes = plan.leave(self.layernorm(hidden_states), tokens)
        return BaseModelOutputWithTokenMerging(
            last_hidden_state=last_hidden_state, token_sizes=token_sizes, token_merging=trace
        )


class MotionformerForVideoClassification(TokenMergingHeadMixin, stock.MotionformerForVideoClassification):
    """The plain `MotionformerForVideoClassification` that merges tokens as set in its config.

    Args:
        config: A Motionformer config, with token merging fields or without.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> import torch
        >>> config = MotionformerConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                             num_attention_heads=2, intermediate_size=32, num_labels=5, token_merging_r=4)
        >>> model = MotionformerForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (33, 25, 17))
    """

    config_class = MotionformerConfig
    module_classes = MODULE_CLASSES | {stock.MotionformerModel: MotionformerModel}
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
            labels: For the loss, as for the plain model: (B,) int64, or (B, G) with `label_groups` in the config.
            interpolate_pos_encoding: As for the plain model.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for the plain model, and `token_merging_*` settings of this call.

        Returns:
            The output of the plain model, with `token_merging` if requested.

        Raises:
            ValueError: If clips or labels do not fit the checkpoint.
        """
        kwargs["output_token_merging"] = output_token_merging  # type: ignore[typeddict-unknown-key]
        plan = self._make_plan(pixel_values, kwargs, any_size=interpolate_pos_encoding)
        outputs = self.motionformer(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, plan=plan, return_dict=True, **kwargs
        )
        return self._classify(self.pool(outputs.last_hidden_state), outputs, labels, **kwargs)
