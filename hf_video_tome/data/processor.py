"""An image processor for the models whose processors in transformers need torchvision."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

if TYPE_CHECKING:
    from .transforms import ClipTransform

_MODEL_INPUT_NAMES = ("pixel_values_videos", "pixel_values")


class ClipProcessor(BaseImageProcessor):
    """Makes the input of a model of decoded frames, without torchvision.

    For V-JEPA 2 and VideoPrism, for which transformers has video processors only, and those need torchvision. It reads
    their files and gives what they give, and takes their place where an image processor is asked for, as in the
    pipeline. It is also for any model whose frames need a step that the processors of transformers do not have
    (`subtract_mean_frame`). The frames of a clip are chosen before.

    Args:
        model_input_name: What the model calls its input: `"pixel_values_videos"` (V-JEPA 2, VideoPrism) or
            `"pixel_values"`.
        **settings: What the file of a processor of transformers holds, such as `size`, `crop_size` and `image_mean`:
            see `ClipTransform.from_dict`.

    Raises:
        ValueError: If a setting is missing, malformed or asks for a step that there is none of.

    Examples:
        >>> from hf_video_tome.data.transforms import ClipTransform
        >>> processor = ClipProcessor.from_transform(ClipTransform(resize=36, crop=(32, 32)))
        >>> frames = [np.zeros((48, 64, 3), dtype=np.uint8)] * 16
        >>> processor(frames, return_tensors="pt")["pixel_values_videos"].shape
        torch.Size([1, 16, 3, 32, 32])
    """

    model_input_names: ClassVar[list[str]] = list(_MODEL_INPUT_NAMES[:1])

    def __init__(self, model_input_name: str = _MODEL_INPUT_NAMES[0], **settings: Any) -> None:
        from .transforms import PROCESSOR_SETTINGS, ClipTransform

        if model_input_name not in _MODEL_INPUT_NAMES:
            allowed = " or ".join(map(repr, _MODEL_INPUT_NAMES))
            raise ValueError(f"model_input_name must be {allowed}, got {model_input_name!r}")
        transform = ClipTransform.from_dict(settings, type(self).__name__)
        # What steps that are left out would need stays known, for calls that ask for these steps.
        known = {name: settings[name] for name in PROCESSOR_SETTINGS if settings.get(name) is not None}
        super().__init__(**{**known, **transform.to_processor_settings()})
        self.model_input_names = [model_input_name]  # type: ignore[misc]  # transformers reads it of the instance

    @property
    def transform(self) -> ClipTransform:
        """The transform of a single clip, by the settings as they are now."""
        from .transforms import ClipTransform

        return ClipTransform.from_dict(self._settings(), type(self).__name__)

    def _settings(self) -> dict[str, Any]:
        from .transforms import PROCESSOR_SETTINGS

        return {name: vars(self)[name] for name in PROCESSOR_SETTINGS if vars(self).get(name) is not None}

    @classmethod
    def from_transform(cls, transform: ClipTransform, model_input_name: str = _MODEL_INPUT_NAMES[0]) -> ClipProcessor:
        """The processor that applies a transform to each clip.

        Args:
            transform: The transform, such as `ClipTransform.from_config(config)` for a checkpoint without a file.
            model_input_name: What the model calls its input: its `main_input_name`.

        Returns:
            The processor.
        """
        return cls(model_input_name, **transform.to_processor_settings())

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> ClipProcessor:
        """Reads the settings that were saved with a checkpoint, those of a video processor before others.

        Args:
            pretrained_model_name_or_path: A folder, a JSON file in it, or a model id on the Hub.
            revision: Branch, tag or commit on the Hub.
            cache_dir: Folder of downloads, if not the standard one.
            token: Hub token, or True for the stored one.
            local_files_only: Do not go to the network.
            **kwargs: Settings that replace those of the file; those that are None do not. All else is ignored, as in
                transformers: the Auto class and the pipeline hand their own through.

        Returns:
            The processor.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file or a setting cannot be understood.
        """
        from .transforms import PROCESSOR_SETTINGS, ClipTransform, load_processor_settings

        settings, source = load_processor_settings(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        changeable = ("model_input_name", *PROCESSOR_SETTINGS)
        settings |= {name: kwargs[name] for name in changeable if kwargs.get(name) is not None}
        ClipTransform.from_dict(settings, source)  # whose messages name the file
        return cls(**settings)

    def preprocess(
        self,
        images: Any,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
        **settings: Any,
    ) -> BatchFeature:
        """Transforms one clip or several.

        Args:
            images: The frames of a clip, or a list of clips of one length. A clip is a list of PIL images, or of uint8
                arrays or tensors (H, W, 3) or (3, H, W), or one uint8 array or tensor of such frames.
            return_tensors: "pt" or "np"; "pt" when None.
            device: Where to transform, such as "cuda"; where the frames are when None.
            **settings: Settings for this call alone, such as `do_normalize=False`; those of the processor when None.

        Returns:
            `pixel_values_videos`, or what the model calls it, (B, T, 3, h, w) float32; B is 1 for a clip that came
            alone.

        Raises:
            TypeError: If the frames are not uint8, or a setting is not known.
            ValueError: If there are none, they have another shape, the clips cannot be batched, or a setting is
                malformed.
        """
        from .transforms import PROCESSOR_SETTINGS, ClipTransform

        name = type(self).__name__
        for setting, value in settings.items():
            if setting not in PROCESSOR_SETTINGS:
                raise TypeError(f"{name} got {setting}={value!r}; it knows {', '.join(PROCESSOR_SETTINGS)}")
        changes = {setting: value for setting, value in settings.items() if value is not None}
        transform = ClipTransform.from_dict({**self._settings(), **changes}, name)
        clips = [transform(frames if device is None else frames.to(device)) for frames in _clips(images)]
        shapes = sorted({tuple(clip.shape) for clip in clips})
        if len(shapes) > 1:
            raise ValueError(
                "the clips must have equally many frames, and these one size after the transform, got "
                f"{' and '.join(map(str, shapes))} (frames, channels, height, width)"
            )
        return BatchFeature({self.model_input_names[0]: torch.stack(clips)}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are saved, JSON-safe."""
        name = self.model_input_names[0]
        named = {} if name == _MODEL_INPUT_NAMES[0] else {"model_input_name": name}
        return {**self._settings(), **named, "image_processor_type": type(self).__name__}


_ARRAYS = (np.ndarray, torch.Tensor)


def _clips(images: Any) -> list[torch.Tensor]:
    """The frames of each clip, (T, 3, H, W)."""
    if isinstance(images, _ARRAYS) and images.ndim in (4, 5):
        return [_frames(clip) for clip in (images[None] if images.ndim == 4 else images)]
    if isinstance(images, (list, tuple)) and images:
        if isinstance(images[0], (list, tuple)) or (isinstance(images[0], _ARRAYS) and images[0].ndim == 4):
            return [_frames(clip) for clip in images]
        return [_frames(images)]
    raise ValueError(f"images must be the frames of a clip or a list of clips, got {_described(images)}")


def _frames(clip: Any) -> torch.Tensor:
    """The frames of one clip, (T, 3, H, W)."""
    if isinstance(clip, (list, tuple)):
        if not clip:
            raise ValueError("a clip must have at least one frame, got none")
        # PIL images have modes other than RGB.
        frames: list[Any] = [np.asarray(one.convert("RGB")) if hasattr(one, "convert") else one for one in clip]
        odd = next((frame for frame in frames if not isinstance(frame, _ARRAYS) or frame.ndim != 3), None)
        if odd is not None:
            raise ValueError(
                f"a frame must be a PIL image, or an array or tensor of 3 dimensions, got {_described(odd)}"
            )
        shapes = sorted({tuple(frame.shape) for frame in frames})
        if len(shapes) > 1:
            raise ValueError(f"the frames of a clip must have one shape, got {' and '.join(map(str, shapes))}")
        tensors = all(isinstance(frame, torch.Tensor) for frame in frames)
        clip = torch.stack(frames) if tensors else np.stack([np.asarray(frame) for frame in frames])
    elif not isinstance(clip, _ARRAYS) or clip.ndim != 4:
        raise ValueError(
            f"a clip must be a list of frames, or an array or tensor of 4 dimensions, got {_described(clip)}"
        )
    if clip.dtype not in (np.uint8, torch.uint8):
        raise TypeError(f"frames must hold uint8 values, 0 to 255, got {clip.dtype}")
    if isinstance(clip, np.ndarray):
        clip = torch.from_numpy(clip.copy())  # torch takes neither negative strides nor memory that is read-only
    if 3 not in (clip.shape[1], clip.shape[3]) or 0 in clip.shape:
        raise ValueError(f"frames must have the shape (H, W, 3) or (3, H, W), got {tuple(clip.shape[1:])}")
    return clip.permute(0, 3, 1, 2) if clip.shape[3] == 3 else clip


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__} of shape {tuple(shape)}" if shape is not None else repr(value)
