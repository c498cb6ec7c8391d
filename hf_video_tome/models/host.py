"""Registry of hosts: models built around an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .encoder import ENCODERS, Encoder, check_names


@dataclass(frozen=True)
class Host:
    """Model built around one or more encoders: a classifier or a dual encoder.

    Attributes:
        stock_class: The model of transformers.
        model_class: The model that passes on settings and sizes; it has the name of the stock class.
        config_class: Its config, with the name of the stock class; the encoder's config if they share it.
        stock_config_class: The config of transformers.
        encoders: Model type of each encoder by its path in the model: `{"videomae": "videomae"}`.
        auto_classes: Names of the Auto classes of transformers that build it.
    """

    stock_class: type[nn.Module]
    model_class: type[nn.Module]
    config_class: Any
    stock_config_class: Any
    encoders: Mapping[str, str]
    auto_classes: tuple[str, ...] = field(default=("AutoModelForVideoClassification",))

    @property
    def reads(self) -> str:
        """Encoder output that it reads: the "prefix" tokens, the "tokens" and their sizes, or the full "grid"."""
        model_class: Any = self.model_class
        return str(model_class.reads)

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """Merging class for each stock class in the model."""
        classes: dict[type[nn.Module], type[nn.Module]] = {}
        for encoder in self.encoder_entries.values():
            classes |= encoder.merging_classes
        return {**classes, self.stock_class: self.model_class}

    @property
    def encoder_entries(self) -> dict[str, Encoder]:
        """Registry entry of each encoder by its path in the model."""
        return {path: ENCODERS[model_type] for path, model_type in self.encoders.items()}


HOSTS: dict[type[nn.Module], Host] = {}
"""All hosts by stock class."""


def register_host(host: Host) -> Host:
    """Adds a host to the registry; its encoders must already be registered.

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
