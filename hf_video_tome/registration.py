"""Makes the Auto classes of transformers build models that can merge tokens, and undoes it."""

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

_REGISTERED_CONVERSIONS: set[str] = set()
"""Keys of the checkpoint conversions that are registered here, and not by the user."""


def _auto_entries() -> Iterator[tuple[Any, Any, type]]:
    """Yields (Auto class, config class, model class): ours and stock config objects both lead to our models."""
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
    """Registers the stock models around an encoder that transformers does not have itself."""
    AutoConfig.register(encoder.model_type, encoder.stock_config_class, exist_ok=True)
    AutoModel.register(encoder.stock_config_class, encoder.stock_model_class, exist_ok=True)
    for host in HOSTS.values():
        if host.stock_config_class is encoder.stock_config_class:
            for name in host.auto_classes:
                getattr(transformers, name).register(host.stock_config_class, host.stock_class, exist_ok=True)


def register() -> None:
    """Registers all architectures with transformers; called by `import hf_video_tome`, and harmless when repeated.

    Modules that installed packages name in the entry point group `hf_video_tome.modes` are imported before, so that
    what they register is there. A model whose config sets no token merging field computes what the stock model
    computes.
    """
    import_plugins()
    for config_class in _config_classes():
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    for auto_class, config_class, model_class in _auto_entries():
        auto_class.register(config_class, model_class, exist_ok=True)
    for architecture in ARCHITECTURES.values():
        if architecture.video_processor_only:
            for config_class in (architecture.config_class, architecture.stock_config_class):
                # The name of the backend that is the fallback everywhere; no PIL is involved.
                AutoImageProcessor.register(
                    config_class, image_processor_classes={"pil": ClipProcessor}, exist_ok=True
                )
    for encoder in ENCODERS.values():
        # transformers converts older checkpoints for classes outside of it only when told so.
        for key in encoder.weight_conversions:
            mapping = get_checkpoint_conversion_mapping(key)
            if mapping is None:
                raise RuntimeError(f"transformers has no checkpoint conversion {key!r}: its version is not supported")
            if key not in registered_conversions():
                register_checkpoint_conversion_mapping(key, mapping, overwrite=True)
                _REGISTERED_CONVERSIONS.add(key)


def unregister() -> None:
    """Gives the Auto classes back to the stock models; models that exist are not touched.

    The classes of this package then no longer convert checkpoints in the layout of older versions of transformers.
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
