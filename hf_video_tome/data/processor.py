"""Video and image processor for the pipeline, without torchvision."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from math import inf
from typing import Any, ClassVar

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.video_utils import load_video

from ..merging.values import is_between, shown
from ..saved_files import find_saved_files, read_json_object
from .processor_settings import PROCESSOR_SETTINGS, load_processor_settings
from .transforms import ClipTransform
from .usual_inputs import USUAL_INPUTS

_INPUT_NAMES = ("pixel_values_videos", "pixel_values")


class ClipProcessor(BaseImageProcessor):
    """Processor from video files or decoded frames to model inputs, without torchvision.

    Wraps a `ClipTransform` for transformers: `pipeline(..., video_processor=ClipProcessor.from_pretrained(path))`. The
    video processors of transformers need torchvision; this one reads their files and those of image processors, and
    gives the same results. It also stands in for the image processors that V-JEPA 2 and VideoPrism lack, and supports
    a step that transformers does not have (`subtract_mean_frame`).

    Args:
        model_input_name: Name of the model input: `"pixel_values_videos"` (V-JEPA 2, VideoPrism) or `"pixel_values"`.
        **settings: Settings of a transformers processor, such as `size`, `crop_size` and `image_mean`: see
            `ClipTransform.from_dict`. The number of frames to sample is not kept: it is an argument of each call.

    Raises:
        ValueError: If a setting is missing, malformed or asks for an unsupported step.

    Examples:
        >>> from hf_video_tome.data.transforms import ClipTransform
        >>> processor = ClipProcessor.from_transform(ClipTransform(resize=36, crop=(32, 32)))
        >>> frames = [np.zeros((48, 64, 3), dtype=np.uint8)] * 16
        >>> processor(frames, return_tensors="pt")["pixel_values_videos"].shape
        torch.Size([1, 16, 3, 32, 32])
    """

    model_input_names: ClassVar[list[str]] = list(_INPUT_NAMES[:1])

    def __init__(self, model_input_name: str = _INPUT_NAMES[0], **settings: Any) -> None:
        if model_input_name not in _INPUT_NAMES:
            allowed = " or ".join(map(repr, _INPUT_NAMES))
            raise ValueError(f"model_input_name must be {allowed}, got {model_input_name!r}")
        _check_sampling(settings.get("num_frames"), settings.get("do_sample_frames"))
        transform = ClipTransform.from_dict(settings, type(self).__name__)
        # Settings of disabled steps are kept for calls that enable them.
        super().__init__(**{**_given(settings), **transform.to_processor_settings()})
        self.model_input_names = [model_input_name]  # type: ignore[misc]  # transformers reads it of the instance

    @property
    def transform(self) -> ClipTransform:
        """The transform of a single clip, with the current settings."""
        return ClipTransform.from_dict(_given(vars(self)), type(self).__name__)

    @classmethod
    def from_transform(cls, transform: ClipTransform, model_input_name: str = _INPUT_NAMES[0]) -> ClipProcessor:
        """Builds a processor that applies a transform to each clip.

        Args:
            transform: The transform, such as `ClipTransform.from_config(config)` for a checkpoint without a file.
            model_input_name: Name of the model input: its `main_input_name`.

        Returns:
            The processor.
        """
        return cls(model_input_name, **transform.to_processor_settings())

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> ClipProcessor:
        """Loads the processor saved with a checkpoint; a video processor is preferred to an image processor.

        If the settings do not name the model input, it follows from the checkpoint's `config.json`.

        Args:
            pretrained_model_name_or_path: A folder, a JSON file in it, or a model id on the Hub.
            **kwargs: Hub options (`revision`, `cache_dir`, `token`, `local_files_only`), and settings that override
                those of the file unless None. Others are ignored, as in transformers: the Auto class and the pipeline
                pass their own arguments on.

        Returns:
            The processor.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file or a setting is invalid.
        """
        hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        settings, source = load_processor_settings(pretrained_model_name_or_path, **hub_options)
        settings |= _given(kwargs)
        ClipTransform.from_dict(settings, source)  # whose messages name the file
        saved = settings.pop("model_input_name", None)
        name = kwargs.get("model_input_name") or saved
        return cls(name or _saved_input_name(pretrained_model_name_or_path, hub_options), **settings)

    def preprocess(
        self,
        images: Any,
        return_tensors: str | None = None,
        device: str | torch.device | None = None,
        num_frames: int | None = None,
        do_sample_frames: bool | None = None,
        **settings: Any,
    ) -> BatchFeature:
        """Transforms one clip or several.

        Args:
            images: The path or URL of a video, the frames of a clip, or a list of either with clips of equal length.
                A clip is a list of PIL images, or of uint8 arrays or tensors (H, W, 3) or (3, H, W), or one uint8
                array or tensor of such frames.
            return_tensors: "pt" or "np"; None means "pt".
            device: Device of the transform, such as "cuda"; None keeps that of the frames.
            num_frames: Number of frames to sample evenly from the first frame on, as the video processors of
                transformers do; None takes all.
            do_sample_frames: False takes all frames, whatever `num_frames` is.
            **settings: Settings for this call only, such as `do_normalize=False`; None keeps the processor's.

        Returns:
            `pixel_values_videos` (or the model's name for it): (B, T, 3, h, w) float32; B is 1 for a single clip.

        Raises:
            TypeError: If the frames are not uint8, a path does not exist, or a setting is unknown.
            ValueError: If there are no frames or fewer than `num_frames`, their shape is wrong, the clips cannot be
                batched, or a setting is malformed.
        """
        _check_sampling(num_frames, do_sample_frames)
        name = type(self).__name__
        for setting, value in settings.items():
            if setting not in PROCESSOR_SETTINGS:
                raise TypeError(f"{name} got {setting}={value!r}; it knows {', '.join(PROCESSOR_SETTINGS)}")
        transform = ClipTransform.from_dict({**_given(vars(self)), **_given(settings)}, name)
        chosen = None if do_sample_frames is False else num_frames
        clips = [transform(frames if device is None else frames.to(device)) for frames in _clips(images, chosen)]
        shapes = sorted({tuple(clip.shape) for clip in clips})
        if len(shapes) > 1:
            raise ValueError(
                "clips must have the same number of frames and the same size after the transform, got "
                f"{' and '.join(map(str, shapes))} (frames, channels, height, width)"
            )
        return BatchFeature({self.model_input_names[0]: torch.stack(clips)}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as saved, JSON-safe."""
        name = self.model_input_names[0]
        named = {} if name == _INPUT_NAMES[0] else {"model_input_name": name}
        return {**_given(vars(self)), **named, "image_processor_type": type(self).__name__}


_HUB_OPTIONS = ("revision", "cache_dir", "token", "local_files_only")
_ARRAYS = (np.ndarray, torch.Tensor)
_PATHS = (str, os.PathLike)


def _check_sampling(num_frames: Any, do_sample_frames: Any) -> None:
    """Checks the settings of frame sampling, which may also come from a file."""
    if num_frames is not None and not (isinstance(num_frames, numbers.Integral) and is_between(num_frames, 1, inf)):
        raise ValueError(f"num_frames must be an int of at least 1, or None for all frames, got {shown(num_frames)}")
    if do_sample_frames is not None and not isinstance(do_sample_frames, bool):
        raise ValueError(f"do_sample_frames must be True, False or None, got {shown(do_sample_frames)}")


def _saved_input_name(name_or_path: str | os.PathLike[str], hub_options: Mapping[str, Any]) -> str:
    """Returns the name of the model input of a checkpoint."""
    folder = os.path.dirname(name_or_path) if os.path.isfile(name_or_path) else name_or_path
    for file in find_saved_files(folder, ["config.json"], **hub_options):
        usual = USUAL_INPUTS.get(str(read_json_object(file).get("model_type")))
        if usual is not None:
            return usual.model_input_name
    return _INPUT_NAMES[0]


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the processor settings among `settings` that are not None."""
    return {name: settings[name] for name in PROCESSOR_SETTINGS if settings.get(name) is not None}


def _clips(videos: Any, num_frames: int | None) -> list[torch.Tensor]:
    """Returns the frames of each clip, (T, 3, H, W)."""
    if isinstance(videos, _PATHS) or (isinstance(videos, _ARRAYS) and videos.ndim == 4):
        videos = [videos]
    elif isinstance(videos, (list, tuple)) and videos:
        first = videos[0]
        if not isinstance(first, (list, tuple, *_PATHS)) and not (isinstance(first, _ARRAYS) and first.ndim == 4):
            videos = [videos]
    elif not isinstance(videos, _ARRAYS) or videos.ndim != 5:
        raise ValueError(f"images must be a video, the frames of a clip or a list of either, got {_described(videos)}")
    return [_sampled(video, num_frames) for video in videos]


def _sampled(video: Any, num_frames: int | None) -> torch.Tensor:
    """Returns `num_frames` frames of one clip (all if None), (T, 3, H, W)."""
    if isinstance(video, _PATHS):
        return _frames(load_video(os.fspath(video), num_frames=num_frames)[0])
    frames = _frames(video)
    if num_frames is None:
        return frames
    if num_frames > len(frames):
        raise ValueError(f"num_frames must be at most the {len(frames)} of the clip, got {num_frames}")
    return frames[torch.arange(num_frames) * len(frames) // num_frames]


def _frames(clip: Any) -> torch.Tensor:
    """Returns the frames of one clip, (T, 3, H, W)."""
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
