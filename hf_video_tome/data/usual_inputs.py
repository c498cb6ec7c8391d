"""How clips became the input of published checkpoints: what is used where a checkpoint does not say."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any


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
class UsualInput:
    """The input of an architecture's published checkpoints.

    Attributes:
        transform: From frames to pixel values.
        kinetics_clip: From a video of Kinetics-400 to frames; None where the paper has none.
        model_input_name: What the model calls it.
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
"""The usual inputs by model type."""
