"""What the models of all architectures share."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.modeling_outputs import ImageClassifierOutput

from ..configuration import PREFIX, ClipShape, TokenMergingConfigMixin
from ..merging import Plan, TokenMergingSettings
from .kernels import are_untouched
from .outputs import BaseModelOutputWithTokenMerging, VideoClassifierOutputWithTokenMerging
from .saved_names import rename_saved_weights
from .scoped_settings import changes_in_scope, scoped_settings


def check_pixel_values(
    pixel_values: Tensor | None,
    config: Any,
    any_size: bool = False,
    any_frames: bool = False,
    name: str = "pixel_values",
) -> None:
    """Refuses clips that do not fit the checkpoint.

    Args:
        pixel_values: (B, T, C, H, W).
        config: The model's config, which says what is expected.
        any_size: Whether other heights and widths are fine, because position embeddings are interpolated.
        any_frames: Whether other numbers of frames are fine, likewise, from one on.
        name: What the model calls the clips.

    Raises:
        ValueError: Saying what the model expects and what it got.
    """
    if pixel_values is None:
        raise ValueError(f"{name} must be given: a tensor of shape (batch, frames, channels, height, width)")
    if any_frames and pixel_values.ndim == 5 and pixel_values.shape[1] == 0:
        raise ValueError(f"{name} must have at least 1 frame, got 0 in shape {tuple(pixel_values.shape)}")
    expected = config.clip_shape._asdict()
    if any_size and pixel_values.ndim == 5:
        expected |= {"height": pixel_values.shape[3], "width": pixel_values.shape[4]}
    if any_frames and pixel_values.ndim == 5:
        expected |= {"frames": pixel_values.shape[1]}
    wanted = ", ".join(f"{axis}={value}" for axis, value in expected.items())
    if pixel_values.ndim != 5:
        raise ValueError(
            f"{name} must have 5 dimensions (batch, {wanted}) for this {config.model_type} checkpoint, "
            f"got shape {tuple(pixel_values.shape)}"
        )
    wrong = [
        f"{axis}={actual}"
        for (axis, value), actual in zip(expected.items(), pixel_values.shape[1:], strict=True)
        if actual != value
    ]
    if wrong:
        raise ValueError(
            f"{name} do not fit this {config.model_type} checkpoint: it expects {wanted}, "
            f"got {', '.join(wrong)} in shape {tuple(pixel_values.shape)}"
        )


class TokenMergingModelMixin:
    """What heads and base models that merge tokens have in common.

    Models that are built from one config object of this package share its settings, as they share the attention
    implementation in transformers.
    """

    config: Any
    config_class: ClassVar[Any]

    @classmethod
    def _token_merging_config(cls, config: PreTrainedConfig, changes: dict[str, Any]) -> TokenMergingConfigMixin:
        """The config that a model is built from: one with the token merging fields, validated.

        The caller's config stays untouched, unless it has the fields already and nothing is to be changed.
        """
        if not isinstance(config, TokenMergingConfigMixin):
            config = cls.config_class.from_stock(config)
        elif changes:
            config = copy.deepcopy(config)
        unknown = [name for name in changes if not name.startswith("token_merging_")]
        if unknown:
            raise TypeError(f"{cls.__name__}.__init__() got an unexpected keyword argument {unknown[0]!r}")
        config.update_token_merging(**changes)
        return config

    def set_token_merging(self, **changes: Any) -> None:
        """Changes how the model merges tokens, at any time and without reloading.

        Args:
            **changes: Any of `r`, `schedule`, `mode`, `threshold`, `head_aggregation`, `proportional_attention`,
                `pooling`, `scope`, `input`, `input_keep` and `restore`, and of V-JEPA 2 `position`: see
                `TokenMergingConfigMixin` and `VJEPA2Config`. What is not named stays as it is. r = 0 is the stock
                model, but for an input stage.

        Raises:
            ValueError: If a name or a value is not allowed; nothing is changed then.
        """
        self.config.update_token_merging(**changes)

    def token_merging(self, **changes: Any) -> AbstractContextManager[None]:
        """Changes how the model merges tokens for the calls inside a `with` block.

        Only for calls of this thread or async task; settings of a call come before those of the block. See
        `hf_video_tome.token_merging`.

        Args:
            **changes: Settings as for `set_token_merging`.

        Returns:
            The context manager.

        Raises:
            ValueError: If a name is unknown or a value is out of range. Whether the values go with each other and
                with the config is checked when the model is called.
            RuntimeError: If the model is compiled.
        """
        return scoped_settings(self, self.config.full_names(changes))

    def current_token_merging(self, changes: Mapping[str, Any] | None = None) -> TokenMergingSettings:
        """Returns the settings of a call that is made now.

        Its own come first, then those of the `with` blocks around it, then the config's.

        Args:
            changes: Settings of the call: from names of fields of the config to values.

        Returns:
            The settings, each checked by itself.

        Raises:
            ValueError: If a name is unknown or a value is out of range.
        """
        settings: TokenMergingSettings = self.config.token_merging
        changes = {**changes_in_scope(self), **(changes or {})}
        return self.config.changed_settings(settings, changes) if changes else settings

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # Not by a hook, which models that exist already would not get from `apply_token_merging`.
        model: Any = self
        rename_saved_weights(model, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]

    def _make_plan(
        self,
        pixel_values: Tensor | None,
        kwargs: Any,  # a dict, with the names that transformers gives its keys
        any_size: bool = False,
        any_frames: bool = False,
    ) -> Plan:
        """Checks the clips of a forward call and decides what each layer does with them.

        Args:
            pixel_values: (B, T, C, H, W).
            kwargs: Keyword arguments of the call; the settings among them are taken out.
            any_size: As for `check_pixel_values`.
            any_frames: As for `check_pixel_values`.

        Returns:
            The plan.

        Raises:
            ValueError: If the clips do not fit the checkpoint, or a setting is unknown or out of range.
        """
        model: Any = self
        changes = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith(PREFIX)}
        check_pixel_values(pixel_values, model.config, any_size, any_frames, model.main_input_name)
        assert pixel_values is not None
        plan: Plan = model.config.token_merging_plan(
            ClipShape(*pixel_values.shape[1:]), self.current_token_merging(changes)
        )
        return plan


class TokenMergingHeadMixin(TokenMergingModelMixin):
    """What heads that merge tokens have in common."""

    reads: ClassVar[Literal["prefix", "tokens"]] = "tokens"
    """What the head reads of its base model: the prefix tokens alone, or all tokens and their sizes."""

    def _make_plan(self, pixel_values: Tensor | None, kwargs: Any, *args: Any, **options: Any) -> Plan:
        plan = super()._make_plan(pixel_values, kwargs, *args, **options)
        only_prefix = self.reads == "prefix" and self._may_leave_out_tokens(kwargs)
        return plan._replace(reads="prefix" if only_prefix else "tokens")

    def _may_leave_out_tokens(self, asked: Mapping[str, Any]) -> bool:
        """Whether the base model may leave everything but the prefix out of its last layer.

        Not where there may be gradients, which would be missing instead of zero; nor in training, nor where anything
        in the base model is hooked or replaced: somebody may be looking at what the layer returns.

        Args:
            asked: Keyword arguments of the call, which may ask for hidden states, attentions or a trace.

        Returns:
            Whether it makes no difference to anybody.
        """
        head: Any = self
        names = ("output_hidden_states", "output_attentions")
        asks_for_more = any(getattr(head.config, name) if asked.get(name) is None else asked[name] for name in names)
        if asked.get("output_token_merging") or asks_for_more or torch.is_grad_enabled():
            return False
        modules = list(head.base_model.modules())
        return are_untouched(modules) and not any(module.training for module in modules)

    def _classify(
        self, pooled: Tensor, outputs: BaseModelOutputWithTokenMerging, labels: Tensor | None, **loss_kwargs: Any
    ) -> ImageClassifierOutput:
        """Logits and loss as the stock heads compute them.

        Args:
            pooled: (B, C) what the classifier reads.
            outputs: What the base model returned.
            labels: Labels for the loss, or None.
            **loss_kwargs: For the loss function.

        Returns:
            The output of transformers, with the trace if there is one.
        """
        head: Any = self
        logits = head.classifier(pooled)
        fields = {
            "loss": None if labels is None else head.loss_function(labels, logits, head.config, **loss_kwargs),
            "logits": logits,
            "hidden_states": outputs.hidden_states,
            "attentions": outputs.attentions,
        }
        trace = getattr(outputs, "token_merging", None)
        if trace is None:
            return ImageClassifierOutput(**fields)
        return VideoClassifierOutputWithTokenMerging(**fields, token_merging=trace)
