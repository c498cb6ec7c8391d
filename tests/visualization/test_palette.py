"""Colours of a GIF: those of tokens stay apart, whatever the frames beside them look like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

from hf_video_tome.visualization import write_animation
from hf_video_tome.visualization.palette import common_palette


def test_a_gif_keeps_the_mean_colours_of_tokens_apart(tmp_path: Path) -> None:
    """Many even areas in similar dull colours, beside noisy frames of as many colours as there are pixels."""
    rng = np.random.default_rng(0)
    means = rng.integers(60, 110, (60, 3))
    pictures = []
    for _ in range(4):
        areas = means.astype(np.uint8).reshape(10, 6, 3).repeat(20, 0).repeat(30, 1)
        frame = np.clip(rng.normal((90, 80, 100), 20, (200, 180, 3)), 0, 255).astype(np.uint8)
        pictures.append(np.concatenate([frame, areas], axis=1))
    with Image.open(write_animation(tmp_path / "film.gif", pictures, 4)) as image:
        for picture in ImageSequence.Iterator(image):
            shown = np.asarray(picture.convert("RGB"))[10::20, 195::30].reshape(60, 3).astype(int)
            assert np.abs(shown - means).max() <= 6
            assert len(np.unique(shown, axis=0)) >= 55


def test_few_colours_are_kept_exactly() -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (256, 3), dtype=np.uint8)
    pictures = [colours[rng.integers(0, 256, (30, 40))] for _ in range(3)]
    palette, indices = common_palette(pictures)
    assert len(palette) <= 256
    for picture, index in zip(pictures, indices, strict=True):
        np.testing.assert_array_equal(palette[index], picture)


def test_more_colours_than_the_choice_is_made_from() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    palette, (index,) = common_palette([noise])
    assert len(palette) == 256
    distances = np.abs(palette[index].astype(int) - noise).max(axis=-1)
    assert distances.mean() < 30  # 256 colours divide each channel by 6: half a step is 20
    # Each pixel has the nearest one there is.
    some = noise[::30, ::40].reshape(-1, 1, 3).astype(int)
    best = ((some - palette.astype(int)) ** 2).sum(axis=-1).min(axis=1)
    chosen = ((some[:, 0] - palette[index[::30, ::40].ravel()].astype(int)) ** 2).sum(axis=-1)
    assert (chosen == best).all()
