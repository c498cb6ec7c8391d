"""Which pixels each merged token stands for, and pictures of that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..configuration import TokenMergingConfigMixin, image_grid
from ..data.transforms import ClipTransform
from ..merging import TokenLayout, TokenMergingTrace

DROPPED = -1
"""Entry of a token map where the original token was dropped."""

_HATCH_DARK, _HATCH_LIGHT = 52, 84  # grey levels, 0 to 255
_SINGLE_OUTLINE = 40
# Steps of the golden ratio around the colour wheel keep the hues of any number of tokens apart.
_GOLDEN_RATIO = 0.6180339887498949


class ClipGeometry(NamedTuple):
    """How the tokens of a clip lie in time and space.

    Attributes:
        layout: Where they lie in the sequence.
        rows: Patches along the height of a frame.
        columns: Patches along the width of a frame.

    Examples:
        >>> from hf_video_tome import VivitConfig
        >>> geometry = ClipGeometry.from_config(VivitConfig())
        >>> geometry.layout.num_frames, geometry.rows, geometry.columns
        (16, 14, 14)
    """

    layout: TokenLayout
    rows: int
    columns: int

    @classmethod
    def from_config(cls, config: TokenMergingConfigMixin) -> ClipGeometry:
        """The geometry of a model's clips.

        Args:
            config: The config of a model that can merge tokens.

        Returns:
            The geometry.
        """
        settings: Any = config
        tubelet = getattr(settings, "tubelet_size", 1)
        depth, patch_size = (
            (tubelet[0], tubelet[1:]) if not isinstance(tubelet, int) else (tubelet, settings.patch_size)
        )
        shape = config.clip_shape
        rows, columns = image_grid(
            (shape.height, shape.width), tuple(patch_size) if not isinstance(patch_size, int) else patch_size
        )
        layout = config.token_layout
        if layout.num_patches != rows * columns:
            # A head that reads patch 0 (VideoMAE without mean pooling) protects it like a CLS token; it shows a patch.
            layout = TokenLayout(0, shape.frames // depth, rows * columns)
        return cls(layout, rows, columns)

    def check(self, trace: TokenMergingTrace, frames: torch.Tensor) -> None:
        """Refuses a trace or frames of another shape.

        Raises:
            ValueError: Naming what does not fit.
        """
        num_tokens = trace.sources.shape[1]
        if num_tokens != self.layout.num_tokens or self.layout.num_patches != self.rows * self.columns:
            raise ValueError(
                f"`trace` must be of {self.layout.num_tokens} tokens ({self.layout.num_frames} slots of {self.rows} x "
                f"{self.columns} patches and {self.layout.num_prefix_tokens} others), got {num_tokens}"
            )
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(
                f"`frames` must be uint8 of shape (T, 3, H, W), got {frames.dtype} of shape {tuple(frames.shape)}"
            )
        num_frames, _, height, width = frames.shape
        if num_frames % self.layout.num_frames or height % self.rows or width % self.columns:
            raise ValueError(
                f"`frames` must be divisible into {self.layout.num_frames} slots of {self.rows} x {self.columns} "
                f"patches, got {num_frames} frames of {height} x {width} pixels"
            )


def token_map(trace: TokenMergingTrace, layout: TokenLayout, *, layer: int = -1, sample: int = 0) -> np.ndarray:
    """Says for each place of a clip which token holds it.

    Args:
        trace: What a model returned for `output_token_merging=True`.
        layout: Where the tokens of a clip lie in the sequence.
        layer: Index of the hidden states to look at: -1 after the last layer, 0 before the first.
        sample: Which clip of the batch.

    Returns:
        (T, P) int64: the position in the sequence of the token that holds patch p of slot t, -1 where it was dropped.

    Examples:
        >>> trace = TokenMergingTrace((torch.tensor([[0, 1, 2, 1, -1]]),), (torch.ones(1, 3),))
        >>> token_map(trace, TokenLayout(num_prefix_tokens=1, num_frames=2, num_patches=2)).tolist()
        [[1, 2], [1, -1]]
    """
    patches = trace.layer_sources[layer][sample, layout.num_prefix_tokens :].cpu()
    if layout.patch_major:
        return patches.view(layout.num_patches, layout.num_frames).T.numpy()
    return patches.view(layout.num_frames, layout.num_patches).numpy()


def model_view(frames: torch.Tensor, transform: ClipTransform) -> torch.Tensor:
    """What a model sees of a clip, in colours that people can look at: resized and cropped, not normalised.

    Args:
        frames: (T, 3, H, W) uint8 frames.
        transform: The transform of the model.

    Returns:
        (T, 3, h, w) uint8.

    Examples:
        >>> model_view(torch.zeros(2, 3, 48, 64, dtype=torch.uint8), ClipTransform(resize=32, crop=(32, 32))).shape
        torch.Size([2, 3, 32, 32])
    """
    plain = replace(transform, rescale_factor=1.0, rescale_offset=0.0, mean=None, std=None)
    return plain(frames).to(torch.uint8)


def merged_tokens_image(
    frames: torch.Tensor,
    trace: TokenMergingTrace,
    geometry: ClipGeometry,
    *,
    layer: int = -1,
    sample: int = 0,
    scale: int = 1,
    outline: int = 1,
) -> np.ndarray:
    """Draws the tokens of a clip: each fills all that it stands for, over all frames, with its mean colour.

    Parts of a frame that belong to the same token have no line between them. A token that stands for more than one
    patch has an outline in a colour of its own, the same in all frames, so that it can be followed through the clip;
    one that stands for a single patch has a dark outline. What was dropped is hatched in grey.

    Args:
        frames: (T, 3, H, W) uint8 RGB frames as the model saw them (see `model_view`).
        trace: What the model returned for `output_token_merging=True`.
        geometry: How the tokens lie in the clip.
        layer: Index of the hidden states to draw: -1 after the last layer, 0 before the first.
        sample: Which clip of the trace's batch the frames are.
        scale: Size of a pixel of the frame in the picture, for small frames.
        outline: Width of the outlines in pixels of the picture; 0 for none.

    Returns:
        (T, H * scale, W * scale, 3) uint8 RGB: one picture per frame.

    Raises:
        ValueError: If frames, trace and geometry do not fit each other.

    Examples:
        >>> frames = torch.zeros(2, 3, 4, 8, dtype=torch.uint8)
        >>> frames[1] = 200
        >>> trace = TokenMergingTrace((torch.tensor([[0, 1, 0, 2]]),), (torch.tensor([[2.0, 1.0, 1.0]]),))
        >>> geometry = ClipGeometry(TokenLayout(0, num_frames=2, num_patches=2), rows=1, columns=2)
        >>> image = merged_tokens_image(frames, trace, geometry, outline=0)
        >>> image[:, 0, 0, 0].tolist(), image[:, 0, 7, 0].tolist()
        ([100, 100], [0, 200])
    """
    geometry.check(trace, frames)
    tokens = token_map(trace, geometry.layout, layer=layer, sample=sample)
    grid = tokens.reshape(-1, geometry.rows, geometry.columns)
    pixels = frames.permute(0, 2, 3, 1).cpu().numpy()
    num_frames, height, width = pixels.shape[:3]
    owner = (
        grid.repeat(num_frames // len(grid), 0).repeat(height // geometry.rows, 1).repeat(width // geometry.columns, 2)
    )

    num_tokens = int(tokens.max(initial=0)) + 1
    flat = owner.reshape(-1)
    held = flat >= 0
    area = np.bincount(flat[held], minlength=num_tokens)
    colours = (
        np.stack([np.bincount(flat[held], pixels[..., c].reshape(-1)[held], num_tokens) for c in range(3)], axis=1)
        / np.maximum(area, 1)[:, None]
    )
    colours = np.rint(colours).astype(np.uint8)

    owner = owner.repeat(scale, 1).repeat(scale, 2)
    image = colours[owner.clip(0)]
    image[owner == DROPPED] = _hatching(owner.shape[1:], period=max(4, scale * height // geometry.rows // 4))[
        None
    ].repeat(num_frames, 0)[owner == DROPPED]
    if outline:
        patches = np.bincount(tokens[tokens >= 0], minlength=num_tokens)
        border = _border(owner, outline) & (owner != DROPPED)
        image[border] = _outline_colours(patches)[owner[border]]
    return image


def _hatching(size: tuple[int, ...], period: int) -> np.ndarray:
    """Grey diagonal stripes: (H, W, 3) uint8."""
    rows, columns = np.indices(size)
    stripes = np.where((rows + columns) % period < period / 2, _HATCH_DARK, _HATCH_LIGHT)
    return stripes.astype(np.uint8)[..., None].repeat(3, axis=2)


def _border(owner: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` of one with another owner in the same frame, or of the frame's edge: (T, H, W) bool."""
    border = np.ones(owner.shape, dtype=bool)
    border[:, width:-width, width:-width] = False
    for axis in (1, 2):
        length = owner.shape[axis]
        for distance in range(1, min(width, length - 1) + 1):
            near, far = np.arange(length - distance), np.arange(distance, length)
            differs = owner.take(near, axis) != owner.take(far, axis)
            index: list[Any] = [slice(None)] * 3
            index[axis] = near
            border[tuple(index)] |= differs
            index[axis] = far
            border[tuple(index)] |= differs
    return border


def _outline_colours(patches: np.ndarray) -> np.ndarray:
    """Colours of outlines by token: bright and of spread hues where it stands for several patches, else dark grey."""
    hue = 6 * (np.arange(len(patches)) * _GOLDEN_RATIO % 1.0)
    pure = np.clip(np.abs((hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    colours = np.rint(255 * (0.25 + 0.75 * pure))
    colours[patches <= 1] = _SINGLE_OUTLINE
    return colours.astype(np.uint8)
