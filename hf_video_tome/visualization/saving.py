"""Pictures and films of a traced clip: its tokens over time, and how they grow from layer to layer."""

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

_CLIP_SIZE, _LAYERS_SIZE = 384, 224  # that the longer side of a frame is enlarged to, about
_LAST_LAYER_PICTURES = 3  # the end of the growth stays longer
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
    """Saves the tokens of a clip beside the input, as a film or as a sheet of pictures.

    Figure 3 of "Video, How Do Your Tokens Merge?" (CVPRW 2025) shows tokens so.

    Args:
        path: Output file; the suffix decides: a film (.mp4, .gif, .webm, .mov, .mkv) of all frames, or a sheet (.png,
            .pdf, .svg; needs matplotlib) of some. The folder must exist.
        clip: The clip.
        fill: "mean", the mean colour of a token; "pixels", the frames as they are; "distinct", a colour of its own for
            each token, the same in all frames.
        only: Tokens to draw, as positions in the sequence; the rest is dimmed. All when None.
        layer: Index of the hidden states to draw: -1 after the last layer, 0 before the first.
        outline: Width of outlines in pixels, at most half of a patch, 0 for none; automatic when None.
        scale: Size of a frame pixel in the picture; automatic when None.
        fps: Frames per second of a film.
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
    suffix, (num_frames, _, height, width) = _check_path(path), clip.frames.shape
    layer = _layer_number(clip, layer)
    is_sheet = suffix in SHEET_SUFFIXES
    scale = _scale(scale, sheet_scale(height, width) if is_sheet else round(_CLIP_SIZE / max(height, width)))
    if outline is None:
        outline = clip.geometry.outline(clip.frames, scale)
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
    """Saves how the tokens of a clip grow from layer to layer, as a film or as a sheet with a row for each layer.

    A group keeps the colour of its largest part.

    Args:
        path: Output file; the suffix decides: a film (.mp4, .gif, .webm, .mov, .mkv) with one picture for each layer,
            or a sheet (.png, .pdf, .svg; needs matplotlib). The folder must exist.
        clip: The clip.
        fill: "mean", "pixels" or "distinct", as for `save_tokens`.
        outline: Width of outlines in pixels, at most half of a patch, 0 for none; automatic when None.
        scale: Size of a frame pixel in the picture; automatic when None.
        fps: Layers per second of a film.
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
    suffix, (num_frames, _, height, width) = _check_path(path), clip.frames.shape
    is_sheet = suffix in SHEET_SUFFIXES
    scale = _scale(scale, sheet_scale(height, width) if is_sheet else round(_LAYERS_SIZE / max(height, width)))
    if outline is None:
        outline = clip.geometry.outline(clip.frames, scale)
    shown = spread_frames(num_frames, _check_count("max_frames", max_frames))
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
    """Layers to show, evenly spaced from 0, before the first one, to the last."""
    return sorted({round(layer) for layer in np.linspace(0, num_layers, min(count, num_layers + 1)).tolist()})


def legend(clip: TracedClip, layers: Sequence[int], fill: str, only: Collection[int] | None, outlined: bool) -> str:
    """What fill, outlines and hatching of a picture mean: only what it has.

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


def _check_path(path: str | os.PathLike[str]) -> str:
    """The suffix of an output file, in lower case."""
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


def _scale(given: int | None, chosen: int) -> int:
    return max(1, chosen) if given is None else _check_count("scale", given)


def _layer_number(clip: TracedClip, layer: int) -> int:
    """A layer counted from the start."""
    if not -clip.num_layers - 1 <= layer <= clip.num_layers:
        raise ValueError(
            f"layer must be in 0 (before the first layer) to {clip.num_layers} (after the last), or negative to "
            f"count from the end, got {layer}"
        )
    return layer % (clip.num_layers + 1)


def _place(clip: TracedClip, layer: int) -> str:
    return f"after layer {layer} of {clip.num_layers}" if layer else f"before the first of {clip.num_layers} layers"


def _slot(clip: TracedClip, one: str = "") -> str:
    """The frames of a slot: "frame" (after `one`), or "2 frames"."""
    frames = len(clip.frames) // clip.geometry.layout.num_frames
    return f"{one}frame" if frames == 1 else f"{frames} frames"


def _count(clip: TracedClip, layer: int) -> str:
    """How many tokens there are."""
    counts = clip.trace.token_counts
    text = f"{counts[layer]} of {counts[0]} tokens"
    if clip.is_divided:
        first, *_ = clip.tokens(layer)
        text += f", {len(np.unique(first[first >= 0]))} of {first.size} per {_slot(clip)}"
    return text


def subject(clip: TracedClip, layer: int, only: Collection[int] | None) -> str:
    """What a picture shows: how many tokens, or what one of them holds, and after which layer if not the last.

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
    """Frames to show so that each of these tokens is seen in one, as far as there are enough frames.

    Args:
        tokens: (S, rows, columns) map from places to tokens.
        num_frames: Frames of the clip, a multiple of S.
        shown: Frames that would be shown otherwise.
        only: Tokens; of those that lie in as many frames, the most important ones first.

    Returns:
        As many frames, in their order; those shown otherwise, but for the nearest ones to those that take their place.

    Examples:
        >>> show_tokens(np.array([[[0]], [[0]], [[1]], [[0]]]), 8, [1, 3, 7], [0, 1])
        [1, 4, 7]
    """
    frames_per_slot = num_frames // len(tokens)
    free, needed = list(shown), set[int]()
    places = [
        {frame for frame in range(num_frames) if (tokens[frame // frames_per_slot] == token).any()} for token in only
    ]
    for held in sorted(places, key=len):  # the others may well be seen in the frames of these
        if held & needed:
            continue
        pairs = [(abs(frame - other), frame, other) for frame in free for other in held]
        if pairs:
            _, replaced, frame = min(pairs)
            free.remove(replaced)
            needed.add(frame)
    return sorted({*free, *needed})


def _row_label(text: str) -> str:
    """The same with a line for each part, to stand beside a row."""
    return text.replace(": ", ":\n").replace(", ", ",\n")


def _caption(clip: TracedClip) -> str:
    """Model, settings and prediction, each where there is one."""
    lines = [": ".join(filter(None, (clip.name, clip.settings)))]
    lines += [f"predicts {clip.prediction}"] * bool(clip.prediction)
    return "\n".join(filter(None, lines))


def _beside(images: np.ndarray, gap: int = 6) -> np.ndarray:
    """Pictures (n, H, W, 3) next to each other on white."""
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=255)
    return np.concatenate(list(padded), axis=1)[:, :-gap]


def _same_size(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures padded with white at the bottom, where a title took one line more."""
    height = max(len(picture) for picture in pictures)
    return [np.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255) for picture in pictures]
