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
        model_type: As in transformers.
        config_class: Config with the token merging fields; has the name of the stock class.
        stock_config_class: The config of transformers.
        model_class: Base model that merges tokens; has the name of the stock class.
        stock_model_class: The base model of transformers.
        module_classes: From each stock module class to the one that merges: all that the base model, and what pools
            its tokens, are made of.
        mac_count: Counts the multiply-accumulates of one clip, given a config of `config_class`.
        weight_conversions: Keys of transformers' checkpoint conversions that the model needs for older checkpoints.
        stock_attn_implementations: Attention implementations that the stock model can be put back to; None: all.
    """

    model_type: str
    config_class: Any
    stock_config_class: Any
    model_class: type[nn.Module]
    stock_model_class: type[nn.Module]
    module_classes: Mapping[type[nn.Module], type[nn.Module]]
    mac_count: Callable[[Any], MacCount]
    weight_conversions: tuple[str, ...] = ()
    stock_attn_implementations: tuple[str, ...] | None = None

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
        ValueError: If the model type is taken, or class names differ from the stock ones (transformers goes by them).
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
