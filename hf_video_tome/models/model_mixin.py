"""Common code of base models and heads that merge tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from .._compat import set_attn_implementation
from ..configuration import PREFIX, ClipShape, TokenMergingConfigMixin
from ..merging.plan import Plan
from ..merging.settings import TokenMergingSettings
from .convert_modules import convert_modules, replace_config
from .pixel_values import check_pixel_values
from .saved_names import rename_saved_weights
from .scoped_settings import changes_in_scope, scoped_settings


class TokenMergingModelMixin:
    """Mixin for base models and heads that merge tokens.

    Models built from the same config object of this package share its settings, just as models of transformers share
    the attention implementation.
    """

    config: Any
    config_class: ClassVar[Any]
    module_classes: ClassVar[Mapping[type[nn.Module], type[nn.Module]]]
    """Merging class for each stock class in the model."""
    stock_attn_implementation: ClassVar[str | None] = None
    """Attention implementation for building the stock model, if it does not support those that ours supports."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        changes = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith(PREFIX)}
        config = built_from = self._token_merging_config(config, changes)
        model: Any = self
        if self.stock_attn_implementation is not None:
            PreTrainedModel.__init__(model, config)  # checks or chooses the implementation for this class
            built_from = copy.deepcopy(config)  # other models may share the config
            set_attn_implementation(built_from, self.stock_attn_implementation)
        super().__init__(built_from, *args, **kwargs)  # type: ignore[call-arg]
        convert_modules(model, self.module_classes)
        if built_from is not config:
            replace_config(model, built_from, config)

    @classmethod
    def _token_merging_config(cls, config: PreTrainedConfig, changes: dict[str, Any]) -> TokenMergingConfigMixin:
        """Returns the config to build a model from, with validated token merging fields.

        It is a copy, unless the caller's config already has these fields and none of them changes.
        """
        if not isinstance(config, TokenMergingConfigMixin):
            config = cls.config_class.from_stock(config)
        elif changes:
            config = copy.deepcopy(config)
        config.update_token_merging(**changes)
        return config

    def set_token_merging(self, **changes: Any) -> None:
        """Changes how the model merges tokens, at any time and without reloading it.

        Args:
            **changes: Any of `r`, `schedule`, `mode`, `threshold`, `head_aggregation`, `proportional_attention`,
                `pooling`, `scope`, `input`, `input_keep` and `restore`; for V-JEPA 2 also `position`. See
                `TokenMergingConfigMixin` and `VJEPA2Config`. All others keep their values. r = 0 without an input
                stage is the stock model.

        Raises:
            ValueError: If a name or a value is not allowed. Nothing is changed then.
        """
        self.config.update_token_merging(**changes)

    def token_merging(self, **changes: Any) -> AbstractContextManager[None]:
        """Changes how the model merges tokens for the calls inside a `with` block.

        The change applies to calls of this thread or async task only; settings passed to a call take precedence. See
        `hf_video_tome.token_merging`.

        Args:
            **changes: Settings as for `set_token_merging`.

        Returns:
            The context manager.

        Raises:
            ValueError: If a name is unknown or a value is out of range. Whether the values are compatible with each
                other and with the config is checked when the model is called.
            RuntimeError: If the model is compiled.
        """
        return scoped_settings(self, self.config.full_names(changes))

    def current_token_merging(self, changes: Mapping[str, Any] | None = None) -> TokenMergingSettings:
        """Returns the settings that a call would use now.

        Settings of the call take precedence over those of the surrounding `with` blocks, and these over the config.

        Args:
            changes: Settings of the call: config field names and values.

        Returns:
            The settings, each checked individually.

        Raises:
            ValueError: If a name is unknown or a value is out of range.
        """
        settings: TokenMergingSettings = self.config.token_merging
        changes = {**changes_in_scope(self), **(changes or {})}
        return self.config.changed_settings(settings, changes) if changes else settings

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # Not a hook, which `apply_token_merging` would have to add to existing models.
        model: Any = self
        rename_saved_weights(model, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[misc]

    def _make_plan(
        self,
        pixel_values: Tensor | None,
        kwargs: Any,  # a dict, typed as `TransformersKwargs` by callers
        any_size: bool = False,
        any_frames: bool = False,
    ) -> Plan:
        """Checks the clips of a forward call and plans what each layer does.

        Args:
            pixel_values: (B, T, C, H, W).
            kwargs: Keyword arguments of the call; settings are removed from it.
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

    def _cast_pixels(self, pixel_values: Tensor, plan: Plan) -> Tensor:
        """Casts clips to the dtype of the model if it has an input stage, which reads them in a higher precision."""
        model: Any = self
        return pixel_values if plan.input_stage is None else pixel_values.to(model.dtype)
