"""Makes the Auto classes of transformers build models that can merge tokens, and undoes it."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForVideoClassification
from transformers.conversion_mapping import (
    USER_REGISTERED_MAPPINGS,
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from .models import ARCHITECTURES, Architecture
from .processing import ClipProcessor

_REGISTERED_CONVERSIONS: set[str] = set()
"""Keys of the checkpoint conversions that are registered here, and not by the user."""


def _auto_entries(architecture: Architecture) -> list[tuple[Any, Any, type]]:
    """(Auto class, config class, model class): ours and stock config objects both lead to our models."""
    return [
        (auto_class, config_class, model_class)
        for auto_class, model_class in (
            (AutoModel, architecture.model_class),
            (AutoModelForVideoClassification, architecture.head_class),
        )
        for config_class in (architecture.config_class, architecture.stock_config_class)
    ]


def _register_stock(architecture: Architecture) -> None:
    """Registers the stock model of an architecture that transformers does not have itself."""
    AutoConfig.register(architecture.model_type, architecture.stock_config_class, exist_ok=True)
    AutoModel.register(architecture.stock_config_class, architecture.stock_model_class, exist_ok=True)
    AutoModelForVideoClassification.register(
        architecture.stock_config_class, architecture.stock_head_class, exist_ok=True
    )


def register() -> None:
    """Registers all architectures with transformers; called by `import hf_video_tome`, and harmless when repeated.

    A model whose config sets no token merging field computes what the stock model computes.
    """
    for architecture in ARCHITECTURES.values():
        AutoConfig.register(architecture.model_type, architecture.config_class, exist_ok=True)
        for auto_class, config_class, model_class in _auto_entries(architecture):
            auto_class.register(config_class, model_class, exist_ok=True)
        if architecture.video_processor_only:
            for config_class in (architecture.config_class, architecture.stock_config_class):
                # The name of the backend that is the fallback everywhere; no PIL is involved.
                AutoImageProcessor.register(
                    config_class, image_processor_classes={"pil": ClipProcessor}, exist_ok=True
                )
        # transformers converts older checkpoints for classes outside of it only when told so.
        for key in architecture.weight_conversions:
            mapping = get_checkpoint_conversion_mapping(key)
            if mapping is None:
                raise RuntimeError(f"transformers has no checkpoint conversion {key!r}: its version is not supported")
            if key not in USER_REGISTERED_MAPPINGS:
                register_checkpoint_conversion_mapping(key, mapping, overwrite=True)
                _REGISTERED_CONVERSIONS.add(key)


def unregister() -> None:
    """Gives the Auto classes back to the stock models; models that exist are not touched.

    The classes of this package then no longer convert checkpoints in the layout of older versions of transformers.
    """
    USER_REGISTERED_MAPPINGS.difference_update(_REGISTERED_CONVERSIONS)
    _REGISTERED_CONVERSIONS.clear()
    for architecture in ARCHITECTURES.values():
        CONFIG_MAPPING._extra_content.pop(architecture.model_type, None)
        for auto_class, config_class, _ in _auto_entries(architecture):
            auto_class._model_mapping._extra_content.pop(config_class, None)
            IMAGE_PROCESSOR_MAPPING._extra_content.pop(config_class, None)
        if architecture.model_type not in CONFIG_MAPPING:
            _register_stock(architecture)
