"""Moving Digits: an offline benchmark for video classification, made of short clips of moving handwritten digits.

A clip shows one real handwritten digit (the *noun*, 10 classes) that undergoes one synthetic motion (the *verb*, 12
classes) on a textured background; the class of a clip is the *action*, their combination (120 classes). Ten of the
twelve verbs come in pairs that are exact time reversals of each other, so no single frame distinguishes the two: a
model has to use time.

The digits are the 8 x 8 glyphs of [scikit-learn's
`load_digits`](https://scikit-learn.org/stable/datasets/toy_dataset.html#digits-dataset), the test part of the UCI
*Optical Recognition of Handwritten Digits* dataset (E. Alpaydin and C. Kaynak, 1998, https://doi.org/10.24432/C50P49,
CC BY 4.0). Nothing is downloaded: scikit-learn ships them, and every clip is rendered on demand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from .video.encoding import write_video

VERSION = "1.0.0"
"""Version of the rendering: the same version, arguments and library versions give the same frames."""

VERBS: tuple[str, ...] = (
    "left",
    "right",
    "up",
    "down",
    "grow",
    "shrink",
    "turn_cw",
    "turn_ccw",
    "appear",
    "vanish",
    "shake",
    "stay",
)
"""The 12 motions. Neighbours (0, 1), (2, 3), ... (8, 9) are time reversals of each other."""

NOUNS: tuple[str, ...] = tuple(str(digit) for digit in range(10))
"""The 10 digits."""

ACTIONS: tuple[str, ...] = tuple(f"{verb} {noun}" for verb in VERBS for noun in NOUNS)
"""The 120 class names, `"{verb} {noun}"`; the class index is `verb * 10 + noun`."""

REVERSED_VERB: MappingProxyType[str, str] = MappingProxyType(
    {verb: VERBS[index ^ 1] if index < 10 else verb for index, verb in enumerate(VERBS)}
)
"""The verb of a clip played backwards; `"shake"` and `"stay"` map to themselves."""

SPLITS: MappingProxyType[str, range] = MappingProxyType(
    {"train": range(0, 1250), "validation": range(1250, 1350), "test": range(1350, 1797)}
)
"""The glyphs of `load_digits` used by each split; the splits are disjoint."""

_SPLIT_IDS = MappingProxyType({"train": 0, "validation": 1, "test": 2})
# 77 has no factor in common with 120, so multiplying by it permutes the classes: consecutive clips differ in verb and
# in noun.
_CLASS_STRIDE = 77
# Lengths below are given for a frame of 64 pixels and scale with the frame size.
_REFERENCE_SIZE = 64
_SPRITE_SIZE = 34.0
_GLYPH_RESOLUTION = 40
_FADE_WIDTH = 0.12


@dataclass(frozen=True)
class MovingDigitsConfig:
    """Rendering and encoding parameters of clips.

    Use one of `VARIANTS`, or change one with `dataclasses.replace`.

    Attributes:
        size: Height and width of a frame in pixels, even.
        num_frames: Frames in a clip.
        fps: Frames per second of the video file.
        noise: Standard deviation of the noise, drawn independently for every frame, as a share of the full brightness
            range.
        pan: Largest movement of the background during a clip, in pixels of a 64-pixel frame, at most 32.
        panning: Share of the clips with a moving background, 0 to 1.
        least_pan: Smallest movement of the background in those clips, as a share of `pan`, 0 to 1.
        texture: Factor on the strength of the background texture.
        contrast: Factor on the difference between digit and background, in (0, 1].
        distractor: Whether a second digit, smaller, fainter and at rest, is drawn behind the first one.
        codec: FFmpeg encoder of the video file.
        crf: Constant rate factor of the encoder, 0 (lossless or nearly so) to 63; higher values compress more.

    Examples:
        >>> from dataclasses import replace
        >>> from hf_video_tome.data.moving_digits import VARIANTS
        >>> replace(VARIANTS["standard"], noise=0.0).noise
        0.0
    """

    size: int = 48
    num_frames: int = 16
    fps: int = 8
    noise: float = 0.03
    pan: float = 4.0
    panning: float = 0.5
    least_pan: float = 0.0
    texture: float = 1.0
    contrast: float = 1.0
    distractor: bool = False
    codec: str = "libx264"
    crf: int = 20

    def __post_init__(self) -> None:
        for names, is_right, allowed in (
            ("size", lambda value: value >= 16 and value % 2 == 0, "an even number of at least 16 pixels"),
            ("num_frames", lambda value: value >= 2, "at least 2"),
            ("fps", lambda value: value > 0, "greater than 0"),
            ("noise pan texture", lambda value: value >= 0, "at least 0"),
            ("panning least_pan", lambda value: 0 <= value <= 1, "in [0, 1]"),
            ("contrast", lambda value: 0 < value <= 1, "in (0, 1]"),
            ("crf", lambda value: 0 <= value <= 63, "in 0..63"),
        ):
            for name in names.split():
                if not is_right(getattr(self, name)):
                    raise ValueError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    @property
    def suffix(self) -> str:
        """Suffix of the video files: `".webm"` for VP9, `".mp4"` otherwise."""
        return ".webm" if "vp9" in self.codec else ".mp4"

    @property
    def encoder_options(self) -> dict[str, str]:
        """Options for `write_video`. One thread, so that the same frames give the same file on every machine."""
        options = {"crf": str(self.crf), "threads": "1"}
        if self.codec == "libx264":
            # With its macroblock tree, x264 is not deterministic for small frames (AVX-512).
            options |= {"mbtree": "0"}
        if "vp9" in self.codec:
            # VP9 takes crf as a quality target only without a bit rate; the speed setting keeps a clip in the tens of
            # ms.
            options |= {"b:v": "0", "deadline": "good", "cpu-used": "5"}
        return options


VARIANTS: MappingProxyType[str, MovingDigitsConfig] = MappingProxyType(
    {
        "standard": MovingDigitsConfig(),
        "noise": MovingDigitsConfig(noise=0.10, pan=12.0, texture=1.6),
        "contrast": MovingDigitsConfig(contrast=0.5),
        "vp9": MovingDigitsConfig(codec="libvpx-vp9", crf=45),
        "distractor": MovingDigitsConfig(distractor=True),
        "camera": MovingDigitsConfig(pan=32.0, panning=1.0, least_pan=0.5),
    }
)
"""Named variants: the standard one, and five that are harder in one way each ("camera": fast camera motion)."""


class ClipLabel(NamedTuple):
    """The class of a clip: indices into `VERBS`, `NOUNS` and `ACTIONS`."""

    verb: int
    noun: int
    action: int


class WrittenClip(NamedTuple):
    """A video file with its class."""

    path: Path
    label: ClipLabel


@dataclass(frozen=True)
class MovingDigitsClip:
    """A rendered clip.

    Attributes:
        frames: uint8 RGB array of shape `(num_frames, size, size, 3)`.
        verb: Index into `VERBS`.
        noun: Index into `NOUNS`, the digit itself.
        action: Index into `ACTIONS`.
    """

    frames: np.ndarray
    verb: int
    noun: int
    action: int

    @property
    def name(self) -> str:
        """Class name, such as `"left 3"`."""
        return ACTIONS[self.action]


def variant(name: str) -> MovingDigitsConfig:
    """Returns the named variant; a `ValueError` lists the names.

    Examples:
        >>> from hf_video_tome.data.moving_digits import variant
        >>> variant("vp9").codec
        'libvpx-vp9'
    """
    if name not in VARIANTS:
        raise ValueError(f"name must be one of {', '.join(VARIANTS)}, got {name!r}")
    return VARIANTS[name]


def clip_label(split: str, index: int, seed: int = 0) -> ClipLabel:
    """Returns the class of a clip without rendering it.

    Training clips have a random class. The validation and test splits cycle through the 120 actions in a mixed order,
    so that any 120 consecutive clips contain each action once.

    Args:
        split: `"train"`, `"validation"` or `"test"`.
        index: Index of the clip in its split, >= 0. Splits are infinite.
        seed: Seed of the dataset, >= 0.

    Returns:
        The indices of verb, noun and action.

    Examples:
        >>> from hf_video_tome.data.moving_digits import ACTIONS, clip_label
        >>> ACTIONS[clip_label("test", 1).action]
        'turn_ccw 7'
    """
    return _draw_label(split, index, _clip_rng(split, index, seed))


def render_clip(
    split: str,
    index: int,
    config: MovingDigitsConfig | None = None,
    seed: int = 0,
    verb: str | None = None,
) -> MovingDigitsClip:
    """Renders one clip, without encoding it.

    The clip depends on the arguments alone: its random numbers come from `np.random.default_rng([seed, split_id,
    index])`. Variants of a clip differ only in what the variants change.

    Args:
        split: `"train"`, `"validation"` or `"test"`; determines which handwritten digits are used.
        index: Index of the clip in its split, >= 0.
        config: Rendering parameters; None uses `VARIANTS["standard"]`.
        seed: Seed of the dataset, >= 0.
        verb: A name from `VERBS` to show instead of the clip's own verb, with all other random numbers unchanged. A
            verb and its `REVERSED_VERB` give exactly reversed frames.

    Returns:
        The frames and the class.

    Raises:
        ValueError: If an argument is invalid; the message names it.
        ImportError: If scikit-learn, which ships the digits, is not installed.

    Examples:
        >>> from hf_video_tome.data.moving_digits import render_clip
        >>> clip = render_clip("test", 0)
        >>> clip.name, clip.frames.shape, clip.frames.dtype
        ('left 0', (16, 48, 48, 3), dtype('uint8'))
    """
    config = VARIANTS["standard"] if config is None else config
    rng = _clip_rng(split, index, seed)
    label = _draw_label(split, index, rng)
    if verb is not None:
        if verb not in VERBS:
            raise ValueError(f"verb must be one of {', '.join(VERBS)}, got {verb!r}")
        label = ClipLabel(VERBS.index(verb), label.noun, VERBS.index(verb) * 10 + label.noun)
    # The second verb of a pair is the first one played backwards: the finished frames are reversed for an exact pair.
    backwards = label.verb < 10 and label.verb % 2 == 1
    frames = _render_frames(rng, split, VERBS[label.verb - backwards], label.noun, config)
    if backwards:
        frames = np.ascontiguousarray(frames[::-1])
    return MovingDigitsClip(frames, *label)


def write_clips(
    folder: str | os.PathLike[str],
    split: str,
    indices: Iterable[int],
    config: MovingDigitsConfig | None = None,
    seed: int = 0,
) -> list[WrittenClip]:
    """Renders clips and encodes them into video files.

    Args:
        folder: Output folder, created if needed. Files of the same name are replaced.
        split: `"train"`, `"validation"` or `"test"`.
        indices: Indices of the clips in their split.
        config: Rendering and encoding parameters; None uses `VARIANTS["standard"]`.
        seed: Seed of the dataset, >= 0.

    Returns:
        The absolute path of each clip, such as `test-000001-turn_ccw-7.mp4`, and its class.

    Examples:
        >>> import tempfile
        >>> from hf_video_tome.data.moving_digits import write_clips
        >>> [(path.name, label.action) for path, label in write_clips(tempfile.mkdtemp(), "test", range(2))]
        [('test-000000-left-0.mp4', 0), ('test-000001-turn_ccw-7.mp4', 77)]
    """
    config = VARIANTS["standard"] if config is None else config
    root = Path(folder).absolute()
    root.mkdir(parents=True, exist_ok=True)
    written = []
    for index in indices:
        clip = render_clip(split, index, config, seed)
        path = root / f"{split}-{index:06d}-{VERBS[clip.verb]}-{clip.noun}{config.suffix}"
        write_video(path, clip.frames, config.fps, codec=config.codec, options=config.encoder_options)
        written.append(WrittenClip(path, ClipLabel(clip.verb, clip.noun, clip.action)))
    return written


def _clip_rng(split: str, index: int, seed: int) -> np.random.Generator:
    """Returns the random generator of one clip."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    for name, value in (("index", index), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    return np.random.default_rng([int(seed), _SPLIT_IDS[split], int(index)])


def _draw_label(split: str, index: int, rng: np.random.Generator) -> ClipLabel:
    """Draws the class of a clip: at random in the training split, in a fixed order in the others."""
    drawn = int(rng.integers(len(ACTIONS)))
    action = drawn if split == "train" else int(index) * _CLASS_STRIDE % len(ACTIONS)
    return ClipLabel(action // 10, action % 10, action)


@lru_cache(maxsize=1)
def _digit_images() -> tuple[np.ndarray, np.ndarray]:
    """Returns the handwritten digits as float32 in 0..1 of shape (1797, 8, 8), and their classes (1797,)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            'Moving Digits needs scikit-learn, which ships the handwritten digits: pip install "hf-video-tome[demo]"'
        ) from error
    digits = load_digits()
    return (digits.images / 16.0).astype(np.float32), digits.target.astype(np.int64)


def _draw_glyph(rng: np.random.Generator, split: str, noun: int) -> torch.Tensor:
    """Draws a handwritten digit of the split as an opacity map in 0..1 of shape (1, 1, 40, 40)."""
    images, targets = _digit_images()
    part = SPLITS[split]
    candidates = part.start + np.flatnonzero(targets[part.start : part.stop] == noun)
    glyph = torch.from_numpy(images[candidates[rng.integers(len(candidates))]])[None, None]
    # Without the border, interpolation would cut off strokes at the edge of the 8 x 8 raster.
    glyph = F.pad(glyph, (1, 1, 1, 1))
    glyph = F.interpolate(glyph, size=(_GLYPH_RESOLUTION, _GLYPH_RESOLUTION), mode="bicubic", align_corners=False)
    # Stretching the contrast makes strokes solid and removes the ringing of the bicubic filter.
    return ((glyph - 0.25) / 0.45).clamp(0, 1)


def _draw_colour(rng: np.random.Generator) -> np.ndarray:
    """Draws a bright colour with a random hue, RGB in 0..1."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0.2, 0.8), rng.uniform(0.85, 1.0)
    pure = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation * (1 - pure))).astype(np.float32)


def _render_glyph(
    glyph: torch.Tensor, size: int, x: np.ndarray, y: np.ndarray, scale: np.ndarray, angle: np.ndarray
) -> torch.Tensor:
    """Renders the glyph into frames.

    Args:
        glyph: Opacity map of shape (1, 1, 40, 40).
        size: Frame size in pixels.
        x: Centre of the glyph to the right of the frame's centre, in pixels of a 64-pixel frame, shape (num_frames,).
        y: The same, downwards.
        scale: Size of the glyph relative to 34 of those pixels, shape (num_frames,).
        angle: Clockwise rotation in radians, shape (num_frames,).

    Returns:
        Opacity in 0..1 of shape (num_frames, 1, size, size).
    """
    half = _REFERENCE_SIZE / 2
    cos, sin = np.cos(angle), np.sin(angle)
    # `affine_grid` takes the inverse map, from frame to glyph coordinates, both in -1..1: shift, rotate, scale back.
    zoom = half / (_SPRITE_SIZE / 2 * scale)
    shift_x, shift_y = x / half, y / half
    theta = np.stack(
        [
            np.stack([cos * zoom, sin * zoom, -zoom * (cos * shift_x + sin * shift_y)], axis=-1),
            np.stack([-sin * zoom, cos * zoom, -zoom * (cos * shift_y - sin * shift_x)], axis=-1),
        ],
        axis=1,
    )
    num_frames = len(x)
    grid = F.affine_grid(torch.from_numpy(theta.astype(np.float32)), [num_frames, 1, size, size], align_corners=False)
    return F.grid_sample(glyph.expand(num_frames, -1, -1, -1), grid, padding_mode="zeros", align_corners=False)


def _draw_background(rng: np.random.Generator, time: np.ndarray, config: MovingDigitsConfig) -> torch.Tensor:
    """Renders a textured background that may pan, float32 of shape (num_frames, 3, size, size)."""
    mean = rng.uniform(0.12, 0.42, size=(3, 1, 1))
    coarse, fine = rng.standard_normal((1, 3, 6, 6)), rng.standard_normal((1, 3, 16, 16))
    pans, length, direction = rng.random() < config.panning, rng.random(), rng.uniform(0, 2 * np.pi)
    length = config.least_pan + (1 - config.least_pan) * length
    # The canvas is 1.5 times as large as a frame: room for a pan of up to 16 of 64 pixels in each direction.
    margin = config.size // 4
    canvas_size = config.size + 2 * margin
    canvas = torch.from_numpy(mean.astype(np.float32))[None]
    for octave, strength in ((coarse, 0.10), (fine, 0.07)):
        lattice = torch.from_numpy(octave.astype(np.float32)) * (strength * config.texture)
        canvas = canvas + F.interpolate(lattice, size=(canvas_size, canvas_size), mode="bicubic", align_corners=False)
    travel = pans * length * config.pan * (time - 0.5) / (_REFERENCE_SIZE / 2)
    ratio = config.size / canvas_size
    theta = np.zeros((len(time), 2, 3), dtype=np.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = ratio
    theta[:, 0, 2], theta[:, 1, 2] = ratio * travel * np.cos(direction), ratio * travel * np.sin(direction)
    grid = F.affine_grid(torch.from_numpy(theta), [len(time), 3, config.size, config.size], align_corners=False)
    return F.grid_sample(canvas.expand(len(time), -1, -1, -1), grid, padding_mode="border", align_corners=False)


def _render_frames(
    rng: np.random.Generator, split: str, verb: str, noun: int, config: MovingDigitsConfig
) -> np.ndarray:
    """Renders a clip of a forward verb, uint8 of shape (num_frames, size, size, 3).

    All random numbers are drawn in the same order, whatever the verb and the variant: clips with the same index differ
    only in verb or variant.
    """
    time = np.linspace(0.0, 1.0, config.num_frames)
    background = _draw_background(rng, time, config)
    glyph, colour = _draw_glyph(rng, split, noun), _draw_colour(rng)

    start, end = rng.uniform(0.0, 0.3), rng.uniform(0.7, 1.0)
    smooth = rng.random() < 0.5
    travel, octaves, turn = rng.uniform(18, 30), rng.uniform(0.9, 1.3), rng.uniform(0.55, 1.0)
    shake, cycles, phase = rng.uniform(2.5, 5.0), rng.uniform(2, 4), rng.uniform(0, 2 * np.pi)
    shake_direction = rng.uniform(0, 2 * np.pi)
    centre_x, centre_y = rng.uniform(-9, 9, size=2)
    base_scale, tilt = rng.uniform(0.8, 1.15), rng.uniform(-0.2, 0.2)

    progress = np.clip((time - start) / (end - start), 0, 1)
    if smooth:
        progress = progress**2 * (3 - 2 * progress)
    x, y = np.full_like(time, centre_x), np.full_like(time, centre_y)
    scale, angle, opacity = np.full_like(time, base_scale), np.full_like(time, tilt), np.ones_like(time)
    if verb == "left":
        x += travel * (0.5 - progress)
    elif verb == "up":
        y += travel * (0.5 - progress)
    elif verb == "grow":
        scale *= 2.0 ** (octaves * (progress - 0.5))
    elif verb == "turn_cw":
        angle += turn * (2 * progress - 1)
    elif verb == "appear":
        opacity = np.clip((time - (start + end) / 2) / _FADE_WIDTH + 0.5, 0, 1)
    elif verb == "shake":
        wave = shake * np.sin(2 * np.pi * cycles * time + phase)
        x += wave * np.cos(shake_direction)
        y += wave * np.sin(shake_direction)

    distractor_glyph, distractor_colour = _draw_glyph(rng, split, int(rng.integers(10))), _draw_colour(rng)
    distractor_angle, distractor_tilt = rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.2)
    noise = rng.standard_normal((config.num_frames, config.size, config.size, 3), dtype=np.float32)

    frames = background
    if config.distractor:
        one = np.ones(1)
        side_x, side_y = 18 * np.cos(distractor_angle) * one, 18 * np.sin(distractor_angle) * one
        mask = _render_glyph(distractor_glyph, config.size, side_x, side_y, 0.6 * one, distractor_tilt * one)
        frames = frames + 0.6 * config.contrast * mask * (torch.from_numpy(distractor_colour)[:, None, None] - frames)
    mask = _render_glyph(glyph, config.size, x, y, scale, angle)
    mask = mask * torch.from_numpy(opacity.astype(np.float32))[:, None, None, None] * config.contrast
    frames = frames + mask * (torch.from_numpy(colour)[:, None, None] - frames)
    image = frames.permute(0, 2, 3, 1).numpy() + config.noise * noise
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
