"""The registry of hosts: models that are built around an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .encoder import ENCODERS, Encoder, check_names


@dataclass(frozen=True)
class Host:
    """A model that is built around one encoder or more: a classifier, a dual encoder.

    Attributes:
        stock_class: The model of transformers.
        model_class: The model that hands settings and sizes on; has the name of the stock class.
        config_class: Its config; has the name of the stock class. That of the encoder where they share it.
        stock_config_class: The config of transformers.
        encoders: From the paths of its encoders to their model types: `{"videomae": "videomae"}`.
        auto_classes: Auto classes of transformers that build it, by name.
    """

    stock_class: type[nn.Module]
    model_class: type[nn.Module]
    config_class: Any
    stock_config_class: Any
    encoders: Mapping[str, str]
    auto_classes: tuple[str, ...] = field(default=("AutoModelForVideoClassification",))

    @property
    def reads(self) -> str:
        """What it reads of an encoder: the "prefix" tokens, the "tokens" and their sizes, or the full "grid"."""
        model_class: Any = self.model_class
        return str(model_class.reads)

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """From every stock class in it to the one that merges."""
        classes: dict[type[nn.Module], type[nn.Module]] = {}
        for encoder in self.encoder_entries.values():
            classes |= encoder.merging_classes
        return {**classes, self.stock_class: self.model_class}

    @property
    def encoder_entries(self) -> dict[str, Encoder]:
        """From the paths of its encoders to their entries in the registry."""
        return {path: ENCODERS[model_type] for path, model_type in self.encoders.items()}


HOSTS: dict[type[nn.Module], Host] = {}
"""All hosts by the class of transformers that they stand for."""


def register_host(host: Host) -> Host:
    """Adds a host to the registry; its encoders must be there before.

    Args:
        host: The entry.

    Returns:
        The same entry.

    Raises:
        ValueError: If the stock class is taken, an encoder is unknown, or class names differ from the stock ones.
    """
    if host.stock_class in HOSTS:
        raise ValueError(f"the host {host.stock_class.__name__} is registered already")
    for path, model_type in host.encoders.items():
        if model_type not in ENCODERS:
            raise ValueError(f"the encoder of {path!r} must be one of {', '.join(ENCODERS)}, got {model_type!r}")
    check_names({host.stock_config_class: host.config_class, host.stock_class: host.model_class})
    HOSTS[host.stock_class] = host
    return host
