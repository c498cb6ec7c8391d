"""What the models of all architectures share."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from ..configuration import PREFIX, ClipShape, TokenMergingConfigMixin
from ..merging import (
    TokenMergingPlan,
    TokenMergingSettings,
    TokenMergingState,
    TokenMergingTrace,
    build_trace,
    initial_state,
)
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


def convert_modules(root: nn.Module, classes: dict[type[nn.Module], type[nn.Module]]) -> None:
    """Turns modules into those of another class, in place: parameters, hooks and names stay.

    Hooks of accelerate (offloading) keep the old `forward` of their module; they are given the new one.

    Args:
        root: Where to look, itself included.
        classes: From the exact class of a module to its new one.

    Raises:
        ValueError: If the `forward` of a module was replaced in a way that its class has no part in; nothing is
            changed then.
    """
    chosen = [(module, classes[type(module)]) for module in root.modules() if type(module) in classes]
    for module, _ in chosen:
        replaced = "_old_forward" if "_old_forward" in module.__dict__ else "forward"
        forward = module.__dict__.get(replaced)
        if forward is not None and getattr(forward, "__func__", None) is not type(module).forward:
            raise ValueError(
                f"{type(module).__name__}.forward must be that of its class, but was replaced on the instance "
                "(by accelerate's prepare?): apply or remove token merging first"
            )
    for module, new_class in chosen:
        module.__class__ = new_class
        for name in ("forward", "_old_forward"):
            if getattr(module.__dict__.get(name), "__self__", None) is module:
                setattr(module, name, MethodType(new_class.forward, module))
        if isinstance(module, PreTrainedModel):
            # transformers looks up by class what a model can record, and fills that in when a model is built.
            _CAN_RECORD_REGISTRY[module] = module._can_record_outputs


def run_layers(
    layers: Iterable[nn.Module],
    hidden_states: Tensor,
    plan: TokenMergingPlan,
    track: bool,
    position: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, TokenMergingState, TokenMergingTrace | None]:
    """Runs layers that return `(hidden_states, state)`, handing the state of this call from one to the next.

    Args:
        layers: The layers.
        hidden_states: (B, N, C) embeddings.
        plan: What each layer removes.
        track: Whether to build a trace.
        position: (1, N, A) float, where the tokens lie, for layers that read it from the state.
        **kwargs: Passed to each layer.

    Returns:
        The last states (B, M, C), the last state and the trace (None unless tracked).
    """
    recorder = StateRecorder(hidden_states, plan, track, position)
    for index, layer in enumerate(layers):
        hidden_states, state = layer(hidden_states, token_merging=plan.step(index, recorder.state), **kwargs)
        recorder.append(state, hidden_states.shape[1])
    return hidden_states, recorder.state, recorder.trace()


class StateRecorder:
    """Holds the state of one forward call between its layers, and all of them if a trace was asked for.

    Args:
        hidden_states: (B, N, C) embeddings.
        plan: What each layer removes.
        track: Whether to build a trace.
        position: (1, N, A) float, where the tokens lie, for layers that read it from the state.
    """

    def __init__(
        self, hidden_states: Tensor, plan: TokenMergingPlan, track: bool, position: Tensor | None = None
    ) -> None:
        batch_size, num_tokens = hidden_states.shape[:2]
        if plan.settings.scope != "clip" and num_tokens != plan.layout.num_tokens:
            raise ValueError(
                f"token_merging_scope={plan.settings.scope!r} needs all {plan.layout.num_tokens} tokens of the clip, "
                f"got {num_tokens}; use 'clip' for masked inputs and other sizes"
            )
        self.state = initial_state(batch_size, num_tokens, hidden_states.device, track, position)
        self._track = track
        self._dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        self._states, self._counts = [self.state], [num_tokens]

    def append(self, state: TokenMergingState, num_tokens: int) -> None:
        """Takes the state after one more layer, and the tokens that are left."""
        self.state = state
        self._states.append(state)
        self._counts.append(num_tokens)

    def trace(self) -> TokenMergingTrace | None:
        """The trace of all layers so far, or None if it is not tracked."""
        return build_trace(self._states, self._counts, self._dtype) if self._track else None


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
                `pooling` and `scope`, and of V-JEPA 2 `position`: see `TokenMergingConfigMixin` and `VJEPA2Config`.
                What is not named stays as it is. r = 0 is the stock model.

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
    ) -> TokenMergingPlan:
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
        plan: TokenMergingPlan = model.config.token_merging_plan(
            ClipShape(*pixel_values.shape[1:]), self.current_token_merging(changes)
        )
        return plan


class TokenMergingHeadMixin(TokenMergingModelMixin):
    """What heads that merge tokens have in common."""

    def _reads_prefix_only(self, output_token_merging: bool, asked: Mapping[str, Any]) -> bool:
        """Whether a head that classifies by CLS may have its base model leave everything else out of the last layer.

        Not where there may be gradients, which would be missing instead of zero; nor in training, nor where anything
        in the base model is hooked or replaced: somebody may be looking at what the layer returns.

        Args:
            output_token_merging: Whether a trace is asked for.
            asked: Keyword arguments of the call, which may ask for hidden states or attentions.

        Returns:
            Whether it makes no difference to anybody.
        """
        head: Any = self
        names = ("output_hidden_states", "output_attentions")
        asks_for_more = any(getattr(head.config, name) if asked.get(name) is None else asked[name] for name in names)
        if output_token_merging or asks_for_more or torch.is_grad_enabled():
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
