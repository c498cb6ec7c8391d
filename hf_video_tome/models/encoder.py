"""The registry of encoders: what can merge tokens, wherever it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .mac_count import MacCount


@dataclass(frozen=True)
class Encoder:
    """A base model that merges tokens.

    Attributes:
        model_class: Base model that merges tokens, of which all classes have the names of the stock ones.
        mac_count: Counts the multiply-accumulates of one clip, given a config of `config_class`.
        weight_conversions: Keys of transformers' checkpoint conversions that the model needs for older checkpoints.
        stock_attn_implementations: Attention implementations that the stock model can be put back to; None: all.
    """

    model_class: Any
    mac_count: Callable[[Any], MacCount]
    weight_conversions: tuple[str, ...] = ()
    stock_attn_implementations: tuple[str, ...] | None = None

    @property
    def model_type(self) -> str:
        """As in transformers."""
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
        """From each stock module class to the one that merges: what base model and pooler are made of."""
        classes: Mapping[type[nn.Module], type[nn.Module]] = self.model_class.module_classes
        return classes

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """From every stock class, the base model included, to the one that merges."""
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
        ValueError: If the model type is taken, or a class has not the name of its stock class, by which transformers
            goes.
    """
    if encoder.model_type in ENCODERS:
        raise ValueError(f"the encoder {encoder.model_type!r} is registered already")
    check_names({encoder.stock_config_class: encoder.config_class, **encoder.merging_classes})
    ENCODERS[encoder.model_type] = encoder
    return encoder


def check_names(merging_classes: Mapping[Any, Any]) -> None:
    """Checks that classes that merge have the names of those that they stand for, by which transformers goes.

    Raises:
        ValueError: If one has not.
    """
    for stock_class, merging_class in merging_classes.items():
        if stock_class.__name__ != merging_class.__name__:
            raise ValueError(f"{merging_class.__name__} must have the name of its stock class {stock_class.__name__}")


def stock_class_of(merging_class: Any) -> Any:
    """Returns the class that one that merges stands for: the first of its bases that has its name.

    Raises:
        ValueError: If none has.
    """
    for base in merging_class.__mro__[1:]:
        if base.__name__ == merging_class.__name__:
            return base
    raise ValueError(f"{merging_class.__name__} must have the name of its stock class, got bases of other names only")
