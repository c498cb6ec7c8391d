"""Composes pictures with titles and captions, and writes them as videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .captions import load_font, wrap_text
from .palette import common_palette

ANIMATION_SUFFIXES = (".mp4", ".gif", ".webm", ".mov", ".mkv")

_TEXT_SIZE, _NOTE_SIZE, _LINE = 16, 13, 1.35
_MARGIN, _GAP = 12, 12
_LEAST_CAPTION, _LEAST_TITLE = 360, 140  # minimum width of text in pixels, for narrow pictures
_BACKGROUND, _INK, _GREY = "white", "black", (90, 90, 90)
_VIDEO_QUALITY = {"crf": "16"}


def compose(rows: Sequence[Sequence[tuple[str, np.ndarray]]], caption: str = "", note: str = "") -> np.ndarray:
    """Arranges pictures with titles in rows, with a caption below them.

    Long text is wrapped; nothing is cut off.

    Args:
        rows: Rows of (title, (H, W, 3) uint8 picture).
        caption: Lines below the pictures.
        note: Lines below the caption, smaller.

    Returns:
        (H, W, 3) uint8 RGB of even height and width, as videos need them.

    Examples:
        >>> black, white = np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), 255, np.uint8)
        >>> compose([[("input", black), ("tokens", white)]], caption="a model").shape[1]  # room for text
        384
    """
    from PIL import Image, ImageDraw

    font, small = load_font(_TEXT_SIZE), load_font(_NOTE_SIZE)
    line, small_line = round(_TEXT_SIZE * _LINE), round(_NOTE_SIZE * _LINE)
    widths = [[max(image.shape[1], _LEAST_TITLE) for _, image in row] for row in rows]
    inner = max(_LEAST_CAPTION, *(sum(row) + _GAP * (len(row) - 1) for row in widths))
    titles = [
        [wrap_text(title, width, font.getlength) for (title, _), width in zip(*row, strict=True)]
        for row in zip(rows, widths, strict=True)
    ]
    captions, notes = wrap_text(caption, inner, font.getlength), wrap_text(note, inner, small.getlength)

    height = 2 * _MARGIN + _GAP * (len(rows) - 1) + line * len(captions) + small_line * len(notes)
    height += (_GAP // 2) * bool(captions or notes)
    for row, lines in zip(rows, titles, strict=True):
        height += max(map(len, lines)) * line + max(len(image) for _, image in row)
    width = inner + 2 * _MARGIN
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), _BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    top = _MARGIN
    for row, row_widths, lines in zip(rows, widths, titles, strict=True):
        left, below = _MARGIN, top + max(map(len, lines)) * line
        for (_, image), column, texts in zip(row, row_widths, lines, strict=True):
            for number, text in enumerate(texts):
                pen.text((left, top + number * line), text, fill=_INK, font=font)
            canvas.paste(Image.fromarray(image), (left, below))
            left += column + _GAP
        top = below + max(len(image) for _, image in row) + _GAP
    top += _GAP // 2 - _GAP
    for text in captions:
        top += line
        pen.text((_MARGIN, top - line + 4), text, fill=_INK, font=font)
    for text in notes:
        top += small_line
        pen.text((_MARGIN, top - small_line + 4), text, fill=_GREY, font=small)
    return np.asarray(canvas)


def write_animation(path: str | os.PathLike[str], pictures: Sequence[np.ndarray], fps: float) -> Path:
    """Writes pictures as a video or a looping GIF.

    Args:
        path: Output file; the suffix selects the format: `.gif` or that of a video. The folder must exist.
        pictures: (H, W, 3) uint8 RGB pictures of the same size, which must be even for a video.
        fps: Pictures per second, above 0; a GIF rounds the duration to hundredths of a second and shows at most 50
            pictures per second.

    Returns:
        The path.

    Raises:
        ValueError: If the suffix or the rate is not as described, or there are no pictures.
        FileNotFoundError: If the folder does not exist.

    Examples:
        >>> import tempfile
        >>> pictures = [np.full((48, 64, 3), level, np.uint8) for level in (0, 255)]
        >>> write_animation(f"{tempfile.mkdtemp()}/blink.gif", pictures, fps=2).name
        'blink.gif'
    """
    from ..data.video.encoding import write_video

    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in ANIMATION_SUFFIXES:
        raise ValueError(f"path must end in one of {', '.join(ANIMATION_SUFFIXES)}, got {target.name!r}")
    if not len(pictures):
        raise ValueError("pictures must hold at least one picture")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    if suffix != ".gif":
        codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
        return write_video(target, np.stack(pictures), fps, codec=codec, options=_VIDEO_QUALITY)

    from PIL import Image

    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(target.parent)!r} does not exist")
    # One palette for all pictures and no dithering, which avoids flicker; tokens have uniform colours anyway.
    colours, indices = common_palette(pictures)
    images = [Image.fromarray(index) for index in indices]
    for image in images:
        image.putpalette(colours.tobytes())
    milliseconds = 10 * max(2, round(100 / fps))
    images[0].save(
        target, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, optimize=False, disposal=1
    )
    return target
