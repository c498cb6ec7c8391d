"""An image processor for the models whose processors in transformers need torchvision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

if TYPE_CHECKING:
    from .data.transforms import ClipTransform


class ClipProcessor(BaseImageProcessor):
    """Makes `pixel_values_videos` of decoded frames, without torchvision.

    For V-JEPA 2 and VideoPrism, for which transformers has video processors only, and those need torchvision. It reads
    their files and gives what they give, and takes their place where an image processor is asked for, as in the
    pipeline. The frames of a clip are chosen before.

    Args:
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

    model_input_names: ClassVar[list[str]] = ["pixel_values_videos"]

    def __init__(self, **settings: Any) -> None:
        from .data.transforms import ClipTransform

        self._transform = ClipTransform.from_dict(settings, type(self).__name__)
        super().__init__(**self._transform.to_processor_settings())

    @property
    def transform(self) -> ClipTransform:
        """The transform of a single clip."""
        return self._transform

    @classmethod
    def from_transform(cls, transform: ClipTransform) -> ClipProcessor:
        """The processor that applies a transform to each clip.

        Args:
            transform: The transform, such as `ClipTransform.from_config(config)` for a checkpoint without a file.

        Returns:
            The processor.
        """
        return cls(**transform.to_processor_settings())

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
            **kwargs: Not read: the Auto class and the pipeline hand their own through.

        Returns:
            The processor.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file cannot be understood.
        """
        from .data.transforms import ClipTransform

        transform = ClipTransform.from_pretrained(
            pretrained_model_name_or_path,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
        return cls.from_transform(transform)

    def preprocess(self, images: Any, return_tensors: str | None = None, **kwargs: Any) -> BatchFeature:
        """Transforms one clip or several.

        Args:
            images: The frames of a clip, or a list of clips. A clip is a list of PIL images, or of uint8 arrays or
                tensors (H, W, 3) or (3, H, W), or one uint8 array or tensor of such frames.
            return_tensors: "pt" or "np"; "pt" when None.
            **kwargs: Not read.

        Returns:
            `pixel_values_videos`, (B, T, 3, h, w) float32; B is 1 for a clip that came alone.

        Raises:
            TypeError: If the frames are not uint8.
            ValueError: If there are none, or they have another shape.
        """
        clips = [images] if _is_clip(images) else images
        if len(clips) == 0:
            raise ValueError(f"images must be the frames of a clip or a list of clips, got {images!r}")
        pixel_values = torch.stack([self._transform(_frames(clip)) for clip in clips])
        return BatchFeature({"pixel_values_videos": pixel_values}, tensor_type=return_tensors)

    def to_dict(self) -> dict[str, Any]:
        """The settings as they are saved, JSON-safe."""
        return {**self._transform.to_processor_settings(), "image_processor_type": type(self).__name__}


def _is_clip(images: Any) -> bool:
    """Whether these are the frames of one clip, rather than several clips."""
    if isinstance(images, Sequence):
        return len(images) > 0 and not isinstance(images[0], Sequence) and getattr(images[0], "ndim", 3) == 3
    return getattr(images, "ndim", 0) == 4


def _frames(clip: Any) -> torch.Tensor:
    """The frames of one clip, (T, 3, H, W)."""
    if isinstance(clip, Sequence) and isinstance(clip[0], torch.Tensor):
        clip = torch.stack(list(clip))
    elif isinstance(clip, Sequence):
        # PIL images have modes other than RGB.
        clip = np.stack([frame.convert("RGB") if hasattr(frame, "convert") else frame for frame in clip])
    clip = torch.as_tensor(clip)
    return clip.permute(0, 3, 1, 2) if clip.shape[-1] == 3 else clip
