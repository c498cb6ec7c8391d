"""A sheet of pictures: the frames of a clip, and below them its merged tokens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from ..data.sampling import sample_frame_indices
from ..merging import TokenMergingTrace
from .merged_tokens import ClipGeometry, merged_tokens_image

_DPI = 150
_CELL = 1.3  # inches
_LABEL_WIDTH = 1.25
_OUTLINE_SHARE = 80  # height of a frame over the width of an outline
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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "hf-video-tome[viz]"') from error

    num_frames, _, height, width = frames.shape
    shown = sample_frame_indices(num_frames, min(max_frames, num_frames), strategy="uniform")
    scale = max(1, -(-_PIXELS // height))
    pictures = {"input": frames.permute(0, 2, 3, 1).cpu().numpy().repeat(scale, 1).repeat(scale, 2)}
    for label, trace in traces.items():
        left, right = trace.token_counts[0], trace.token_counts[-1]
        pictures[f"{label}\n{left} → {right}\ntokens"] = merged_tokens_image(
            frames, trace, geometry, sample=sample, scale=scale, outline=max(1, scale * height // _OUTLINE_SHARE)
        )

    cell_height = _CELL * height / width
    head, foot = (0.45 if title else 0.25), (0.5 if note else 0.3)
    sheet_width = _LABEL_WIDTH + _CELL * len(shown) + 0.15
    sheet_height = head + cell_height * len(pictures) + foot
    figure = Figure(figsize=(sheet_width, sheet_height), dpi=_DPI)
    grid = figure.subplots(
        len(pictures),
        len(shown),
        squeeze=False,
        gridspec_kw={
            "left": _LABEL_WIDTH / sheet_width,
            "right": 1 - 0.15 / sheet_width,
            "top": 1 - head / sheet_height,
            "bottom": foot / sheet_height,
            "wspace": 0.06,
            "hspace": 0.06,
        },
    )
    for axes, (label, images) in zip(grid, pictures.items(), strict=True):
        for axis, frame in zip(axes, shown, strict=True):
            axis.imshow(images[frame], interpolation="nearest", aspect="auto")
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_linewidth(0.5)
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", labelpad=8, fontsize=9, parse_math=False)
    for axis, frame in zip(grid[-1], shown, strict=True):
        axis.set_xlabel(f"frame {frame}", fontsize=7, labelpad=3)
    if title:
        figure.text(
            _LABEL_WIDTH / sheet_width, 1 - 0.25 / sheet_height, title, fontsize=10, va="center", parse_math=False
        )
    if note:
        figure.text(
            _LABEL_WIDTH / sheet_width,
            0.16 / sheet_height,
            note,
            fontsize=7,
            va="center",
            color="0.35",
            parse_math=False,
        )
    target = Path(path)
    figure.savefig(target)
    return target
