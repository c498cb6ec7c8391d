"""Models with an encoder config inside their config, such as dual encoders: they pass settings on to it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal

from transformers import PreTrainedConfig

from ..configuration import PREFIX, TokenMergingConfigMixin
from ..merging.settings import TokenMergingSettings
from .convert_modules import convert_modules
from .encoder import ENCODERS
from .host import HOSTS, Host

RESTORE = f"{PREFIX}restore"
"""Not saved: it follows from what the model reads."""


class CompositeConfigMixin:
    """Config that delegates its token merging fields to the config of an encoder, where they are saved.

    `token_merging_r` of this config is that of the encoder config.
    """

    encoder_config: ClassVar[str] = "vision_config"
    """Name of the field with the encoder config."""

    @property
    def token_merging_config(self) -> TokenMergingConfigMixin:
        """Encoder config with the token merging fields, added on first access."""
        part: Any = getattr(self, self.encoder_config)
        if not isinstance(part, TokenMergingConfigMixin):
            part = ENCODERS[part.model_type].config_class.from_stock(part)
            setattr(self, self.encoder_config, part)
        return part

    def __post_init__(self, **kwargs: Any) -> None:
        changes = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith(PREFIX)}
        super().__post_init__(**kwargs)  # type: ignore[misc]
        self.update_token_merging(**changes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith(PREFIX) and self.encoder_config in self.__dict__:
            return getattr(self.token_merging_config, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith(PREFIX):
            setattr(self.token_merging_config, name, value)
        else:
            super().__setattr__(name, value)

    @property
    def token_merging(self) -> TokenMergingSettings:
        """The settings of the encoder config as one object."""
        return self.token_merging_config.token_merging

    def update_token_merging(self, **changes: Any) -> None:
        """See `TokenMergingConfigMixin.update_token_merging`."""
        self.token_merging_config.update_token_merging(**changes)

    def full_names(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """See `TokenMergingConfigMixin.full_names`."""
        return self.token_merging_config.full_names(changes)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """See `PreTrainedConfig.from_dict`; unknown settings are refused."""
        loaded: Any = super().from_dict(config_dict, **kwargs)  # type: ignore[misc]
        config = loaded[0] if isinstance(loaded, tuple) else loaded  # the second are the unused keywords
        config.full_names({name: value for name, value in kwargs.items() if name.startswith(PREFIX)})
        return loaded

    def to_diff_dict(self) -> dict[str, Any]:
        """Returns the config as it is saved, without token merging fields at their defaults."""
        output: dict[str, Any] = super().to_diff_dict()  # type: ignore[misc]
        part = output.get(self.encoder_config)
        if part is not None:
            kept = self.token_merging_config.to_diff_dict()
            names = [name for name in part if name.startswith(PREFIX) and (name not in kept or name == RESTORE)]
            output[self.encoder_config] = {name: value for name, value in part.items() if name not in names}
        return output

    @classmethod
    def from_stock(cls, config: PreTrainedConfig) -> Any:
        """Returns a copy of a config of transformers with token merging fields added to its encoder config."""
        converted: Any = copy.deepcopy(config)
        converted.__class__ = cls
        _ = converted.token_merging_config
        return converted

    def to_stock(self, stock_class: type[PreTrainedConfig]) -> PreTrainedConfig:
        """Returns a copy of this config without the token merging fields in its encoder config."""
        converted: Any = copy.deepcopy(self)
        part: Any = self.token_merging_config
        stock_part = part.to_stock(ENCODERS[part.model_type].stock_config_class)
        converted.__class__ = stock_class
        setattr(converted, self.encoder_config, stock_part)
        return converted


class CompositeModelMixin:
    """Model around one encoder that merges tokens; by default, the encoder returns the full grid."""

    config_class: ClassVar[Any]
    reads: ClassVar[Literal["tokens", "grid"]] = "grid"
    """Encoder output that the model reads."""

    def __init__(self, config: PreTrainedConfig, **token_merging: Any) -> None:
        # Always copies: other models with the caller's config may not need the full grid.
        config = self.config_class.from_stock(config)
        config.update_token_merging(**token_merging, **({"restore": True} if self.reads == "grid" else {}))
        super().__init__(config)  # type: ignore[call-arg]
        model: Any = self
        for path, encoder in self._host.encoder_entries.items():
            convert_modules(model.get_submodule(path), encoder.merging_classes)

    @property
    def _host(self) -> Host:
        return next(host for host in HOSTS.values() if isinstance(self, host.model_class))

    @property
    def token_merging_encoder(self) -> Any:
        """The encoder that merges tokens."""
        model: Any = self
        return model.get_submodule(next(iter(self._host.encoders)))

    def set_token_merging(self, **changes: Any) -> None:
        """Changes how the encoder merges tokens, at any time and without reloading it."""
        self.token_merging_encoder.set_token_merging(**changes)

    def token_merging(self, **changes: Any) -> AbstractContextManager[None]:
        """Changes how the encoder merges tokens for the calls inside a `with` block."""
        context: AbstractContextManager[None] = self.token_merging_encoder.token_merging(**changes)
        return context

    def current_token_merging(self, changes: Mapping[str, Any] | None = None) -> TokenMergingSettings:
        """Returns the settings that a call would use now."""
        settings: TokenMergingSettings = self.token_merging_encoder.current_token_merging(changes)
        return settings
