"""A sheet of pictures: the frames of a clip, and below them its merged tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..data.sampling import sample_frame_indices
from ..merging import TokenMergingTrace
from .captions import load_font, wrap_text
from .merged_tokens import ClipGeometry, merged_tokens_image

_DPI = 150
_CELL = 1.3  # inches
_LABEL_WIDTH, _MARGIN = 1.25, 0.15
_TITLE_LINE, _NOTE_LINE = 0.2, 0.14
_PIXELS = 240  # that a frame has at least in the picture


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
        path: Where the picture goes; the suffix (.png, .pdf, .svg) picks the format. The folder must exist.
        frames: (T, 3, H, W) uint8 RGB frames as the model saw them (see `model_view`).
        traces: Label of each row, such as "r = 38", and what the model returned for `output_token_merging=True` there.
            The number of tokens left is added to the label.
        geometry: How the tokens lie in the clip.
        title: Line above the pictures, such as the model and what it predicts.
        note: Line below the pictures.
        max_frames: Frames to show, evenly spaced.
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
        raise ValueError(f"`max_frames` must be at least 1, got {max_frames!r}")
    num_frames, _, height, _ = frames.shape
    shown = spread_frames(num_frames, max_frames)
    scale = sheet_scale(height)
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


def sheet_scale(height: int) -> int:
    """Size of a pixel in a sheet of frames of that height."""
    return max(1, -(-_PIXELS // height))


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
    """Saves a table of pictures.

    Args:
        path: Where the picture goes; the suffix (.png, .pdf, .svg) picks the format. The folder must exist.
        rows: Label of each row and its pictures (columns, H, W, 3) uint8 RGB, all of one size.
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
    cell_height = _CELL * height / width
    sheet_width = _LABEL_WIDTH + _CELL * len(columns) + _MARGIN
    # The width of text is measured in the font of the captions, which is that of matplotlib.
    points = 72 * (sheet_width - _LABEL_WIDTH - _MARGIN)
    left = _LABEL_WIDTH
    titles, notes = (wrap_text(text, points, load_font(size).getlength) for text, size in ((title, 10), (note, 7)))
    if len(titles) + len(notes) > 2:  # long text may begin under the labels, too
        points, left = 72 * (sheet_width - 2 * _MARGIN), _MARGIN
        titles, notes = (wrap_text(text, points, load_font(size).getlength) for text, size in ((title, 10), (note, 7)))
    head = 0.25 + _TITLE_LINE * len(titles)
    foot = 0.3 + _NOTE_LINE * len(notes)
    sheet_height = head + cell_height * len(rows) + foot
    figure = Figure(figsize=(sheet_width, sheet_height), dpi=_DPI)
    grid = figure.subplots(
        len(rows),
        len(columns),
        squeeze=False,
        gridspec_kw={
            "left": _LABEL_WIDTH / sheet_width,
            "right": 1 - _MARGIN / sheet_width,
            "top": 1 - head / sheet_height,
            "bottom": foot / sheet_height,
            "wspace": 0.06,
            "hspace": 0.06,
        },
    )
    for axes, (label, images) in zip(grid, rows.items(), strict=True):
        for axis, image in zip(axes, images, strict=True):
            axis.imshow(image, interpolation="nearest", aspect="auto")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_linewidth(0.5)
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8, fontsize=9, parse_math=False)
    for axis, name in zip(grid[-1], columns, strict=True):
        axis.set_xlabel(name, fontsize=7, labelpad=3)
    for number, text in enumerate(titles):
        top = 1 - (0.22 + _TITLE_LINE * number) / sheet_height
        figure.text(left / sheet_width, top, text, fontsize=10, va="center", parse_math=False)
    for number, text in enumerate(reversed(notes)):
        top = (0.14 + _NOTE_LINE * number) / sheet_height
        figure.text(left / sheet_width, top, text, fontsize=7, va="center", color="0.35", parse_math=False)
    target = Path(path)
    figure.savefig(target)
    return target
