"""PyTorch Motionformer model: a video transformer with trajectory attention.

From "Keeping Your Eye on the Ball: Trajectory Attention in Video Transformers" (NeurIPS 2021).

Shapes: B clips, T frames (tubelets along time), P patches per frame, N = T * P patch tokens after one CLS token, H
heads of width D, C = H * D.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, ImageClassifierOutput

from ...._compat import (
    ALL_ATTENTION_FUNCTIONS,
    TransformersKwargs,
    attn_implementation,
    can_return_tuple,
    capture_outputs,
    merge_with_config_defaults,
)
from .configuration_motionformer import MotionformerConfig


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


class MotionformerPatchEmbeddings(nn.Module):
    """Patch embeddings: one token per tubelet, frame by frame and row by row."""

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        kernel = (config.tubelet_size, *_pair(config.patch_size))
        self.projection = nn.Conv3d(config.num_channels, config.hidden_size, kernel_size=kernel, stride=kernel)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Returns (B, T, rows, columns, C) for pixels (B, frames, channels, height, width)."""
        return self.projection(pixel_values.transpose(1, 2)).permute(0, 2, 3, 4, 1)


class MotionformerEmbeddings(nn.Module):
    """CLS token and patch embeddings, plus the sum of spatial and temporal position embeddings."""

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        self.image_size = _pair(config.image_size)
        self.patch_size = _pair(config.patch_size)
        self.clip_shape = {"num_frames": config.num_frames, "num_channels": config.num_channels}
        self.grid = (self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1])
        self.patch_embeddings = MotionformerPatchEmbeddings(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + self.grid[0] * self.grid[1], config.hidden_size))
        self.time_embeddings = nn.Parameter(
            torch.zeros(1, config.num_frames // config.tubelet_size, config.hidden_size)
        )
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def _check_pixel_values(self, pixel_values: Tensor, any_size: bool) -> None:
        if pixel_values.ndim != 5:
            raise ValueError(
                "pixel_values must have 5 dimensions (batch, frames, channels, height, width), got shape "
                f"{tuple(pixel_values.shape)}"
            )
        for axis, name in ((1, "num_frames"), (2, "num_channels")):
            if pixel_values.shape[axis] != self.clip_shape[name]:
                raise ValueError(
                    f"pixel_values must have {name}={self.clip_shape[name]}, got {pixel_values.shape[axis]} in shape "
                    f"{tuple(pixel_values.shape)} (batch, frames, channels, height, width)"
                )
        height, width = pixel_values.shape[3:]
        if (height, width) != self.image_size and not any_size:
            raise ValueError(
                f"pixel_values must have frames of {self.image_size[0]} x {self.image_size[1]} pixels unless "
                f"interpolate_pos_encoding=True, got {height} x {width}"
            )
        if height < self.patch_size[0] or width < self.patch_size[1]:
            raise ValueError(
                f"pixel_values must have frames of at least one patch, {self.patch_size[0]} x {self.patch_size[1]} "
                f"pixels, got {height} x {width}"
            )

    def interpolate_pos_encoding(self, rows: int, columns: int) -> Tensor:
        """Returns the position embeddings of the patches of a frame (1, rows * columns, C), interpolated if needed."""
        positions = self.position_embeddings[:, 1:]
        if (rows, columns) == self.grid:
            return positions
        positions = positions.unflatten(1, self.grid).permute(0, 3, 1, 2)
        positions = nn.functional.interpolate(positions, size=(rows, columns), mode="bicubic", align_corners=False)
        return positions.flatten(2).transpose(1, 2)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Embeds clips.

        Args:
            pixel_values: (B, frames, channels, height, width) float.
            interpolate_pos_encoding: Whether to interpolate the position embeddings for other frame sizes.

        Returns:
            (B, 1 + N, C), CLS, then the patches frame by frame.

        Raises:
            ValueError: If the clips do not fit the config.
        """
        self._check_pixel_values(pixel_values, interpolate_pos_encoding)
        patches = self.patch_embeddings(pixel_values)
        rows, columns = patches.shape[2:4]
        positions = self.interpolate_pos_encoding(rows, columns)
        patches = patches.flatten(2, 3) + positions.unsqueeze(1) + self.time_embeddings.unsqueeze(2)
        cls_token = self.cls_token + self.position_embeddings[:, :1]
        embeddings = torch.cat((cls_token.expand(patches.shape[0], -1, -1), patches.flatten(1, 2)), dim=1)
        return self.dropout(embeddings)


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
    """Computes attention and its weights: (B, H, N, D) -> (B, N, H, D), (B, H, N, M)."""
    weights = (query @ key.transpose(-2, -1)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = _softmax(weights)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2), weights


def _softmax(logits: Tensor) -> Tensor:
    """Computes a softmax over the last dimension, in float32 or better."""
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32)).to(logits.dtype)


class MotionformerTemporalAttention(nn.Module):
    """Attention of each patch token to its own trajectory: its spatial attention output for each frame.

    Each of N tokens has a trajectory of T points, so projecting these to keys would be the most expensive part of the
    layer. It is not needed: for a trajectory point y, the logit q . (W y) equals (W^T q) . y, and there are T times
    fewer queries to project. A key bias would add a constant to all logits of a query, which softmax ignores, so there
    is none. Likewise, values are averaged before they are projected.
    """

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        # Not `nn.Linear`, because adapters and quantisation expect these to be applied as such.
        self.key_weight = nn.Parameter(torch.zeros(config.hidden_size, config.hidden_size))
        self.value_weight: nn.Parameter | None = None
        self.value_bias: nn.Parameter | None = None
        if not config.use_original_trajectory_values:
            self.value_weight = nn.Parameter(torch.zeros(config.hidden_size, config.hidden_size))
            if config.qkv_bias:
                self.value_bias = nn.Parameter(torch.zeros(config.hidden_size))

    def forward(self, trajectories: Tensor, frame_size: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attends to the trajectories.

        Args:
            trajectories: (B, T, N, C), entry [:, t, n] is the attention output of token n for frame t.
            frame_size: (B, T) float, number of frames that each frame stands for, 0 for padding; None for all ones.

        Returns:
            The context (B, N, C) and the attention weights (B, N, H, T).
        """
        num_frames, heads = trajectories.shape[1], (self.num_attention_heads, -1)
        # The query is the output of a token for its own frame: the diagonal, (B, P, C, T).
        own = trajectories.unflatten(2, (num_frames, -1)).diagonal(dim1=1, dim2=2)
        query = self.q_proj(own.permute(0, 3, 1, 2).flatten(1, 2)).unflatten(-1, heads) * self.scaling
        query = torch.einsum("bnhd,hdc->bnhc", query, self.key_weight.unflatten(0, heads))
        logits = torch.einsum("bnhc,btnc->bnht", query, trajectories)
        if frame_size is not None:
            logits = logits + frame_size.log().clamp_min(-10_000.0).to(logits.dtype)[:, None, None]
        weights = _softmax(logits)
        weights = nn.functional.dropout(weights, p=self.attention_dropout, training=self.training)
        if self.value_weight is None:
            context = torch.einsum("bnht,btnhd->bnhd", weights, trajectories.unflatten(-1, heads)).flatten(2)
        else:
            mean = torch.einsum("bnht,btnc->bnhc", weights, trajectories)
            context = torch.einsum("bnhc,hdc->bnhd", mean, self.value_weight.unflatten(0, heads)).flatten(2)
            context = context if self.value_bias is None else context + self.value_bias
        return context, weights


class MotionformerAttention(nn.Module):
    """Trajectory attention.

    Every patch token attends to the patches of each frame separately, which yields one vector per frame: its
    trajectory. It then attends to the points of that trajectory. CLS attends to all tokens as usual.

    The first step folds frames into the batch, so it runs on every attention implementation, and fused kernels never
    store the N x N attention weights. (On CPUs, sdpa has no fused kernel with dropout and does store them.)
    """

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        self.config = config
        self.num_attention_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=config.qkv_bias)
        self.temporal_attention = MotionformerTemporalAttention(config)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    @property
    def num_frames(self) -> int:
        """Number of tubelets along time, T."""
        return self.config.num_frames // self.config.tubelet_size

    def project(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes queries, keys and values of all tokens: (B, 1 + N, C) -> three times (B, H, 1 + N, D)."""
        qkv = self.qkv(hidden_states).unflatten(-1, (3, self.num_attention_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return query, key, value

    def fold_frames(self, query: Tensor, key: Tensor, value: Tensor, num_frames: int) -> tuple[Tensor, Tensor, Tensor]:
        """Folds frames into the batch: queries of all patch tokens, keys and values of the patches of each frame.

        Args:
            query: (B, H, 1 + N, D).
            key: (B, H, 1 + N, D).
            value: (B, H, 1 + N, D).
            num_frames: Number of frames, T.

        Returns:
            (B * T, H, N, D), (B * T, H, P, D) and (B * T, H, P, D).
        """
        query = query[:, None, :, 1:].expand(-1, num_frames, -1, -1, -1).flatten(0, 1)
        key, value = (x[:, :, 1:].unflatten(2, (num_frames, -1)).transpose(1, 2).flatten(0, 1) for x in (key, value))
        return query, key, value

    def attend(self, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Runs the attention implementation: (B, H, N, D) -> (B, N, H, D), and weights if it returns them."""
        return ALL_ATTENTION_FUNCTIONS.get_interface(attn_implementation(self.config), eager_attention_forward)(
            self,
            query,
            key,
            value,
            None,
            scaling=self.scaling,
            dropout=self.attention_dropout if self.training else 0.0,
            is_causal=False,
            **kwargs,
        )

    def combine(
        self,
        cls_context: Tensor,
        cls_weights: Tensor | None,
        frames: Tensor,
        frame_weights: Tensor | None,
        frame_size: Tensor | None = None,
        merge: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attends to the trajectories and joins CLS and patches.

        Args:
            cls_context: (B, 1, H, D), attention output of CLS.
            cls_weights: (B, H, 1, 1 + N), or None.
            frames: (B * T, N, H, D), attention output of each token for each frame.
            frame_weights: (B * T, H, N, P), or None.
            frame_size: As for `MotionformerTemporalAttention`.
            merge: Function applied to the context (B, 1 + N, C) before the output projection.

        Returns:
            The output (B, 1 + N, C) and the weights (B, H, 1 + N, 1 + N), or None. Weights of patches are the product
            of both steps: the weight of token i within frame t times the weight of frame t.
        """
        batch_size = cls_context.shape[0]
        trajectories = frames.flatten(2).unflatten(0, (batch_size, -1))
        context, temporal_weights = self.temporal_attention(trajectories, frame_size)
        context = torch.cat((cls_context.flatten(2), context), dim=1)
        output = self.o_proj(context if merge is None else merge(context))
        if cls_weights is None or frame_weights is None:
            return output, None
        weights = frame_weights.unflatten(0, (batch_size, -1)) * temporal_weights.permute(0, 3, 2, 1).unsqueeze(-1)
        # Patches do not attend to CLS.
        weights = nn.functional.pad(weights.permute(0, 2, 3, 1, 4).flatten(3), (1, 0))
        return output, torch.cat((cls_weights, weights), dim=2)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Returns the output (B, 1 + N, C) and, with eager attention, the weights (B, H, 1 + N, 1 + N)."""
        query, key, value = self.project(hidden_states)
        cls_attention = self.attend(query[:, :, :1], key, value, **kwargs)
        frame_attention = self.attend(*self.fold_frames(query, key, value, self.num_frames), **kwargs)
        return self.combine(*cls_attention, *frame_attention)


class MotionformerMLP(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns (B, 1 + N, C)."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class MotionformerDropPath(nn.Module):
    """Stochastic depth: drops the residual branch for random clips of a batch."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns the states, scaled to keep their mean."""
        if self.drop_prob == 0.0 or not self.training:
            return hidden_states
        keep_prob = 1 - self.drop_prob
        kept = hidden_states.new_empty((hidden_states.shape[0], 1, 1)).bernoulli_(keep_prob)
        return hidden_states * kept / keep_prob


class MotionformerLayer(GradientCheckpointingLayer):
    """Pre-norm transformer layer."""

    def __init__(self, config: MotionformerConfig, layer_index: int) -> None:
        super().__init__()
        drop_path_rate = config.drop_path_rate * layer_index / max(config.num_hidden_layers - 1, 1)
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = MotionformerAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MotionformerMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = MotionformerDropPath(drop_path_rate)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """Returns the states (B, 1 + N, C)."""
        attention_output, _ = self.attention(self.layernorm_before(hidden_states), **kwargs)
        hidden_states = hidden_states + self.drop_path(self.dropout(attention_output))
        return self.feed_forward(hidden_states)

    def feed_forward(self, hidden_states: Tensor) -> Tensor:
        """Applies norm, MLP and residual connection: the second half of the layer."""
        layer_output = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + self.drop_path(self.dropout(layer_output))


class MotionformerPreTrainedModel(PreTrainedModel):
    """Base class with weight initialisation and the features that the models support."""

    config: Any
    config_class: ClassVar[Any] = MotionformerConfig
    base_model_prefix = "motionformer"
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ("MotionformerEmbeddings", "MotionformerLayer")
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar[dict[str, Any]] = {
        "hidden_states": MotionformerLayer,
        "attentions": MotionformerAttention,
    }
    _input_embed_layer = "patch_embeddings"

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, MotionformerEmbeddings):
            init.trunc_normal_(module.cls_token, std=std)
            init.trunc_normal_(module.position_embeddings, std=std)
            init.trunc_normal_(module.time_embeddings, std=std)
        elif isinstance(module, MotionformerTemporalAttention):
            init.normal_(module.key_weight, std=std)
            if module.value_weight is not None:
                init.normal_(module.value_weight, std=std)
            if module.value_bias is not None:
                init.zeros_(module.value_bias)


class MotionformerModel(MotionformerPreTrainedModel):
    """The bare Motionformer encoder.

    Args:
        config: The config.

    Examples:
        >>> config = MotionformerConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                             num_attention_heads=2, intermediate_size=32)
        >>> MotionformerModel(config)(torch.zeros(1, 4, 3, 32, 32)).last_hidden_state.shape
        torch.Size([1, 33, 16])
    """

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__(config)
        self.embeddings = MotionformerEmbeddings(config)
        self.layers = nn.ModuleList(MotionformerLayer(config, index) for index in range(config.num_hidden_layers))
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values: Tensor, interpolate_pos_encoding: bool = False, **kwargs: Unpack[TransformersKwargs]
    ) -> BaseModelOutput | tuple:
        """Encodes clips.

        Args:
            pixel_values: (B, frames, channels, height, width) float, normalised.
            interpolate_pos_encoding: Whether to interpolate the position embeddings for frame sizes other than that of
                the config.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`, and arguments of the attention
                implementation.

        Returns:
            The output, with a `last_hidden_state` (B, 1 + N, C) that starts with CLS.

        Raises:
            ValueError: If the clips do not fit the config.
        """
        hidden_states = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        for layer in self.layers:
            hidden_states = layer(hidden_states, **kwargs)
        return BaseModelOutput(last_hidden_state=self.layernorm(hidden_states))


class MotionformerPreLogits(nn.Module):
    """Linear layer and tanh between CLS and the classifier."""

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns (B, C)."""
        return self.dense(hidden_states).tanh()


def label_groups_loss(labels: Tensor, logits: Tensor, config: Any, **kwargs: Any) -> Tensor:
    """Computes the sum of the cross entropies of all tasks of a multi-task head.

    A task without labels in the batch adds nothing.

    Args:
        labels: (B, G) int64, class within each of the G label groups (-100 for unknown), in the order of the outputs.
        logits: (B, num_labels) float.
        config: A config with `label_groups`.
        **kwargs: `num_items_in_batch` as in other losses of transformers: the number of labels in all batches of a
            step, G per clip.

    Returns:
        The loss, ().

    Raises:
        ValueError: If labels or logits do not fit the groups.
    """
    sizes = [stop - start for start, stop in sorted(config.label_groups.values())]
    if labels.shape != (logits.shape[0], len(sizes)) or logits.shape[1] != sum(sizes):
        raise ValueError(
            f"labels must have one column for each of label_groups={config.label_groups} and shape "
            f"{(logits.shape[0], len(sizes))} with {sum(sizes)} outputs of the classifier, got {tuple(labels.shape)} "
            f"with {logits.shape[1]} outputs"
        )
    num_items = kwargs.get("num_items_in_batch")
    labels = labels.to(logits.device)
    unknown = labels == -100
    # The mean over no labels is NaN and would make the sum NaN. If no task has labels, the result is NaN, as for a
    # single task.
    left_out = unknown.all(dim=0) & ~unknown.all()
    losses = [
        nn.functional.cross_entropy(
            group, label.masked_fill(skip, 0), reduction="mean" if num_items is None else "sum"
        ).masked_fill(skip, 0.0)
        for group, label, skip in zip(logits.split(sizes, dim=1), labels.unbind(1), left_out.unbind(), strict=True)
    ]
    # The trainer counts labels, G per clip.
    return torch.stack(losses).sum() / (1 if num_items is None else num_items / len(sizes))


class MotionformerForVideoClassification(MotionformerPreTrainedModel):
    """Motionformer with a classifier that reads CLS.

    With `label_groups` in the config, it is a multi-task classifier.

    Args:
        config: The config.

    Examples:
        >>> config = MotionformerConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                             num_attention_heads=2, intermediate_size=32, num_labels=5)
        >>> MotionformerForVideoClassification(config)(torch.zeros(1, 4, 3, 32, 32)).logits.shape
        torch.Size([1, 5])
    """

    def __init__(self, config: MotionformerConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.motionformer = MotionformerModel(config)
        self.pre_logits = MotionformerPreLogits(config) if config.use_pre_logits else None
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels) if config.num_labels > 0 else nn.Identity()
        if config.label_groups is not None:
            outputs = max(stop for _, stop in config.label_groups.values())
            if outputs != config.num_labels:
                raise ValueError(
                    f"label_groups must divide the num_labels={config.num_labels} outputs, got {config.label_groups}; "
                    "None is one task"
                )
        self.post_init()

    @property
    def loss_function(self) -> Callable[..., Tensor]:
        """The loss function: the one that was set, else that of the tasks in the current config."""
        if "_loss_function" not in self.__dict__ and self.config.label_groups is not None:
            return label_groups_loss
        return super().loss_function

    @loss_function.setter
    def loss_function(self, value: Callable[..., Tensor]) -> None:
        self._loss_function = value

    def pool(self, hidden_states: Tensor) -> Tensor:
        """Returns the classifier input (B, C) from the final states (B, 1 + N, C)."""
        pooled = hidden_states[:, 0]
        return self.dropout(pooled if self.pre_logits is None else self.pre_logits(pooled))

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput | tuple:
        """Classifies clips.

        Args:
            pixel_values: (B, frames, channels, height, width) float, normalised.
            labels: (B,) int64 class indices for the loss, or with `label_groups` in the config (B, G), the class in
                each group. The loss of groups is the sum of their cross entropies.
            interpolate_pos_encoding: Whether to interpolate the position embeddings for frame sizes other than that of
                the config.
            **kwargs: As for `MotionformerModel`.

        Returns:
            The output, with `logits` (B, num_labels) before the softmax.

        Raises:
            ValueError: If clips or labels do not fit the config.
        """
        outputs = self.motionformer(
            pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, return_dict=True, **kwargs
        )
        logits = self.classifier(self.pool(outputs.last_hidden_state))
        return ImageClassifierOutput(
            loss=None if labels is None else self.loss_function(labels, logits, self.config, **kwargs),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


__all__ = ["MotionformerForVideoClassification", "MotionformerModel", "MotionformerPreTrainedModel"]
