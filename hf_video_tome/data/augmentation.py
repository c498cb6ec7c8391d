"""Random augmentation of clips for training: crops and mirroring."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .transforms import ClipTransform


@dataclass(frozen=True)
class ClipAugmentation:
    """Randomly augmented transform from the uint8 frames of one clip to a model's float input.

    Crops a random region, the same for all frames of the clip, resizes it to the output size of `transform` and
    normalises it likewise. Uses PyTorch's global generator, which a data loader seeds in each of its workers.

    Args:
        transform: The transform used for evaluation; its `output_size` must be known.
        min_area: Smallest area of the region, relative to the largest region with the output's aspect ratio that fits
            into the frame, above 0 and at most 1.
        max_stretch: Largest change of the region's aspect ratio, at least 1.
        flip: Probability of mirroring a clip horizontally: 0 if that changes its class (left and right turns,
            letters).

    Raises:
        ValueError: If a field is not as described.

    Examples:
        >>> transform = ClipTransform(resize=32, crop=(32, 32))
        >>> augment = ClipAugmentation(transform, min_area=0.5, flip=0.5)
        >>> augment(torch.zeros(16, 3, 48, 64, dtype=torch.uint8)).shape
        torch.Size([16, 3, 32, 32])
    """

    transform: ClipTransform
    min_area: float = 0.5
    max_stretch: float = 4 / 3
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.transform.output_size is None:
            raise ValueError(f"transform must make frames of one size, got {self.transform}")
        for name, low, high, allowed in (
            ("min_area", 1e-6, 1.0, "above 0 and at most 1"),
            ("max_stretch", 1.0, math.inf, "at least 1"),
            ("flip", 0.0, 1.0, "from 0 to 1"),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
                raise ValueError(f"{name} must be {allowed}, got {value!r}")

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Transforms one clip.

        Args:
            frames: (T, 3, H, W) uint8 RGB frames, 0 to 255.

        Returns:
            (T, 3, h, w) float32: one sample of `pixel_values`.

        Raises:
            TypeError: If `frames` is not a uint8 tensor.
            ValueError: If the shape is wrong or the clip is empty.
        """
        size = self.transform.output_size
        assert size is not None  # checked above
        height, width = frames.shape[-2:]
        area, stretch, y, x, mirror = torch.rand(5).tolist()
        # At most the largest region with the output's aspect ratio that fits into the frame.
        scale = min(height / size[0], width / size[1]) * math.sqrt(self.min_area + (1 - self.min_area) * area)
        ratio = self.max_stretch ** (stretch - 0.5)
        rows = min(height, max(1, round(size[0] * scale * ratio)))
        columns = min(width, max(1, round(size[1] * scale / ratio)))
        top, left = int(y * (height - rows + 1)), int(x * (width - columns + 1))
        part = frames[..., top : top + rows, left : left + columns]
        if mirror < self.flip:
            part = part.flip(-1)
        resized = ClipTransform(size, crop=None, mean=None, std=None, resample=self.transform.resample)
        return self.transform.normalize(resized.crop_views(part.contiguous())[0])
