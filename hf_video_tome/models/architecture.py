"""Registry of architectures: an encoder, its classifier, and facts about published checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..merging.settings import SETTINGS, TokenMergingSettings
from .encoder import Encoder, register_encoder, stock_class_of
from .host import Host, register_host


@dataclass(frozen=True)
class Architecture:
    """Encoder, its classifier, and facts about published checkpoints.

    Attributes:
        encoder: The base model.
        classifier: The classifier around it.
        paper_settings: Settings of "Video, How Do Your Tokens Merge?" for the base size; empty if it has none.
        video_processor_only: Whether transformers only has a video processor for it, which needs torchvision, but no
            image processor.
    """

    encoder: Encoder
    classifier: Host
    paper_settings: dict[str, Any] = field(default_factory=dict)
    video_processor_only: bool = False

    @property
    def model_type(self) -> str:
        """Model type, as in transformers."""
        return self.encoder.model_type

    @property
    def config_class(self) -> Any:
        """Config with the token merging fields."""
        return self.encoder.config_class

    @property
    def stock_config_class(self) -> Any:
        """The config of transformers."""
        return self.encoder.stock_config_class

    @property
    def model_class(self) -> type[nn.Module]:
        """Base model that merges tokens."""
        return self.encoder.model_class

    @property
    def stock_model_class(self) -> type[nn.Module]:
        """The base model of transformers."""
        return self.encoder.stock_model_class

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """Merging class for each stock class of the classifier."""
        return self.classifier.merging_classes

    @property
    def head_class(self) -> type[nn.Module]:
        """Classifier that merges tokens."""
        return self.classifier.model_class

    @property
    def stock_head_class(self) -> type[nn.Module]:
        """The classifier of transformers."""
        return self.classifier.stock_class


def paper_settings(r: int, scope: str, proportional_attention: bool) -> dict[str, Any]:
    """Returns all settings of "Video, How Do Your Tokens Merge?" (CVPRW 2025), to replace any earlier ones.

    Args:
        r: The r that the paper calls roughly optimal, at base size.
        scope: The scope used in the paper.
        proportional_attention: Whether the paper uses it for the architecture.

    Returns:
        Settings for `set_token_merging`.
    """
    settings = TokenMergingSettings().changed(
        r=r, pooling="mean", scope=scope, proportional_attention=proportional_attention
    )
    return {name: settings.get(name) for name, info in SETTINGS.items() if info.is_common}


ARCHITECTURES: dict[str, Architecture] = {}
"""All architectures by model type."""


def register_architecture(encoder: Encoder, head_class: type[nn.Module], **known: Any) -> Architecture:
    """Registers an encoder, its classifier, and facts about published checkpoints.

    Args:
        encoder: The base model.
        head_class: The classifier that merges tokens; it has the name of the one in transformers, and the config of
            the base model.
        **known: The other fields of `Architecture`.

    Returns:
        The entry.

    Raises:
        ValueError: If the model type or the classifier is taken, or class names differ from the stock ones.
    """
    register_encoder(encoder)
    stock = stock_class_of(head_class)
    classifier = register_host(
        Host(
            stock_class=stock,
            model_class=head_class,
            config_class=encoder.config_class,
            stock_config_class=encoder.stock_config_class,
            encoders={stock.base_model_prefix: encoder.model_type},
        )
    )
    architecture = Architecture(encoder, classifier, **known)
    ARCHITECTURES[architecture.model_type] = architecture
    return architecture
