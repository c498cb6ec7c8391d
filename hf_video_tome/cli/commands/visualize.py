"""`hf-video-tome visualize`: draw the merged tokens of a clip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..common import (
    DeviceOption,
    Dtype,
    DtypeOption,
    FrameOptions,
    InputError,
    JsonOption,
    ModelOption,
    check_output_file,
    input_errors,
    load_classifier,
    require_packages,
)
from ..merging_options import MergingOptions
from ..option_groups import grouped_options
from ..printing import print_line, print_note, write_json
from .classify import decisions, print_decisions

if TYPE_CHECKING:
    from ...visualization import TracedClip

_OPTIONS = {"frame": "--at: the frame", "x": "--at: x", "y": "--at: y", "token": "--token", "outline": "--outline"}
HELP = """Draw merged and dropped tokens on a clip, as a film or a picture.

Each token fills all of its patches, over all frames. The suffix of --output selects the format: .mp4 (or .webm, .mov,
.mkv) and .gif show all frames beside the input, .png (or .pdf, .svg) shows a few of them on a sheet. With --per-layer,
the film goes from layer to layer instead.

\b
Examples:
  hf-video-tome visualize clip.mp4 --r 38
  hf-video-tome visualize clip.mp4 --r 38 --fill distinct --output tokens.gif
  hf-video-tome visualize clip.mp4 --r 38 --largest 3 --output largest.png
  hf-video-tome visualize clip.mp4 --r 38 --at 8,24,24
  hf-video-tome visualize clip.mp4 --r 38 --per-layer --output layers.gif
"""
SHORT_HELP = "Draw merged and dropped tokens on a clip."


MAX_SCALE = 32
"""Largest enlargement: enough for small clips; more would only fill memory."""


@grouped_options
def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Video file (mp4, webm, mkv, avi, mov), or folder of frames.")
    ],
    *,
    model: ModelOption = None,
    merging: MergingOptions,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "cpu",
    sampling: FrameOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output file: .mp4, .gif, .webm, .mov, .mkv, .png, .pdf or .svg.",
            show_default="NAME-tokens.mp4 for a FILE called NAME",
        ),
    ] = None,
    fill: Annotated[
        Literal["mean", "pixels", "distinct"],
        typer.Option(
            help="Fill tokens with the mean colour of their pixels (mean), the original frames (pixels), or one "
            "distinct colour per token, the same in all frames (distinct)."
        ),
    ] = "mean",
    layer: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Draw the tokens after this layer; 0 means before the first one.",
            show_default="the last",
        ),
    ] = None,
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Show how the tokens grow from layer to layer.")
    ] = False,
    token: Annotated[
        list[int] | None,
        typer.Option(metavar="INDEX", help="Draw only this token, the rest dimmed; can be given more than once."),
    ] = None,
    largest: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Draw only the N largest tokens; per frame, if no token spans several frames."
        ),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FRAME,X,Y",
            help="Draw only the token at this pixel: frame of the clip, column and row of the frame as seen by the "
            "model, all from 0; can be given more than once.",
        ),
    ] = None,
    outline: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=0,
            help="Width of the outlines, at most half of a patch; 0 for none.",
            show_default="by the size of a patch",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=MAX_SCALE,
            help="Enlarge frames by this factor.",
            show_default="by the size of a frame",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            min=0.1,
            max=60,
            help="Frames or layers per second of a film.",
            show_default="4 frames, 1 layer",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of frames on a sheet, or in each picture of --per-layer.",
            show_default="8, 4 with --per-layer",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    sampling.check()
    if not Path(file).exists():  # before the model is loaded
        raise InputError(f"{file}: no such file")
    target = output or Path(f"{_name_of(file)}-tokens.mp4")
    if target.resolve() == Path(file).resolve():
        raise InputError(f"--output {target} is the clip itself: give another file")
    is_sheet = _check_output(target)
    _check_options(per_layer, layer, bool(token) or largest is not None or bool(at), is_sheet, fps, frames)
    pixels = [_parse_pixel(text) for text in at or ()]
    classifier = load_classifier(model, merging.settings(), dtype, device, "--model")
    decided = decisions(classifier, dtype, sampling)
    num_layers = len(decided["token_counts"]) - 1
    if layer is not None and layer > num_layers:
        raise InputError(f"--layer must be 0 (before the first layer) to {num_layers} (after the last), got {layer}")
    if not as_json:
        print_decisions(decided)
    if decided["num_tokens"] == decided["token_counts"][-1]:
        print_note("no layer removes a token: give --r")

    import torch

    from ...visualization import save_layers, save_tokens, trace_clip

    loaded = sampling.read(classifier, file)
    with input_errors(ValueError, torch.OutOfMemoryError, at=file):
        clip = trace_clip(classifier.model, loaded, classifier.transform, name=Path(classifier.name).name)
    drawn = clip.num_layers if layer is None else layer
    with input_errors(ValueError, options=_OPTIONS):
        only = _choose(clip, drawn, token or [], largest, pixels)
        chosen = [_extent(clip, number, drawn) for number in only or ()]
        size: dict[str, Any] = {"fill": fill, "outline": outline, "scale": scale}
        size |= {} if fps is None else {"fps": fps}
        size |= {} if frames is None else {"max_frames": frames}
        if not per_layer:
            size |= {"only": only, "layer": drawn}
        with input_errors(OSError, at=f"--output {target}"):
            (save_layers if per_layer else save_tokens)(target, clip, **size)

    summary = {"prediction": clip.prediction, "layer": None if per_layer else drawn, "tokens": chosen}
    if as_json:
        write_json({**decided, "file": file, **summary, "output": str(target)})
        return
    for entry in chosen:
        print_line(
            f"token {entry['token']}: {_many(entry['patches'], 'patch', 'patches')}, in "
            f"{_many(entry['frames'], 'frame', 'frames')}"
        )
    print_line(f"prediction: {clip.prediction}")
    print_line(f"written: {target}")


def _name_of(file: str) -> str:
    path = Path(os.path.abspath(file))  # a link keeps its own name
    return path.name if path.is_dir() else path.stem


def _check_output(target: Path) -> bool:
    """Checks the output file; returns whether it is a sheet."""
    from ...visualization.animation import ANIMATION_SUFFIXES
    from ...visualization.saving import SHEET_SUFFIXES

    suffix = target.suffix.lower()
    if suffix not in (*ANIMATION_SUFFIXES, *SHEET_SUFFIXES):
        allowed = ", ".join((*ANIMATION_SUFFIXES, *SHEET_SUFFIXES))
        raise InputError(f"--output must end in one of {allowed}, got {str(target)!r}")
    check_output_file(target)
    if suffix in SHEET_SUFFIXES:
        require_packages({"matplotlib": "matplotlib"}, extra="viz")
    return suffix in SHEET_SUFFIXES


def _check_options(
    per_layer: bool, layer: int | None, chosen: bool, is_sheet: bool, fps: float | None, frames: int | None
) -> None:
    """Rejects options that would have no effect."""
    if per_layer and layer is not None:
        raise InputError("--per-layer and --layer exclude each other")
    if per_layer and chosen:
        raise InputError("--token, --largest and --at draw tokens of one layer: they have no effect with --per-layer")
    if is_sheet and fps is not None:
        raise InputError("--fps has no effect on a sheet; use it with an --output such as .mp4 or .gif")
    if not is_sheet and not per_layer and frames is not None:
        raise InputError("--frames has no effect on a film of the clip; use it with --per-layer or a sheet")


def _parse_pixel(text: str) -> tuple[int, int, int]:
    """Parses a value of `--at`: frame, x and y."""
    try:
        frame, x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--at must be a frame, a column and a row such as 8,24,24, got {text!r}") from None
    return frame, x, y


def _choose(
    clip: TracedClip, layer: int, tokens: list[int], largest: int | None, pixels: list[tuple[int, int, int]]
) -> list[int] | None:
    """Returns the distinct tokens to draw; None for all."""
    if not tokens and largest is None and not pixels:
        return None
    wanted = list(tokens)
    wanted += [] if largest is None else clip.largest(largest, layer)
    wanted += [clip.token_at(*pixel, layer=layer) for pixel in pixels]
    return list(dict.fromkeys(wanted))


def _extent(clip: TracedClip, token: int, layer: int) -> dict[str, int]:
    patches, frames = clip.extent(token, layer)
    return {"token": token, "patches": patches, "frames": frames}


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"
