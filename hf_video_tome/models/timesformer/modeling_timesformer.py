"""TimeSformer with token merging and fused attention: the stock modules of transformers, subclassed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput
from transformers.models.timesformer import modeling_timesformer as stock

from ..._compat import attn_implementation
from ...merging.plan import Plan
from ...merging.pooling import mean_pool
from ...merging.step import Step
from ..attention import attend
from ..head_mixin import TokenMergingHeadMixin
from ..model_mixin import TokenMergingModelMixin
from ..outputs import BaseModelOutputWithTokenMerging
from ..run_layers import TokenRecorder
from .configuration_timesformer import TimesformerConfig


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Computes the stock attention of TimeSformer as an attention implementation: (B, H, N, D) -> (B, N, H, D)."""
    weights = (query @ key.transpose(-2, -1)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.dropout(weights.softmax(dim=-1), p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


class TimesformerSelfAttention(stock.TimesformerSelfAttention):
    """Self-attention that runs on any attention implementation, weighs keys by token size and returns its keys."""

    def forward(
        self,
        hidden_states: Tensor,
        output_attentions: bool = False,
        implementation: str | None = None,
        size: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Attends to all tokens.

        Args:
            hidden_states: (B, N, C).
            output_attentions: Whether to return the weights, which are then computed eagerly.
            implementation: Attention implementation; the stock computation when None.
            size: (B, N) float token sizes for proportional attention, or None.

        Returns:
            The context (B, N, C), the weights (B, H, N, N) if requested, and with an implementation the keys (B, H, N,
            D).
        """
        if implementation is None:
            return super().forward(hidden_states, output_attentions)
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        context, weights = attend(
            self,
            eager_attention_forward,
            query,
            key,
            value,
            size=size,
            scaling=self.scale,
            dropout=self.attn_drop.p,
            implementation="eager" if output_attentions else implementation,
        )
        context = context.flatten(2)
        return (context, weights, key) if output_attentions else (context, key)  # type: ignore[return-value]


class TimeSformerAttention(stock.TimeSformerAttention):
    """Attention and its output projection, which passes on weights and keys."""

    def forward(self, hidden_states: Tensor, output_attentions: bool = False, **kwargs: Any) -> tuple[Tensor, ...]:
        """Returns the output (B, N, C) and the other results of the self-attention."""
        context, *others = self.attention(hidden_states, output_attentions, **kwargs)
        return (self.output(context), *others)


class TimesformerLayer(stock.TimesformerLayer):
    """Divided space-time layer on any attention implementation; merges between spatial attention and MLP."""

    def forward(
        self,
        hidden_states: Tensor,
        output_attentions: bool = False,
        step: Step | None = None,
    ) -> tuple[Any, ...]:
        """Attends over time, then over space, merges, and applies the MLP.

        Args:
            hidden_states: (B, 1 + P * T, C), CLS, then the patches, all frames of a patch position together.
            output_attentions: Whether to return the spatial attention weights.
            step: How to merge, or None.

        Returns:
            The states (B, 1 + P' * T, C), or with scope "time" (B, 1 + P * T', C); with a step, also the tokens; and
            the weights if requested.
        """
        implementation = attn_implementation(self.config) or "eager"
        if step is None and implementation == "eager":
            return super().forward(hidden_states, output_attentions)
        if self.attention_type != "divided_space_time":
            attention_output, *others = self.attention(
                self.layernorm_before(hidden_states), output_attentions, implementation=implementation
            )
            hidden_states = hidden_states + self.drop_path(attention_output)
            return (self._feed_forward(hidden_states), *others[:-1])

        num_frames = self.config.num_frames
        cls_token, patches = hidden_states[:, :1], hidden_states[:, 1:]
        num_patches = patches.shape[1] // num_frames
        temporal_size = spatial_size = None
        if step is not None:
            num_frames, num_patches = step.grid(hidden_states.shape[1])
            if step.merges_frames:
                temporal_size = step.set_sizes
            else:
                spatial_size = self._spatial_size(step)

        # Time: each patch position separately, (B * P, T, C).
        temporal = patches.unflatten(1, (num_patches, num_frames)).flatten(0, 1)
        temporal_output = self.temporal_attention(
            self.temporal_layernorm(temporal),
            implementation=implementation,
            size=None if temporal_size is None else temporal_size.flatten(0, 1),
        )[0]
        patches = patches + self.temporal_dense(self.drop_path(temporal_output).view_as(patches))

        # Space: each frame separately with a copy of CLS, (B * T, 1 + P, C).
        frames = patches.unflatten(1, (num_patches, num_frames)).transpose(1, 2)
        spatial = torch.cat((cls_token.unsqueeze(1).expand(-1, num_frames, -1, -1), frames), dim=2).flatten(0, 1)
        spatial_output, *others = self.attention(
            self.layernorm_before(spatial), output_attentions, implementation=implementation, size=spatial_size
        )
        keys = others.pop()
        residual = self.drop_path(spatial_output).unflatten(0, (-1, num_frames))
        # CLS gets the mean over frames, in which a merged frame counts as all the frames that it stands for.
        frame_size = None if temporal_size is None else temporal_size[:, 0]
        cls_residual = mean_pool(residual[:, :, 0], frame_size).unsqueeze(1)
        patch_residual = residual[:, :, 1:].transpose(1, 2).flatten(1, 2)
        hidden_states = torch.cat((cls_token + cls_residual, patches + patch_residual), dim=1)

        if step is None:
            return (self._feed_forward(hidden_states), *others)
        # Without the keys of the CLS copies: CLS is not matched.
        reduction = step.decide(keys[:, :, 1:], num_frames)
        hidden_states, tokens = step.complete(reduction.apply(hidden_states), reduction)
        return (self._feed_forward(hidden_states), tokens, *others)

    def _feed_forward(self, hidden_states: Tensor) -> Tensor:
        layer_output = self.output(self.intermediate(self.layernorm_after(hidden_states)))
        return hidden_states + self.drop_path(layer_output)

    def _spatial_size(self, step: Step) -> Tensor | None:
        """Returns the sizes of the CLS copy and the tokens of each frame: (B * T, 1 + P)."""
        sizes = step.set_sizes
        return None if sizes is None else nn.functional.pad(sizes, (1, 0), value=1.0).flatten(0, 1)


MODULE_CLASSES: dict[type[nn.Module], type[nn.Module]] = {
    stock.TimesformerSelfAttention: TimesformerSelfAttention,
    stock.TimeSformerAttention: TimeSformerAttention,
    stock.TimesformerLayer: TimesformerLayer,
}


class _FusedAttentionMixin:
    """Mixin that enables every attention implementation; the stock model only has eager attention."""

    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # transformers caches on the class whether it can switch; ours would inherit False from the stock class.
    _can_set_attn_implementation_cached_value = True


class TimesformerModel(_FusedAttentionMixin, TokenMergingModelMixin, stock.TimesformerModel):
    """`transformers.TimesformerModel` with fused attention that merges tokens as set in its config.

    Args:
        config: A TimeSformer config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.
    """

    config_class = TimesformerConfig
    module_classes = MODULE_CLASSES

    def forward(
        self,
        pixel_values: Tensor,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_token_merging: bool = False,
        plan: Plan | None = None,
        **kwargs: Any,
    ) -> tuple | BaseModelOutput:
        """Encodes clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            output_attentions: Whether to return the spatial attention weights (which are then computed eagerly).
            output_hidden_states: Whether to return the states of all layers.
            return_dict: Whether to return an output object rather than a tuple.
            output_token_merging: Whether to return the token merging trace.
            plan: What each layer does; made from the settings when None.
            **kwargs: As for `transformers.TimesformerModel`, and `token_merging_*` settings of this call.

        Returns:
            The output of transformers; if tokens merge, `last_hidden_state` is (B, M, C), and `token_sizes` and
            `token_merging` are included.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        config = self.config
        divided = config.attention_type == "divided_space_time"
        plan = self._make_plan(pixel_values, kwargs) if plan is None else plan
        # With eager attention, the stock forward runs unchanged: r = 0 is bit-identical to the stock model.
        shortens = plan.reads == "prefix" and divided and attn_implementation(config) not in (None, "eager")
        if not plan.merges and not output_token_merging and not shortens:
            return super().forward(pixel_values, output_attentions, output_hidden_states, return_dict, **kwargs)
        if not divided:
            raise ValueError(
                "output_token_merging must be False unless attention_type is 'divided_space_time', "
                f"got {config.attention_type!r}"
            )
        if output_attentions is None:
            output_attentions = config.output_attentions
        if output_hidden_states is None:
            output_hidden_states = config.output_hidden_states
        recorder, hidden_states = TokenRecorder.start(plan, self.embeddings(pixel_values), output_token_merging)
        all_hidden_states: tuple[Tensor, ...] = (hidden_states,)
        all_attentions: tuple[Tensor, ...] = ()
        for index, layer in enumerate(self.encoder.layer):
            hidden_states, tokens, *attentions = layer(hidden_states, output_attentions, step=recorder.step(index))
            recorder.append(tokens, hidden_states.shape[1])
            all_hidden_states += (hidden_states,)
            all_attentions += tuple(attentions)
        last_hidden_state, token_sizes = plan.leave(self.layernorm(hidden_states), recorder.tokens)
        outputs = BaseModelOutputWithTokenMerging(
            last_hidden_state=last_hidden_state,
            hidden_states=all_hidden_states if output_hidden_states else None,
            attentions=all_attentions if output_attentions else None,
            token_sizes=token_sizes,
            token_merging=recorder.trace(),
        )
        return outputs if (config.return_dict if return_dict is None else return_dict) else outputs.to_tuple()


class TimesformerForVideoClassification(
    _FusedAttentionMixin, TokenMergingHeadMixin, stock.TimesformerForVideoClassification
):
    """`transformers.TimesformerForVideoClassification` with fused attention that merges tokens as set in its config.

    Args:
        config: A TimeSformer config, of transformers or of this package.
        **token_merging: Token merging fields that replace those of the config.

    Examples:
        >>> config = TimesformerConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                            num_attention_heads=2, intermediate_size=32, num_labels=5, token_merging_r=4)
        >>> model = TimesformerForVideoClassification(config).eval()
        >>> out = model(torch.zeros(1, 4, 3, 32, 32), output_token_merging=True)
        >>> out.logits.shape, out.token_merging.token_counts
        (torch.Size([1, 5]), (65, 49, 33))
    """

    config_class = TimesformerConfig
    module_classes = MODULE_CLASSES | {stock.TimesformerModel: TimesformerModel}
    stock_attn_implementation = "eager"
    reads = "prefix"

    def forward(
        self,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        output_token_merging: bool = False,
        **kwargs: Any,
    ) -> tuple | ImageClassifierOutput:
        """Classifies clips.

        Args:
            pixel_values: (B, T, C, H, W) float, normalised.
            labels: (B,) int64 class indices, for the loss.
            output_attentions: Whether to return the spatial attention weights (which are then computed eagerly).
            output_hidden_states: Whether to return the states of all layers.
            return_dict: Whether to return an output object rather than a tuple.
            output_token_merging: Whether to return the token merging trace as `token_merging`.
            **kwargs: As for `transformers.TimesformerForVideoClassification`, and `token_merging_*` settings of this
                call.

        Returns:
            The output of transformers, with `token_merging` if requested.

        Raises:
            ValueError: If the clips do not fit the checkpoint.
        """
        asked = {
            "output_attentions": output_attentions,
            "output_hidden_states": output_hidden_states,
            "output_token_merging": output_token_merging,
        }
        plan = self._make_plan(pixel_values, kwargs | asked)
        outputs = self.timesformer(pixel_values, return_dict=True, plan=plan, **asked)
        # The stock head passes no further arguments to its loss.
        output = self._classify(outputs.last_hidden_state[:, 0], outputs, labels)
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()
