"""`hf-video-tome classify`: classify video files."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import (
    Classifier,
    DeviceOption,
    Dtype,
    DtypeOption,
    FrameOptions,
    InputError,
    JsonOption,
    ModelOption,
    describe_counts,
    describe_merging,
    input_errors,
    load_classifier,
    merging_summary,
)
from ..merging_options import MergingOptions
from ..option_groups import grouped_options
from ..printing import one_line, print_error, print_fields, print_table, progress_bar, write_json

if TYPE_CHECKING:
    from ...evaluation import Prediction

HELP = """Classify video files with any checkpoint and any token merging settings.

An unreadable file is reported, the others are still classified, and the exit code is 2.

\b
Examples:
  hf-video-tome classify demo-output/clips/*.mp4 --r 38
  hf-video-tome classify clip.mp4 --r 150 --model MCG-NJU/videomae-base-finetuned-kinetics
"""
SHORT_HELP = "Classify video files with any checkpoint."


@grouped_options
def command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Video files: mp4, webm, mkv, avi, mov.")],
    *,
    model: ModelOption = None,
    merging: MergingOptions,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceOption = "cpu",
    top_k: Annotated[int, typer.Option(metavar="N", min=1, help="Number of labels to print per file and task.")] = 5,
    sampling: FrameOptions,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    sampling.check()
    classifier = load_classifier(model, merging.settings(), dtype, device, "--model")
    decided = decisions(classifier, dtype, sampling)
    if not as_json:
        print_decisions(decided)

    results: list[dict[str, Any]] = []
    failed = 0
    with progress_bar(f"classifying {len(files)} files", len(files), enabled=len(files) > 1) as advance:
        for file in files:
            try:
                predictions = _classify_file(classifier, file, sampling, top_k)
                results.append({"file": file, "top": [_rounded(prediction) for prediction in predictions]})
            except Exception as error:  # any error: the other files are still classified
                failed += 1
                reason = error if isinstance(error, InputError) else f"{file}: {type(error).__name__}: {error}"
                print_error(reason)
                results.append({"file": file, "error": one_line(reason)})
            advance()

    if as_json:
        write_json({**decided, "results": results})
    elif failed < len(files):
        _print_table(results)
    if failed:
        raise typer.Exit(2)


def _classify_file(classifier: Classifier, file: str, sampling: FrameOptions, top_k: int) -> list[Prediction]:
    """Decodes one file, samples a clip and classifies it.

    Returns:
        The most likely labels, task by task.

    Raises:
        InputError: If the file cannot be read, or the logits are not finite.
    """
    import torch

    from ...evaluation import predict_labels
    from ...models.pixel_dtype import pixel_dtype

    model = classifier.model
    frames = sampling.read(classifier, file)
    pixel_values = classifier.transform(frames)[None].to(classifier.device, pixel_dtype(model))
    try:
        with torch.inference_mode():
            logits = model(pixel_values).logits[0].cpu()
    except torch.OutOfMemoryError as error:
        raise InputError(f"{file}: {classifier.device} has not enough memory for this clip: {error}") from error
    with input_errors(ValueError, at=file):
        found = predict_labels(logits, model.config, top_k)
    return [label for labels in found.values() for label in labels]


def _rounded(prediction: Prediction) -> dict[str, Any]:
    return {**asdict(prediction), "probability": round(prediction.probability, 6)}


def decisions(classifier: Classifier, dtype: Dtype, sampling: FrameOptions) -> dict[str, Any]:
    """Returns what the command will do, JSON-safe."""
    from ...api import token_counts

    model = classifier.model
    return {
        "model": classifier.name,
        "location": classifier.location,
        "architecture": model.config.model_type,
        "labels": model.config.num_labels,
        "dtype": dtype,
        "device": str(classifier.device),
        "token_merging": merging_summary(model),
        "num_tokens": model.config.token_layout.num_tokens,
        "token_counts": token_counts(model),
        "clip": {"frames": model.config.num_frames, **sampling.to_dict()},
        "transform": {"source": classifier.transform_source, **classifier.transform.to_dict()},
    }


def print_decisions(decided: dict[str, Any]) -> None:
    """Prints the output of `decisions`."""
    clip, transform = decided["clip"], decided["transform"]
    spans = {"center": "in the middle of the video", "start": "from the first frame on"}
    spacing = (
        "spread over the video"
        if clip["sampling_rate"] is None
        else f"{clip['sampling_rate']} apart, {spans[clip['strategy']]}"
    )
    size = "x".join(map(str, transform["crop"] or transform["resize"]))
    location = "" if decided["location"] == decided["model"] else f"  ({decided['location']})"
    print_fields(
        [
            ("model", f"{decided['model']}{location}"),
            ("architecture", f"{decided['architecture']}, {decided['labels']} labels"),
            ("merging", describe_merging(decided["token_merging"])),
            ("tokens", describe_counts(decided["token_counts"], decided["num_tokens"])),
            ("clip", f"{clip['frames']} frames, {spacing}; {size} pixels, transform {transform['source']}"),
            ("runs on", f"{decided['device']}, {decided['dtype']}"),
        ]
    )


def _print_table(results: list[dict[str, Any]]) -> None:
    several = len({prediction["task"] for result in results for prediction in result.get("top", [])}) > 1
    text = ["file", *(["task"] if several else []), "label"]
    rows = []
    for result in results:
        shown = None
        for position, prediction in enumerate(result.get("top", [])):
            task = prediction["task"]
            name, probability = prediction["label"], f"{100 * prediction['probability']:.1f} %"
            tasks = ["" if task == shown else task] if several else []
            rows.append(["" if position else result["file"], *tasks, name, probability])
            shown = task
    print_table([*text, "probability"], rows, text=text)
