"""Registry of encoders: base models that can merge tokens, alone or inside another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .mac_count import MacCount


@dataclass(frozen=True)
class Encoder:
    """Base model that merges tokens.

    Attributes:
        model_class: Base model that merges tokens; all its classes have the same names as the stock ones.
        mac_count: Counts the multiply-accumulates of one clip, given a config of `config_class`.
        weight_conversions: Keys of the checkpoint conversions of transformers that older checkpoints need.
        stock_attn_implementations: Attention implementations that the stock model supports; None for all.
    """

    model_class: Any
    mac_count: Callable[[Any], MacCount]
    weight_conversions: tuple[str, ...] = ()
    stock_attn_implementations: tuple[str, ...] | None = None

    @property
    def model_type(self) -> str:
        """Model type, as in transformers."""
        return str(self.config_class.model_type)

    @property
    def config_class(self) -> Any:
        """Config with the token merging fields."""
        return self.model_class.config_class

    @property
    def stock_config_class(self) -> Any:
        """The config of transformers."""
        return stock_class_of(self.config_class)

    @property
    def stock_model_class(self) -> type[nn.Module]:
        """The base model of transformers."""
        return stock_class_of(self.model_class)

    @property
    def module_classes(self) -> Mapping[type[nn.Module], type[nn.Module]]:
        """Merging class for each stock class of the modules inside base model and pooler."""
        classes: Mapping[type[nn.Module], type[nn.Module]] = self.model_class.module_classes
        return classes

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """Merging class for each stock class, including the base model."""
        return {**self.module_classes, self.stock_model_class: self.model_class}


ENCODERS: dict[str, Encoder] = {}
"""All encoders by model type."""


def register_encoder(encoder: Encoder) -> Encoder:
    """Adds an encoder to the registry.

    Args:
        encoder: The entry.

    Returns:
        The same entry.

    Raises:
        ValueError: If the model type is taken, or a class and its stock class have different names, which transformers
            relies on.
    """
    if encoder.model_type in ENCODERS:
        raise ValueError(f"the encoder {encoder.model_type!r} is registered already")
    check_names({encoder.stock_config_class: encoder.config_class, **encoder.merging_classes})
    ENCODERS[encoder.model_type] = encoder
    return encoder


def encoder_of(config: Any, given: object) -> Encoder:
    """Returns the encoder that a config is of.

    Args:
        config: Anything that may be a config, of transformers or of this package.
        given: What the caller was given as `model_or_config`, for the error.

    Raises:
        ValueError: If it is of none.
    """
    encoder = ENCODERS.get(getattr(config, "model_type", ""))
    if encoder is None:
        names = ", ".join(map(repr, ENCODERS))
        raise ValueError(
            f"model_or_config must be a model or config with a model_type of {names}, got {type(given).__name__}"
        )
    return encoder


def check_names(merging_classes: Mapping[Any, Any]) -> None:
    """Checks that each merging class has the name of its stock class, which transformers relies on.

    Raises:
        ValueError: If the names differ.
    """
    for stock_class, merging_class in merging_classes.items():
        if stock_class.__name__ != merging_class.__name__:
            raise ValueError(f"{merging_class.__name__} must have the name of its stock class {stock_class.__name__}")


def stock_class_of(merging_class: Any) -> Any:
    """Returns the stock class of a merging class: its first base class with the same name.

    Raises:
        ValueError: If there is none.
    """
    for base in merging_class.__mro__[1:]:
        if base.__name__ == merging_class.__name__:
            return base
    raise ValueError(f"{merging_class.__name__} must have the name of its stock class, got bases of other names only")
