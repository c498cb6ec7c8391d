"""What base models and heads that merge tokens share."""

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
    """What heads and base models that merge tokens have in common.

    Models that are built from one config object of this package share its settings, as they share the attention
    implementation in transformers.
    """

    config: Any
    config_class: ClassVar[Any]
    module_classes: ClassVar[Mapping[type[nn.Module], type[nn.Module]]]
    """From each stock class that the model is made of to the one that merges."""
    stock_attn_implementation: ClassVar[str | None] = None
    """What the stock model is built with where its parts refuse attention implementations that ours run on."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        changes = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith(PREFIX)}
        config = built_from = self._token_merging_config(config, changes)
        model: Any = self
        if self.stock_attn_implementation is not None:
            PreTrainedModel.__init__(model, config)  # checks the implementation, or chooses one, for this class
            built_from = copy.deepcopy(config)  # other models may be running with the config itself
            set_attn_implementation(built_from, self.stock_attn_implementation)
        super().__init__(built_from, *args, **kwargs)  # type: ignore[call-arg]
        convert_modules(model, self.module_classes)
        if built_from is not config:
            replace_config(model, built_from, config)

    @classmethod
    def _token_merging_config(cls, config: PreTrainedConfig, changes: dict[str, Any]) -> TokenMergingConfigMixin:
        """The config that a model is built from: one with the token merging fields, validated.

        The caller's config stays untouched, unless it has the fields already and nothing is to be changed.
        """
        if not isinstance(config, TokenMergingConfigMixin):
            config = cls.config_class.from_stock(config)
        elif changes:
            config = copy.deepcopy(config)
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
