"""Threshold of an input stage in the units of a processor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..merging.values import is_between, shown
from .transforms import ClipTransform


def input_threshold(processor: Any, grey_levels: float = 5.8) -> float:
    """Returns the value of `token_merging_input_threshold` for a change in grey levels.

    The same change of a video is another number after each normalisation. 5.8 of 255 is the default of "Don't Look
    Twice: Faster Video Transformers with Run-Length Tokenization" (0.1 with the mean and deviation of ImageNet).

    Args:
        processor: A `ClipTransform`, a processor of transformers, its settings as a dictionary, or a checkpoint as for
            `ClipTransform.from_pretrained`.
        grey_levels: Mean absolute change of the pixels of a tubelet above which it is kept, from 0 to 255.

    Returns:
        The same change in normalised pixels, for the mean standard deviation of the three channels.

    Raises:
        ValueError: If `grey_levels` is not in 0 to 255.

    Examples:
        >>> round(input_threshold(ClipTransform()), 3)
        0.101
        >>> input_threshold({"image_processor_type": "VivitImageProcessor"}, 255 / 4)
        1.0
    """
    if not is_between(grey_levels, 0, 255):
        raise ValueError(f"grey_levels must be a number in 0 to 255, got {shown(grey_levels)}")
    transform = _transform_of(processor)
    deviation = 1.0 if transform.std is None else sum(transform.std) / len(transform.std)
    return grey_levels * abs(transform.rescale_factor) / deviation


def _transform_of(processor: Any) -> ClipTransform:
    if isinstance(processor, ClipTransform):
        return processor
    if isinstance(processor, (str, os.PathLike)):
        return ClipTransform.from_pretrained(processor)
    return ClipTransform.from_dict(processor if isinstance(processor, Mapping) else processor.to_dict())
