"""Pixels of each merged token, and pictures of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch

from ..configuration import TokenMergingConfigMixin
from ..data.transforms import ClipTransform
from ..merging.layout import TokenLayout
from ..merging.trace import TokenMergingTrace
from .colours import token_colours

DROPPED = -1
"""Entry of a token map for dropped tokens."""

FILLS = ("mean", "pixels", "distinct")
"""Ways to fill a token: with its mean colour, its original pixels, or a distinct colour."""

_HATCH_DARK, _HATCH_LIGHT = 44, 112  # grey levels, 0 to 255
_SINGLE_OUTLINE, _MERGED_OUTLINE = 16, 240
_CONTRAST, _SHIFT = 16, 48  # minimum contrast between an outline and its token, and the shift that ensures it
_DIMMED, _DIMMED_BLACK = 0.3, 24.0  # contrast and darkest grey of dimmed tokens


class ClipGeometry(NamedTuple):
    """Geometry of the tokens of a clip in time and space.

    Attributes:
        layout: Token layout of a clip.
        rows: Number of patches along the height of a frame.
        columns: Number of patches along the width of a frame.

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
        """Returns the geometry of a model's clips.

        Args:
            config: The config of a model that can merge tokens.

        Returns:
            The geometry.
        """
        num_slots, rows, columns = config.tubelet_grid(config.clip_shape)
        layout = config.token_layout
        if layout.num_patches != rows * columns:
            # A head that reads patch 0 (VideoMAE without mean pooling) protects it like a CLS token; it shows a patch.
            layout = TokenLayout(0, num_slots, rows * columns, num_columns=columns)
        return cls(layout, rows, columns)

    def check(self, trace: TokenMergingTrace, frames: torch.Tensor) -> None:
        """Checks that a trace and frames fit the geometry.

        Raises:
            ValueError: If one of them does not.
        """
        num_tokens = trace.sources.shape[1]
        if num_tokens != self.layout.num_tokens or self.layout.num_patches != self.rows * self.columns:
            raise ValueError(
                f"trace must be of {self.layout.num_tokens} tokens ({self.layout.num_frames} slots of {self.rows} x "
                f"{self.columns} patches and {self.layout.num_prefix_tokens} others), got {num_tokens}"
            )
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.dtype != torch.uint8:
            raise ValueError(
                f"frames must be uint8 of shape (T, 3, H, W), got {frames.dtype} of shape {tuple(frames.shape)}"
            )
        num_frames, _, height, width = frames.shape
        if num_frames % self.layout.num_frames or height % self.rows or width % self.columns:
            raise ValueError(
                f"frames must be divisible into {self.layout.num_frames} slots of {self.rows} x {self.columns} "
                f"patches, got {num_frames} frames of {height} x {width} pixels"
            )

    def outline(self, frames: torch.Tensor, scale: int) -> int:
        """Returns a width of outlines that hides little of a patch.

        Args:
            frames: (T, 3, H, W) frames of the clip.
            scale: Size of a frame pixel in the picture.

        Returns:
            Pixels of the picture, 1 to 4.

        Examples:
            >>> geometry = ClipGeometry(TokenLayout(0, num_frames=8, num_patches=196), rows=14, columns=14)
            >>> [geometry.outline(torch.zeros(8, 3, 224, 224), scale) for scale in (1, 2, 3)]
            [1, 2, 4]
        """
        return max(1, min(self.patch_size(frames, scale) // 12, 4))

    def patch_size(self, frames: torch.Tensor, scale: int) -> int:
        """Returns the shorter side of a patch in the picture.

        Args:
            frames: (T, 3, H, W) frames of the clip.
            scale: Size of a frame pixel in the picture.

        Returns:
            Pixels of the picture.

        Examples:
            >>> geometry = ClipGeometry(TokenLayout(0, num_frames=8, num_patches=196), rows=14, columns=14)
            >>> geometry.patch_size(torch.zeros(8, 3, 224, 224), scale=2)
            32
        """
        return scale * min(frames.shape[2] // self.rows, frames.shape[3] // self.columns)


def token_map(trace: TokenMergingTrace, layout: TokenLayout, *, layer: int = -1, sample: int = 0) -> np.ndarray:
    """Returns the map from the patches of a clip to tokens.

    Args:
        trace: Trace of a model.
        layout: Token layout of a clip.
        layer: Index of the hidden states: -1 after the last layer, 0 before the first.
        sample: Index of the clip in the batch.

    Returns:
        (T, P) int64, position in the sequence of the token that holds patch p of frame t, -1 if dropped.

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
    """Returns the frames as a model sees them, resized and cropped but not normalised.

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
    fill: str = "mean",
    only: Collection[int] | None = None,
    shown: Sequence[int] | None = None,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Draws the tokens of a clip; each fills all of its patches, in all frames.

    There are no lines inside a token. A token in several frames has an outline of the same distinct colour in all of
    them, so that it can be followed through the clip. A token merged within a frame (or tubelet) has a light outline,
    and a token of a single patch a dark one. Dropped tokens are hatched in grey.

    Args:
        frames: (T, 3, H, W) uint8 RGB frames as the model saw them (see `model_view`).
        trace: Trace of the model.
        geometry: Geometry of the tokens of the clip.
        layer: Index of the hidden states to draw: -1 after the last layer, 0 before the first.
        sample: Index of the clip in the batch of the trace.
        scale: Size of a frame pixel in the picture, for small frames.
        outline: Width of outlines in pixels of the picture, at most half of a patch; 0 for none.
        fill: "mean", the mean colour of all pixels of the token; "pixels", the original frames; or "distinct", a
            colour for each token that differs from its neighbours (then all outlines are dark).
        only: Tokens to highlight with distinct outlines, as positions in the sequence of the layer; all others are
            dimmed. None for all.
        shown: Indices of the frames to draw; all when None. Mean colours always cover all frames.
        colours: (N, 3) uint8, result of `identity_colours` for the layer, to save time for many pictures; computed
            when None.

    Returns:
        (T, H * scale, W * scale, 3) uint8 RGB, one picture per frame.

    Raises:
        ValueError: If frames, trace and geometry do not fit each other, or an argument is not as described.

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
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(map(repr, FILLS))}, got {fill!r}")
    for name, number, least in (("scale", scale, 1), ("outline", outline, 0)):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    widest = max(1, geometry.patch_size(frames, scale) // 2)
    if outline > widest:
        raise ValueError(f"outline must be at most {widest} (half of a patch as drawn), got {outline}")
    num_frames, _, height, width = frames.shape
    slots, rows, columns = geometry.layout.num_frames, geometry.rows, geometry.columns
    patch = (num_frames // slots, height // rows, width // columns)
    chosen = range(num_frames) if shown is None else shown

    tokens = token_map(trace, geometry.layout, layer=layer, sample=sample).reshape(slots, rows, columns)
    for token in () if only is None else only:
        if not (tokens == token).any():
            raise ValueError(f"only must be of tokens that hold a patch of the clip, got {token}")

    pixels = frames.permute(0, 2, 3, 1).cpu().numpy()
    owner = tokens[[frame // patch[0] for frame in chosen]].repeat(patch[1] * scale, 1).repeat(patch[2] * scale, 2)
    if colours is None and (fill == "distinct" or outline):
        colours = identity_colours(trace, geometry, sample=sample)[layer]
    means = _mean_colours(pixels, tokens, patch)
    if fill == "pixels":
        image = pixels[list(chosen)].repeat(scale, 1).repeat(scale, 2)
    else:
        inside = colours if fill == "distinct" else None
        image = (means if inside is None else inside)[owner.clip(0)]

    dropped = owner == DROPPED
    if only is not None:
        rest = ~np.isin(owner, list(only))
        source = pixels[list(chosen)].repeat(scale, 1).repeat(scale, 2)[rest]
        image[rest] = np.rint(source.mean(axis=-1, keepdims=True) * _DIMMED + _DIMMED_BLACK).astype(np.uint8)
    elif dropped.any():
        hatching = _hatching(owner.shape[1:], period=max(4, scale * patch[1] // 3))
        image[dropped] = np.broadcast_to(hatching, image.shape)[dropped]
    if outline and colours is not None:
        border = _border(owner, outline) & ~(dropped if only is None else rest)
        if only is not None:
            lines = colours
        elif fill == "distinct":
            lines = np.full_like(colours, _SINGLE_OUTLINE)
        else:
            lines = _outline_colours(tokens, colours, means)
        image[border] = lines[owner[border]]
    return image


def _mean_colours(pixels: np.ndarray, tokens: np.ndarray, patch: tuple[int, int, int]) -> np.ndarray:
    """Computes the mean colour of each token: (N, 3) uint8 from (T, H, W, 3) uint8 and a map (S, rows, columns)."""
    slots, rows, columns = tokens.shape
    sums = pixels.reshape(slots, patch[0], rows, patch[1], columns, patch[2], 3).sum(axis=(1, 3, 5), dtype=np.int64)
    held = tokens >= 0
    num_tokens = int(tokens.max(initial=-1)) + 1
    area = np.bincount(tokens[held], minlength=num_tokens) * np.prod(patch)
    totals = np.stack([np.bincount(tokens[held], sums[..., c][held], num_tokens) for c in range(3)], axis=1)
    return np.rint(totals / np.maximum(area, 1)[:, None]).astype(np.uint8)


def identity_colours(trace: TokenMergingTrace, geometry: ClipGeometry, *, sample: int = 0) -> list[np.ndarray]:
    """Assigns a colour to each token of each layer, the same in all frames; see `token_colours`.

    Args:
        trace: Trace of a model.
        geometry: Geometry of the tokens of the clip.
        sample: Index of the clip in the batch of the trace.

    Returns:
        L + 1 arrays (N_i, 3) uint8 RGB.

    Examples:
        >>> trace = TokenMergingTrace((torch.tensor([[0, 1, 0, 2]]),), (torch.tensor([[2.0, 1.0, 1.0]]),))
        >>> geometry = ClipGeometry(TokenLayout(0, num_frames=2, num_patches=2), rows=1, columns=2)
        >>> [colours.shape for colours in identity_colours(trace, geometry)]
        [(3, 3)]
    """
    shape = (geometry.layout.num_frames, geometry.rows, geometry.columns)
    layers = range(len(trace.layer_sources))
    return token_colours(
        [token_map(trace, geometry.layout, layer=layer, sample=sample).reshape(shape) for layer in layers]
    )


def count_places(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts the patches of each token, and the frames (or tubelets along time) that contain it.

    Args:
        tokens: (S, ...) int64 map from patches to tokens, -1 if dropped.

    Returns:
        Two (N,) int64 arrays by token, where N is one more than the largest token of the map.

    Examples:
        >>> places, slots = count_places(np.array([[0, 0, 1], [0, -1, 1]]))
        >>> places.tolist(), slots.tolist()
        ([3, 2], [2, 2])
    """
    places = np.bincount(tokens[tokens >= 0])
    slots = np.zeros_like(places)
    for slot in tokens:
        slots[np.unique(slot[slot >= 0])] += 1
    return places, slots


def _hatching(size: tuple[int, ...], period: int) -> np.ndarray:
    """Draws grey diagonal stripes: (H, W, 3) uint8."""
    rows, columns = np.indices(size)
    stripes = np.where((rows + columns) % period < period / 2, _HATCH_DARK, _HATCH_LIGHT)
    return stripes.astype(np.uint8)[..., None].repeat(3, axis=2)


def _border(owner: np.ndarray, width: int) -> np.ndarray:
    """Finds pixels within `width` of another token, including corners, or of the frame's edge: (T, H, W) bool."""
    lowest = highest = np.pad(owner, ((0, 0), (width, width), (width, width)), constant_values=DROPPED - 1)
    for axis in (1, 2):
        size = owner.shape[axis]
        windows = [(*[slice(None)] * axis, slice(start, start + size)) for start in range(2 * width + 1)]
        lowest = reduce(np.minimum, [lowest[window] for window in windows])
        highest = reduce(np.maximum, [highest[window] for window in windows])
    return lowest != highest


def _outline_colours(tokens: np.ndarray, identity: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Returns the outline colour of each token: distinct if it spans several frames, else light if merged, else dark.

    Around very light (snow) or very dark (night) tokens, it is shifted to remain visible.
    """
    patches, slots = count_places(tokens)
    colours = identity[: len(patches)].copy()
    grey = means[: len(patches)].mean(axis=1)
    light = np.where(grey > _MERGED_OUTLINE - _CONTRAST, grey - _SHIFT, _MERGED_OUTLINE)
    dark = np.where(grey < _SINGLE_OUTLINE + _CONTRAST, grey + _SHIFT, _SINGLE_OUTLINE)
    for chosen, level in ((slots <= 1, light), (patches <= 1, dark)):
        colours[chosen] = np.rint(level[chosen, None])
    return colours
