"""Palette of a GIF: at most 256 colours."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

COLOURS = 256
_MOST = 1 << 16  # largest number of colours to choose from
# Weight of the area of a colour. With 1, thin outlines may get the colours behind them; with 0, the uniform colour of
# a large token counts no more than a speck of noise.
_AREA_POWER = 0.85
_ROUNDS = 3
_BLOCK = 1 << 14


def common_palette(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Chooses one palette for several pictures, so that still parts do not flicker.

    If there are more colours than a GIF supports, the group of colours with the largest variance is split repeatedly,
    followed by a few rounds of k-means. This keeps the mean colours of tokens apart, which the octree of Pillow may
    merge.

    Args:
        pictures: Pictures (H, W, 3) uint8 RGB.

    Returns:
        The palette, (N, 3) uint8 with N at most 256, and each picture as (H, W) uint8 indices of the nearest colour.

    Examples:
        >>> colours, (picture,) = common_palette([np.array([[[9, 9, 9], [200, 0, 0]]], np.uint8)])
        >>> colours[picture].tolist()
        [[[9, 9, 9], [200, 0, 0]]]
    """
    keys = [_keys(picture) for picture in pictures]
    counts = np.bincount(np.concatenate([key.ravel() for key in keys]), minlength=1 << 24)
    present = np.flatnonzero(counts)
    colours = np.stack([present >> 16, present >> 8 & 255, present & 255], axis=1)
    palette = colours if len(colours) <= COLOURS else _choose(*_coarser(colours, counts[present]))
    index = np.zeros(len(counts), dtype=np.uint8)
    index[present] = _nearest(colours, palette)
    return palette.astype(np.uint8), [index[key] for key in keys]


def _keys(picture: np.ndarray) -> np.ndarray:
    """Encodes colours as single numbers."""
    red, green, blue = (picture[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _coarser(colours: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Replaces similar colours by their mean, so that choosing takes about a second."""
    for shift in range(8):
        _, group = np.unique(_keys(colours >> shift), return_inverse=True)
        if group.max() < _MOST:
            break
    total = np.bincount(group, counts)
    means = np.stack([np.bincount(group, counts * colours[:, channel]) / total for channel in range(3)], axis=1)
    return means, total


def _choose(colours: np.ndarray, counts: np.ndarray) -> np.ndarray:
    weights = counts**_AREA_POWER
    groups = [_Group.of(np.arange(len(colours)), colours, weights)]
    while len(groups) < COLOURS:
        group = heapq.heappop(groups)
        low = colours[group.members, group.channel] <= group.mean[group.channel]
        for members in (group.members[low], group.members[~low]):
            heapq.heappush(groups, _Group.of(members, colours, weights))
    palette = np.stack([group.mean for group in groups])
    for _ in range(_ROUNDS):
        nearest = _nearest(colours, palette)
        total = np.bincount(nearest, weights, COLOURS)
        held = total > 0
        for channel in range(3):
            mean = np.bincount(nearest, weights * colours[:, channel], COLOURS)
            palette[held, channel] = mean[held] / total[held]
    return np.rint(palette)


@dataclass(frozen=True, order=True)
class _Group:
    """Group of colours with one palette entry; sorts by descending variance."""

    evenness: float
    first: int  # breaks ties, so that arrays are never compared
    members: np.ndarray = field(compare=False)
    mean: np.ndarray = field(compare=False)
    channel: int = field(compare=False)  # channel with the largest variance

    @classmethod
    def of(cls, members: np.ndarray, colours: np.ndarray, weights: np.ndarray) -> _Group:
        chosen, weight = colours[members], weights[members, None]
        mean = (weight * chosen).sum(axis=0) / weight.sum()
        spread = (weight * (chosen - mean) ** 2).sum(axis=0)
        return cls(-float(spread.sum()), int(members[0]), members, mean, int(spread.argmax()))


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Returns the index of the nearest palette colour."""
    colours, palette = colours.astype(np.float32), palette.astype(np.float32)
    squares = (palette**2).sum(axis=1)
    blocks = [colours[start : start + _BLOCK] for start in range(0, len(colours), _BLOCK)]
    return np.concatenate([(squares - 2 * block @ palette.T).argmin(axis=1) for block in blocks])
