"""Checks that clips fit a checkpoint."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def check_pixel_values(
    pixel_values: Tensor | None,
    config: Any,
    any_size: bool = False,
    any_frames: bool = False,
    name: str = "pixel_values",
) -> None:
    """Checks that clips fit the checkpoint.

    Args:
        pixel_values: (B, T, C, H, W).
        config: Config of the model, with the expected shape.
        any_size: Whether any height and width is allowed, because position embeddings are interpolated.
        any_frames: Whether any number of frames, at least 1, is allowed.
        name: Name of the argument with the clips.

    Raises:
        ValueError: If they do not fit; the message has the expected and the actual shape.
    """
    if pixel_values is None:
        raise ValueError(f"{name} must be given: a tensor of shape (batch, frames, channels, height, width)")
    if any_frames and pixel_values.ndim == 5 and pixel_values.shape[1] == 0:
        raise ValueError(f"{name} must have at least 1 frame, got 0 in shape {tuple(pixel_values.shape)}")
    expected = config.clip_shape._asdict()
    if any_size and pixel_values.ndim == 5:
        expected |= {"height": pixel_values.shape[3], "width": pixel_values.shape[4]}
    if any_frames and pixel_values.ndim == 5:
        expected |= {"frames": pixel_values.shape[1]}
    wanted = ", ".join(f"{axis}={value}" for axis, value in expected.items())
    if pixel_values.ndim != 5:
        raise ValueError(
            f"{name} must have 5 dimensions (batch, {wanted}) for this {config.model_type} checkpoint, "
            f"got shape {tuple(pixel_values.shape)}"
        )
    wrong = [
        f"{axis}={actual}"
        for (axis, value), actual in zip(expected.items(), pixel_values.shape[1:], strict=True)
        if actual != value
    ]
    if wrong:
        raise ValueError(
            f"{name} do not fit this {config.model_type} checkpoint: it expects {wanted}, "
            f"got {', '.join(wrong)} in shape {tuple(pixel_values.shape)}"
        )
