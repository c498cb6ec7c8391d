"""A sheet of pictures: the frames of a clip, and below them its merged tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.sampling import sample_frame_indices
from ..merging.trace import TokenMergingTrace
from .captions import load_font, wrap_text
from .merged_tokens import ClipGeometry, merged_tokens_image

_CELL, _GAP = 1.3, 0.08  # inches
_LABEL_WIDTH, _LABEL_GAP, _MARGIN = 1.3, 0.1, 0.15
_TITLE_LINE, _NOTE_LINE = 0.2, 0.14
_PIXELS = 240  # of the longer side of a frame in the picture, about
_LEAST_PIXELS = 192  # of its width


def save_contact_sheet(
    path: str | os.PathLike[str],
    frames: torch.Tensor,
    traces: Mapping[str, TokenMergingTrace],
    geometry: ClipGeometry,
    *,
    title: str = "",
    note: str = "",
    max_frames: int = 8,
    sample: int = 0,
) -> Path:
    """Saves a picture with one row of input frames and one row of merged tokens for each trace.

    Small frames are enlarged without smoothing, so that patches keep sharp edges.

    Args:
        path: Output file; the suffix (.png, .pdf, .svg) selects the format. The folder must exist.
        frames: (T, 3, H, W) uint8 RGB frames as the model saw them (see `model_view`).
        traces: Label of each row, such as "r = 38", and what the model returned for `output_token_merging=True` there.
            The number of tokens left is added to the label.
        geometry: Geometry of the tokens of the clip.
        title: Line above the pictures, such as the model and what it predicts.
        note: Line below the pictures.
        max_frames: Largest number of frames to show, evenly spaced.
        sample: Which clip of the traces' batch the frames are.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
        ValueError: If frames, traces and geometry do not fit each other, or there is nothing to draw.

    Examples:
        >>> import tempfile
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> frames = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
        >>> trace = model(frames[None] / 255, output_token_merging=True).token_merging
        >>> geometry = ClipGeometry.from_config(config)
        >>> save_contact_sheet(f"{tempfile.mkdtemp()}/tokens.png", frames, {"r = 10": trace}, geometry).name
        'tokens.png'
    """
    if max_frames < 1:
        raise ValueError(f"max_frames must be at least 1, got {max_frames!r}")
    num_frames, _, height, width = frames.shape
    shown = spread_frames(num_frames, max_frames)
    scale = sheet_scale(height, width)
    pictures = {"input": enlarge(frames, shown, scale)}
    for label, trace in traces.items():
        left, right = trace.token_counts[0], trace.token_counts[-1]
        pictures[f"{label}\n{left} → {right}\ntokens"] = merged_tokens_image(
            frames, trace, geometry, sample=sample, scale=scale, outline=geometry.outline(frames, scale), shown=shown
        )
    return save_sheet(path, pictures, [f"frame {frame}" for frame in shown], title=title, note=note)


def spread_frames(num_frames: int, max_frames: int) -> list[int]:
    """Indices of the frames to show, evenly spaced; all where there are no more."""
    return sample_frame_indices(num_frames, min(max_frames, num_frames), strategy="uniform")


def sheet_scale(height: int, width: int) -> int:
    """Size of a pixel in a sheet of frames of that size."""
    return max(1, round(_PIXELS / max(height, width)))


def enlarge(frames: torch.Tensor, shown: Sequence[int], scale: int) -> np.ndarray:
    """Frames (T, 3, H, W) as pictures (len(shown), H * scale, W * scale, 3), without smoothing."""
    return frames[list(shown)].permute(0, 2, 3, 1).cpu().numpy().repeat(scale, 1).repeat(scale, 2)


def save_sheet(
    path: str | os.PathLike[str],
    rows: Mapping[str, np.ndarray],
    columns: Sequence[str],
    *,
    title: str = "",
    note: str = "",
) -> Path:
    """Saves a table of pictures, each pixel of them as one pixel of the sheet, or as a square of several.

    Args:
        path: Output file; the suffix (.png, .pdf, .svg) selects the format. The folder must exist.
        rows: Label of each row, broken where too long, and its pictures (columns, H, W, 3) uint8 RGB, all of one size.
        columns: Label of each column.
        title: Lines above the pictures; broken where too long.
        note: Lines below the pictures; broken where too long.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.

    Examples:
        >>> import tempfile
        >>> rows = {"black": np.zeros((2, 24, 32, 3), np.uint8), "white": np.full((2, 24, 32, 3), 255, np.uint8)}
        >>> save_sheet(f"{tempfile.mkdtemp()}/sheet.png", rows, ["left", "right"]).name
        'sheet.png'
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "hf-video-tome[viz]"') from error

    height, width = next(iter(rows.values())).shape[1:3]
    enlarged = -(-_LEAST_PIXELS // width)
    cell_width, cell_height = width * enlarged, height * enlarged  # pixels, as all lengths below
    inch = cell_width / _CELL
    label_width, margin, gap = (round(length * inch) for length in (_LABEL_WIDTH, _MARGIN, _GAP))
    sheet_width = label_width + len(columns) * (cell_width + gap) - gap + margin
    # The width of text is measured in the font of the captions, which is that of matplotlib.
    left, points = label_width, 72 / inch * (sheet_width - label_width - margin)
    titles, notes = (wrap_text(text, points, load_font(size).getlength) for text, size in ((title, 10), (note, 7)))
    if len(titles) + len(notes) > 2:  # long text may begin under the labels, too
        left, points = margin, 72 / inch * (sheet_width - 2 * margin)
        titles, notes = (wrap_text(text, points, load_font(size).getlength) for text, size in ((title, 10), (note, 7)))
    head, foot = round((0.25 + _TITLE_LINE * len(titles)) * inch), round((0.3 + _NOTE_LINE * len(notes)) * inch)
    sheet_height = head + len(rows) * (cell_height + gap) - gap + foot
    # A little more, for the canvas has the whole pixels of it.
    figure = Figure(figsize=((sheet_width + 0.01) / inch, (sheet_height + 0.01) / inch), dpi=inch)

    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / sheet_width, 1 - y / sheet_height, text, parse_math=False, **style)

    for row, (label, images) in enumerate(rows.items()):
        top = head + row * (cell_height + gap)
        lines = "\n".join(wrap_text(label, 72 * (_LABEL_WIDTH - 2 * _LABEL_GAP), load_font(9).getlength))
        write(label_width - _LABEL_GAP * inch, top + cell_height / 2, lines, ha="right", va="center", fontsize=9)
        for column, image in enumerate(images):
            place = (label_width + column * (cell_width + gap), sheet_height - top - cell_height)
            axes = figure.add_axes(
                (place[0] / sheet_width, place[1] / sheet_height, cell_width / sheet_width, cell_height / sheet_height)
            )
            axes.imshow(image.repeat(enlarged, 0).repeat(enlarged, 1), interpolation="nearest", aspect="auto")
            axes.set_axis_off()
    for column, name in enumerate(columns):
        middle = label_width + column * (cell_width + gap) + cell_width / 2
        write(middle, sheet_height - foot + 0.04 * inch, name, ha="center", va="top", fontsize=7)
    for number, text in enumerate(titles):
        write(left, (0.22 + _TITLE_LINE * number) * inch, text, va="center", fontsize=10)
    for number, text in enumerate(reversed(notes)):
        write(left, sheet_height - (0.14 + _NOTE_LINE * number) * inch, text, va="center", fontsize=7, color="0.35")
    target = Path(path)
    figure.savefig(target)
    return target
