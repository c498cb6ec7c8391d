"""The registry of architectures: each folder of `models/` ends in one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from torch import nn

from .mac_count import MacCount


@dataclass(frozen=True)
class UsualTransform:
    """How frames became the input of an architecture's published checkpoints.

    Attributes:
        enlargement: Shortest edge that frames are resized to before the centre crop, relative to that of the model's
            frames. None: they are resized to the model's frames as they are, and not cropped.
        fields: Other fields of `hf_video_tome.data.ClipTransform`, where they are not its defaults.
    """

    enlargement: Fraction | None = Fraction(1)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KineticsClip:
    """The clip that an architecture's base model takes on Kinetics-400.

    Attributes:
        num_frames: Frames of the clip.
        sampling_rate: Distance of two of them in the evaluation of "Video, How Do Your Tokens Merge?" (CVPRW 2025).
        training_rate: Their distance when the published checkpoints were trained.
    """

    num_frames: int
    sampling_rate: int
    training_rate: int


@dataclass(frozen=True)
class Architecture:
    """All that is to be known of an architecture from outside of its folder.

    Attributes:
        model_type: As in transformers.
        config_class: Config with the token merging fields; has the name of the stock class.
        stock_config_class: The config of transformers.
        model_class: Base model that merges tokens; has the name of the stock class.
        stock_model_class: The base model of transformers.
        head_class: Classifier that merges tokens; has the name of the stock class.
        stock_head_class: The classifier of transformers.
        module_classes: From each stock module class to the one that merges: all that the classifier is made of, but
            for itself and the base model.
        mac_count: Counts the multiply-accumulates of one clip, given a config of `config_class`.
        weight_conversions: Keys of transformers' checkpoint conversions that the model needs for older checkpoints.
        paper_settings: Settings of "Video, How Do Your Tokens Merge?" for the base size; empty where it has none.
        stock_attn_implementations: Attention implementations that the stock model can be put back to.
        video_processor_only: Whether transformers has a video processor for it, which needs torchvision, and no image
            processor.
        usual_transform: For checkpoints without a processor file; None where there is no usual one.
        kinetics_clip: For the sampling presets; None where the paper has none.
        converter: Module that converts checkpoints of the original implementation (see `models.conversion`); None
            where there is none.
    """

    model_type: str
    config_class: Any
    stock_config_class: Any
    model_class: type[nn.Module]
    stock_model_class: type[nn.Module]
    head_class: type[nn.Module]
    stock_head_class: type[nn.Module]
    module_classes: dict[type[nn.Module], type[nn.Module]]
    mac_count: Callable[[Any], MacCount]
    weight_conversions: tuple[str, ...] = ()
    paper_settings: dict[str, Any] = field(default_factory=dict)
    stock_attn_implementations: tuple[str, ...] | None = None
    video_processor_only: bool = False
    usual_transform: UsualTransform | None = None
    kinetics_clip: KineticsClip | None = None
    converter: str | None = None

    @property
    def merging_classes(self) -> dict[type[nn.Module], type[nn.Module]]:
        """From every stock class, head and base model included, to the one that merges."""
        return {
            **self.module_classes,
            self.stock_model_class: self.model_class,
            self.stock_head_class: self.head_class,
        }


def paper_settings(r: int, scope: str, proportional_attention: bool) -> dict[str, Any]:
    """Settings of "Video, How Do Your Tokens Merge?" (CVPRW 2025): all of them, so that nothing set before is left.

    Args:
        r: The r that the paper calls roughly optimal, at base size.
        scope: What the paper matches together.
        proportional_attention: Whether the paper uses it for the architecture.

    Returns:
        Settings for `set_token_merging`.
    """
    return {
        "r": r,
        "schedule": "constant",
        "mode": "merge",
        "threshold": None,
        "head_aggregation": "mean",
        "proportional_attention": proportional_attention,
        "pooling": "mean",
        "scope": scope,
    }


ARCHITECTURES: dict[str, Architecture] = {}
"""All architectures by model type."""


def register_architecture(architecture: Architecture) -> Architecture:
    """Adds an architecture to the registry.

    Args:
        architecture: The entry.

    Returns:
        The same entry.

    Raises:
        ValueError: If the model type is taken, or class names differ from the stock ones (transformers goes by them).
    """
    if architecture.model_type in ARCHITECTURES:
        raise ValueError(f"the architecture {architecture.model_type!r} is registered already")
    pairs = [(architecture.stock_config_class, architecture.config_class), *architecture.merging_classes.items()]
    for stock_class, merging_class in pairs:
        if stock_class.__name__ != merging_class.__name__:
            raise ValueError(f"{merging_class.__name__} must have the name of its stock class {stock_class.__name__}")
    ARCHITECTURES[architecture.model_type] = architecture
    return architecture
