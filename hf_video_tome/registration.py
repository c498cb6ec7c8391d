"""Registers models that can merge tokens with the Auto classes of transformers, and unregisters them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, AutoConfig, AutoImageProcessor, AutoModel

from ._compat import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
    registered_conversions,
    unregister_auto_class,
    unregister_config,
    unregister_image_processor,
)
from .data.processor import ClipProcessor
from .models import ARCHITECTURES, ENCODERS, HOSTS, Encoder
from .plugins import import_plugins
from .presets import preset as preset  # registers them

_REGISTERED_CONVERSIONS: set[str] = set()
"""Keys of the checkpoint conversions registered here rather than by the user."""


def _auto_entries() -> Iterator[tuple[Any, Any, type]]:
    """Yields (Auto class, config class, model class); both our and stock configs lead to our models."""
    for encoder in ENCODERS.values():
        for config_class in (encoder.config_class, encoder.stock_config_class):
            yield AutoModel, config_class, encoder.model_class
    for host in HOSTS.values():
        for name in host.auto_classes:
            for config_class in (host.config_class, host.stock_config_class):
                yield getattr(transformers, name), config_class, host.model_class


def _config_classes() -> list[Any]:
    return [encoder.config_class for encoder in ENCODERS.values()] + [host.config_class for host in HOSTS.values()]


def _register_stock(encoder: Encoder) -> None:
    """Registers the stock models of an encoder that is not part of transformers."""
    AutoConfig.register(encoder.model_type, encoder.stock_config_class, exist_ok=True)
    AutoModel.register(encoder.stock_config_class, encoder.stock_model_class, exist_ok=True)
    for host in HOSTS.values():
        if host.stock_config_class is encoder.stock_config_class:
            for name in host.auto_classes:
                getattr(transformers, name).register(host.stock_config_class, host.stock_class, exist_ok=True)


def register() -> None:
    """Registers all architectures with transformers; `import hf_video_tome` calls it, repeated calls do no harm.

    It first imports the plugins: modules that installed packages list in the entry point group `hf_video_tome.modes`.
    A model whose config sets no token merging field computes the same as the stock model.
    """
    import_plugins()
    for config_class in _config_classes():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    for auto_class, config_class, model_class in _auto_entries():
        auto_class.register(config_class, model_class, exist_ok=True)
    for architecture in ARCHITECTURES.values():
        if architecture.video_processor_only:
            for config_class in (architecture.config_class, architecture.stock_config_class):
                # "pil" is the backend that transformers always falls back to; PIL itself is not used.
                AutoImageProcessor.register(
                    config_class, image_processor_classes={"pil": ClipProcessor}, exist_ok=True
                )
    for encoder in ENCODERS.values():
        # transformers converts older checkpoints only for its own classes and registered ones.
        for key in encoder.weight_conversions:
            mapping = get_checkpoint_conversion_mapping(key)
            if mapping is None:
                raise RuntimeError(f"transformers has no checkpoint conversion {key!r}: its version is not supported")
            if key not in registered_conversions():
                register_checkpoint_conversion_mapping(key, mapping, overwrite=True)
                _REGISTERED_CONVERSIONS.add(key)


def unregister() -> None:
    """Restores the stock models in the Auto classes; existing models are not changed.

    The classes of this package then no longer convert checkpoints saved by older versions of transformers.
    """
    registered_conversions().difference_update(_REGISTERED_CONVERSIONS)
    _REGISTERED_CONVERSIONS.clear()
    for auto_class, config_class, _ in _auto_entries():
        unregister_auto_class(auto_class, config_class)
        unregister_image_processor(config_class)
    for config_class in _config_classes():
        unregister_config(config_class.model_type)
    for encoder in ENCODERS.values():
        if encoder.model_type not in CONFIG_MAPPING:
            _register_stock(encoder)
