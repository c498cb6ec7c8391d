"""Saves pictures and videos of a traced clip: its tokens over time, and their growth from layer to layer."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from .animation import ANIMATION_SUFFIXES, compose, write_animation
from .contact_sheet import enlarge, save_sheet, sheet_scale, spread_frames
from .merged_tokens import count_places
from .traced_clip import TracedClip

SHEET_SUFFIXES = (".png", ".pdf", ".svg")

_CLIP_SIZE, _LAYERS_SIZE = 384, 224  # approximate longer side of an enlarged frame
_LAST_LAYER_PICTURES = 3  # the last layer is shown longer
_SHEET_LAYERS = 7


def save_tokens(
    path: str | os.PathLike[str],
    clip: TracedClip,
    *,
    fill: str = "mean",
    only: Collection[int] | None = None,
    layer: int = -1,
    outline: int | None = None,
    scale: int | None = None,
    fps: float = 4.0,
    max_frames: int = 8,
) -> Path:
    """Saves the tokens of a clip beside the input, as a video or a sheet of pictures.

    The style is that of figure 3 of "Video, How Do Your Tokens Merge?" (CVPRW 2025).

    Args:
        path: Output file; the suffix selects a video (.mp4, .gif, .webm, .mov, .mkv) of all frames, or a sheet (.png,
            .pdf, .svg; needs matplotlib) of some frames. The folder must exist.
        clip: The clip.
        fill: "mean", the mean colour of a token; "pixels", the original frames; "distinct", a colour for each token,
            the same in all frames.
        only: Tokens to highlight, as positions in the sequence; all others are dimmed. None for all.
        layer: Index of the hidden states to draw: -1 after the last layer, 0 before the first.
        outline: Width of outlines in pixels, at most half of a patch, 0 for none; automatic when None.
        scale: Size of a frame pixel in the picture; automatic when None.
        fps: Frames per second of a video.
        max_frames: Largest number of frames on a sheet, evenly spaced.

    Returns:
        The path.

    Raises:
        ValueError: If an argument is not as described.
        ImportError: If matplotlib is needed and missing.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> from hf_video_tome.data import ClipTransform
        >>> from hf_video_tome.visualization import trace_clip
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> frames = torch.randint(256, (4, 3, 48, 64), dtype=torch.uint8)
        >>> clip = trace_clip(model, frames, ClipTransform(resize=32, crop=(32, 32)))
        >>> save_tokens(f"{tempfile.mkdtemp()}/largest.gif", clip, only=clip.largest(3)).name
        'largest.gif'
    """
    is_sheet, scale, outline = _format(path, clip, _CLIP_SIZE, scale, outline)
    layer, num_frames = _layer_number(clip, layer), len(clip.frames)
    shown: Sequence[int] = range(num_frames)
    if is_sheet:
        shown = spread_frames(num_frames, _check_count("max_frames", max_frames))
        shown = shown if only is None else show_tokens(clip.tokens(layer), num_frames, shown, only)
    drawn = clip.draw(layer=layer, fill=fill, only=only, shown=shown, scale=scale, outline=outline)
    inputs = enlarge(clip.frames, shown, scale)
    what, note = subject(clip, layer, only), legend(clip, [layer], fill, only, bool(outline))
    if is_sheet:
        rows = {"input": inputs, _row_label(what): drawn}
        return save_sheet(path, rows, [f"frame {frame}" for frame in shown], title=_caption(clip), note=note)
    pictures = [
        compose([[(f"input, frame {frame}", inputs[frame]), (what, drawn[frame])]], _caption(clip), note)
        for frame in shown
    ]
    return write_animation(path, _same_size(pictures), fps)


def save_layers(
    path: str | os.PathLike[str],
    clip: TracedClip,
    *,
    fill: str = "mean",
    outline: int | None = None,
    scale: int | None = None,
    fps: float = 1.0,
    max_frames: int = 4,
) -> Path:
    """Saves the growth of the tokens of a clip from layer to layer, as a video or a sheet with one row per layer.

    A merged token keeps the colour of its largest part.

    Args:
        path: Output file; the suffix selects a video (.mp4, .gif, .webm, .mov, .mkv) with one picture per layer, or a
            sheet (.png, .pdf, .svg; needs matplotlib). The folder must exist.
        clip: The clip.
        fill: "mean", "pixels" or "distinct", as for `save_tokens`.
        outline: Width of outlines in pixels, at most half of a patch, 0 for none; automatic when None.
        scale: Size of a frame pixel in the picture; automatic when None.
        fps: Layers per second of a video.
        max_frames: Largest number of frames to show, evenly spaced.

    Returns:
        The path.

    Raises:
        ValueError: If an argument is not as described.
        ImportError: If matplotlib is needed and missing.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> from hf_video_tome.data import ClipTransform
        >>> from hf_video_tome.visualization import trace_clip
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> frames = torch.randint(256, (4, 3, 48, 64), dtype=torch.uint8)
        >>> clip = trace_clip(model, frames, ClipTransform(resize=32, crop=(32, 32)))
        >>> save_layers(f"{tempfile.mkdtemp()}/layers.mp4", clip).name
        'layers.mp4'
    """
    is_sheet, scale, outline = _format(path, clip, _LAYERS_SIZE, scale, outline)
    shown = spread_frames(len(clip.frames), _check_count("max_frames", max_frames))
    inputs = enlarge(clip.frames, shown, scale)
    note = legend(clip, range(clip.num_layers + 1), fill, None, bool(outline))

    def draw(layer: int) -> np.ndarray:
        return clip.draw(layer=layer, fill=fill, shown=shown, scale=scale, outline=outline)

    if is_sheet:
        layers = spread_layers(clip.num_layers, _SHEET_LAYERS)
        rows = {"input": inputs}
        for layer in layers:
            place = f"after layer {layer}" if layer else "before layer 1"
            rows[_row_label(f"{place}: {_count(clip, layer)}")] = draw(layer)
        return save_sheet(path, rows, [f"frame {frame}" for frame in shown], title=_caption(clip), note=note)

    top = (f"input, frames {', '.join(map(str, shown))}", _beside(inputs))
    pictures = []
    for layer in range(clip.num_layers + 1):
        title = f"{_place(clip, layer)}: {_count(clip, layer)}"
        pictures.append(compose([[top], [(title, _beside(draw(layer)))]], _caption(clip), note))
    pictures += pictures[-1:] * (_LAST_LAYER_PICTURES - 1)
    return write_animation(path, _same_size(pictures), fps)


def spread_layers(num_layers: int, count: int) -> list[int]:
    """Returns evenly spaced layers to show, from 0 (before the first layer) to the last."""
    return sorted({round(layer) for layer in np.linspace(0, num_layers, min(count, num_layers + 1)).tolist()})


def legend(clip: TracedClip, layers: Sequence[int], fill: str, only: Collection[int] | None, outlined: bool) -> str:
    """Describes the fill, outlines and hatching that occur in a picture.

    Args:
        clip: The clip.
        layers: Indices of the hidden states drawn.
        fill: As for `save_tokens`.
        only: As for `save_tokens`.
        outlined: Whether there are outlines.

    Returns:
        One line.
    """
    across = inside = single = dropped = False
    for layer in layers:
        tokens = clip.tokens(layer)
        patches, slots = count_places(tokens)
        across |= bool((slots > 1).any())
        inside |= bool(((slots == 1) & (patches > 1)).any())
        single |= bool((patches == 1).any())
        dropped |= bool((tokens < 0).any())
    shared = "one colour: the same places in every frame"
    parts = []
    if fill == "mean":
        parts.append("each token in the mean colour of all its pixels")
    elif fill == "distinct" and clip.crosses_frames:
        parts.append("each token in a colour of its own, the same in all frames")
    elif fill == "distinct":
        parts.append(f"no token lies in more than {_slot(clip, 'one ')}")
        parts.append(shared if clip.is_shared else "each has its own colour")
    if only is not None:
        if outlined and len(only) > 1 and not (fill == "distinct" and clip.is_shared):
            parts.append(f"outlines: {shared.replace(':', ' for') if clip.is_shared else 'one colour for each token'}")
        parts.append("all else dimmed")
    elif outlined and fill != "distinct":
        parts += ["coloured outline: one token over several frames"] * across
        parts += [f"light outline: merged inside {_slot(clip, 'a ')}"] * inside
        parts += ["dark outline: not merged"] * single
    if len(layers) > 1 and (across or fill == "distinct"):
        parts.append("a group keeps the colour of its largest part")
    if only is None and dropped:
        parts.append("hatched: dropped")
    prefix = clip.geometry.layout.num_prefix_tokens
    if prefix and (only is None or len(only) != 1):
        parts.append(f"counted but not drawn: {'the CLS token' if prefix == 1 else f'{prefix} tokens of no place'}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _format(
    path: str | os.PathLike[str], clip: TracedClip, size: int, scale: int | None, outline: int | None
) -> tuple[bool, int, int]:
    """Whether it is a sheet, the size of a pixel and the width of outlines: as given, or by the size of a frame."""
    is_sheet, (height, width) = _check_path(path) in SHEET_SUFFIXES, clip.frames.shape[2:]
    usual = sheet_scale(height, width) if is_sheet else round(size / max(height, width))
    scale = max(1, usual) if scale is None else _check_count("scale", scale)
    return is_sheet, scale, clip.geometry.outline(clip.frames, scale) if outline is None else outline


def _check_path(path: str | os.PathLike[str]) -> str:
    """Checks an output file and returns its suffix in lower case."""
    suffix = Path(path).suffix.lower()
    if suffix not in (*ANIMATION_SUFFIXES, *SHEET_SUFFIXES):
        allowed = ", ".join((*ANIMATION_SUFFIXES, *SHEET_SUFFIXES))
        raise ValueError(f"path must end in one of {allowed}, got {Path(path).name!r}")
    if not Path(path).parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(Path(path).parent)!r} does not exist")
    return suffix


def _check_count(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def _layer_number(clip: TracedClip, layer: int) -> int:
    """Returns a layer index counted from the start."""
    if not -clip.num_layers - 1 <= layer <= clip.num_layers:
        raise ValueError(
            f"layer must be in 0 (before the first layer) to {clip.num_layers} (after the last), or negative to "
            f"count from the end, got {layer}"
        )
    return layer % (clip.num_layers + 1)


def _place(clip: TracedClip, layer: int) -> str:
    return f"after layer {layer} of {clip.num_layers}" if layer else f"before the first of {clip.num_layers} layers"


def _slot(clip: TracedClip, one: str = "") -> str:
    """Returns the name of a tubelet along time: "frame" (after `one`), or "2 frames"."""
    frames = len(clip.frames) // clip.geometry.layout.num_frames
    return f"{one}frame" if frames == 1 else f"{frames} frames"


def _count(clip: TracedClip, layer: int) -> str:
    """Describes the number of tokens."""
    counts = clip.trace.token_counts
    text = f"{counts[layer]} of {counts[0]} tokens"
    if clip.is_divided:
        first, *_ = clip.tokens(layer)
        text += f", {len(np.unique(first[first >= 0]))} of {first.size} per {_slot(clip)}"
    return text


def subject(clip: TracedClip, layer: int, only: Collection[int] | None) -> str:
    """Returns the title of a picture: the number of tokens or the extent of one, and the layer if not the last.

    Args:
        clip: The clip.
        layer: Index of the hidden states, from 0.
        only: As for `save_tokens`.

    Returns:
        A title.
    """
    if only is not None and len(only) == 1:
        (token,) = only
        patches, frames = clip.extent(token, layer)
        places, num_frames = clip.tokens(layer).size, len(clip.frames)
        text = f"token {token}: {patches} of {places} patches, in {frames} of {num_frames} frames"
    elif only is not None:
        text = f"{len(only)} of the {clip.trace.token_counts[layer]} tokens"
    else:
        text = _count(clip, layer)
    return text if layer == clip.num_layers else f"{_place(clip, layer)}: {text}"


def show_tokens(tokens: np.ndarray, num_frames: int, shown: Sequence[int], only: Collection[int]) -> list[int]:
    """Chooses frames to show so that each of the given tokens appears in one of them, if possible.

    Args:
        tokens: (S, rows, columns) map from patches to tokens.
        num_frames: Number of frames of the clip, a multiple of S.
        shown: Frames to show by default.
        only: Tokens, in descending order of importance among those in equally many frames.

    Returns:
        The default frames, in order, with some replaced by the nearest frames that show a token.

    Examples:
        >>> show_tokens(np.array([[[0]], [[0]], [[1]], [[0]]]), 8, [1, 3, 7], [0, 1])
        [1, 4, 7]
    """
    frames_per_slot = num_frames // len(tokens)
    free, needed = list(shown), set[int]()
    places = [
        {frame for frame in range(num_frames) if (tokens[frame // frames_per_slot] == token).any()} for token in only
    ]
    for held in sorted(places, key=len):  # frames of these may also show the others
        if held & needed:
            continue
        pairs = [(abs(frame - other), frame, other) for frame in free for other in held]
        if pairs:
            _, replaced, frame = min(pairs)
            free.remove(replaced)
            needed.add(frame)
    return sorted({*free, *needed})


def _row_label(text: str) -> str:
    """Puts each part of a text on its own line, as the label of a row."""
    return text.replace(": ", ":\n").replace(", ", ",\n")


def _caption(clip: TracedClip) -> str:
    """Returns model, settings and prediction, as far as available."""
    lines = [": ".join(filter(None, (clip.name, clip.settings)))]
    lines += [f"predicts {clip.prediction}"] * bool(clip.prediction)
    return "\n".join(filter(None, lines))


def _beside(images: np.ndarray, gap: int = 6) -> np.ndarray:
    """Joins pictures (n, H, W, 3) side by side on white."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def _same_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pads pictures with white at the bottom to equal heights, if titles differ in their number of lines."""
    height = max(len(picture) for picture in pictures)
    return [np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255) for picture in pictures]
