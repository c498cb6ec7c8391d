"""Input settings of published checkpoints, used if a checkpoint does not store its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class UsualTransform:
    """Frame transform of an architecture's published checkpoints.

    Attributes:
        enlargement: Shortest edge of the resized frames before the centre crop, relative to the model's frame size.
            None: frames are resized to the model's frame size, without a crop.
        fields: Fields of `hf_video_tome.data.ClipTransform` that differ from its defaults.
    """

    enlargement: Fraction | None = Fraction(1)
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KineticsClip:
    """Clip sampling of an architecture's base model on Kinetics-400.

    Attributes:
        num_frames: Number of frames in the clip.
        sampling_rate: Sampling rate in the evaluation of "Video, How Do Your Tokens Merge?" (CVPRW 2025).
        training_rate: Sampling rate in the training of the published checkpoints.
    """

    num_frames: int
    sampling_rate: int
    training_rate: int


@dataclass(frozen=True)
class UsualInput:
    """Input settings of an architecture's published checkpoints.

    Attributes:
        transform: Transform from frames to pixel values.
        kinetics_clip: Sampling of a Kinetics-400 video; None if the paper does not evaluate the architecture.
        model_input_name: Name of the model input.
    """

    transform: UsualTransform
    kinetics_clip: KineticsClip | None = None
    model_input_name: str = "pixel_values"


USUAL_INPUTS = {
    "motionformer": UsualInput(
        UsualTransform(fields={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}),
        KineticsClip(num_frames=16, sampling_rate=4, training_rate=4),
    ),
    "timesformer": UsualInput(
        UsualTransform(fields={"mean": (0.45, 0.45, 0.45), "std": (0.225, 0.225, 0.225)}),
        KineticsClip(num_frames=8, sampling_rate=32, training_rate=32),
    ),
    # Trained at a rate of 4, but the paper evaluates it at 1.
    "videomae": UsualInput(UsualTransform(), KineticsClip(num_frames=16, sampling_rate=1, training_rate=4)),
    "videoprism_vision_model": UsualInput(
        UsualTransform(enlargement=None, fields={"mean": None, "std": None}), model_input_name="pixel_values_videos"
    ),
    "vivit": UsualInput(
        UsualTransform(
            enlargement=Fraction(256, 224),
            fields={"rescale_factor": 1 / 127.5, "rescale_offset": -1.0, "mean": None, "std": None},
        ),
        KineticsClip(num_frames=32, sampling_rate=2, training_rate=2),
    ),
    "vjepa2": UsualInput(UsualTransform(enlargement=Fraction(256, 224)), model_input_name="pixel_values_videos"),
}
"""Input settings by model type."""
