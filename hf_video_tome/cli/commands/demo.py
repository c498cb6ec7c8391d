"""`hf-video-tome demo`: offline demo on real video files with a trained checkpoint."""

from __future__ import annotations

import shlex
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...checkpoints import DEFAULT_CHECKPOINT
from ..common import (
    Classifier,
    JsonOption,
    cpu_threads,
    input_errors,
    load_classifier,
    print_busy,
    require_packages,
)
from ..merging_options import parse_setting
from ..printing import print_line, print_paragraph, print_table, progress_bar, write_json

if TYPE_CHECKING:
    import torch

HELP = """Show token merging at work, offline: accuracy, tokens and speed at several r, and a picture of merged tokens.

Write real video files of moving handwritten digits, decode them, and classify them with a small, trained, bundled
VideoMAE. Takes less than a minute.

\b
Example:
  hf-video-tome demo --output demo-output
"""
SHORT_HELP = "Show token merging at work, offline, on a small trained model."
KEPT_CLIPS = 6
BATCH_SIZE = 24
MIN_TIMED_BATCHES = 10
CAPTION = (
    "Moving Digits is synthetic motion of real handwritten digits, not Kinetics. The model is tiny ({tokens} tokens "
    "of width {width}): its speed-up is far below that of a base-size model, for which see the README."
)


@dataclass(frozen=True)
class Variant:
    """Measurements at one value of r.

    Attributes:
        r: The value.
        tokens: Number of tokens before the first and after the last layer.
        removed: Share of the tokens removed by all layers together, 0 to 1.
        accuracy: Action accuracy, 0 to 1.
        standard_error: Standard error of the accuracy.
        nll: Mean negative log-likelihood of the correct action, in nats.
        agreement: Share of clips with the same prediction as at r = 0, 0 to 1.
        clips_per_second: Batch size divided by the median time of a batch.
        speedup: Median over the batches of the time at r = 0 divided by the time at this r.
    """

    r: int | float
    tokens: tuple[int, int]
    removed: float
    accuracy: float
    standard_error: float
    nll: float
    agreement: float
    clips_per_second: float
    speedup: float


def command(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the video files and the picture.")
    ] = Path("demo-output"),
    clips: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of test clips to classify; multiples of 120 contain each action equally often.",
        ),
    ] = 360,
    r: Annotated[
        str,
        typer.Option(
            metavar="R,R,...",
            help="Number of tokens to remove per layer: comma-separated numbers (24) or shares (0.1) to compare.",
        ),
    ] = "0,24,38,46",
    threads: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of CPU threads. One is stable even on a busy machine; such a small model gains little by "
            "more.",
        ),
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"scikit-learn": "sklearn", "matplotlib": "matplotlib"}, extra="demo")
    with cpu_threads(threads):
        _run(output, clips, _parse_values(r), as_json)


def _run(output: Path, clips: int, values: list[int | float], as_json: bool) -> None:
    from ...benchmark.timing import ProcessorTime, busy_warning

    with input_errors(OSError, at=f"--output {output}"):
        (output / "clips").mkdir(parents=True, exist_ok=True)
    # Set when loading, as a user would do; later values are set with `set_token_merging`.
    classifier = load_classifier(None, {"r": values[-1]})
    for value in values:
        with input_errors(ValueError, at="--r"):
            classifier.model.set_token_merging(r=value)

    with progress_bar(f"writing and decoding {clips} video files", clips) as advance:
        frames, labels, paths = _make_clips(classifier, output / "clips", clips, advance)
    pixel_values = [classifier.transform(clip) for clip in frames]
    steps = len(values) * max(-(-clips // BATCH_SIZE), MIN_TIMED_BATCHES)
    with (
        progress_bar(f"classifying them at {len(values)} values of r", steps) as advance,
        ProcessorTime() as processor,
    ):
        variants = measure(classifier.model, pixel_values, labels, values, advance)
    picture = _draw(
        classifier, frames[0], pixel_values[0], paths[0].name, labels[0], values, output / "merged-tokens.png"
    )

    conditions = {**_conditions(classifier, clips), "processor_share": processor.share}
    if as_json:
        print_busy(processor.share)
        results = [asdict(variant) for variant in variants]
        write_json({**conditions, "results": results, "picture": str(picture), "clips_folder": str(output / "clips")})
        return
    _print_table(variants)
    threads = f"{conditions['threads']} thread{'s' if conditions['threads'] > 1 else ''}"
    print_paragraph(
        f"{clips} test clips; accuracy ± standard error; agreement: same answer as at r = 0. Speed: medians over "
        f"batches of {conditions['batch_size']} in {conditions['dtype']} on {conditions['device']}, "
        f"{threads}, values of r taken in turn; torch {conditions['torch']}, "
        f"transformers {conditions['transformers']}."
    )
    busy = busy_warning(processor.share)
    if busy is not None:
        print_paragraph(busy)
    print_paragraph(conditions["caption"])
    print_line()
    print_line(f"picture:      {picture}")
    print_line(f"video files:  {output / 'clips'}")
    print_line(f"next:         hf-video-tome classify {shlex.quote(str(output / 'clips'))}/*.mp4 --r {values[-1]}")


def measure(
    model: Any,
    clips: Sequence[torch.Tensor],
    labels: Sequence[int],
    values: Sequence[int | float],
    advance: Callable[[], None] = lambda: None,
) -> list[Variant]:
    """Measures a classifier at several r, in turn on each batch, so that a busy machine slows all of them equally.

    Args:
        model: A model that can merge tokens, in eval mode. Its r is changed.
        clips: Inputs (T, 3, H, W), float.
        labels: Class index of each clip.
        values: Values of r; the first is 0.
        advance: Called after each timed forward pass.

    Returns:
        One `Variant` per value.
    """
    import torch

    from ...api import token_counts
    from ...benchmark.timing import interleave, ratio, stopwatch
    from ...evaluation import check_finite
    from ...metrics.standard_errors import share_with_error

    batches = torch.stack(list(clips)).split(BATCH_SIZE)
    full = [batch for batch in batches if len(batch) == len(batches[0])]
    # Few clips make few batches: then they go round again, for the timing only.
    rounds = [*batches, *(full[index % len(full)] for index in range(MIN_TIMED_BATCHES - len(batches)))]
    logits: list[list[torch.Tensor]] = [[] for _ in values]

    def passes(r: int | float, answers: list[torch.Tensor]) -> Callable[[], Callable[[], object]]:
        turns = iter((batches[0], *rounds))  # the first to warm up

        def prepare() -> Callable[[], object]:
            model.set_token_merging(r=r)
            batch = next(turns)
            return lambda: answers.append(model(batch).logits)

        return prepare

    runs = [passes(value, answers) for value, answers in zip(values, logits, strict=True)]
    with torch.inference_mode():
        interleave(runs, 1, stopwatch())
        times = interleave(runs, len(rounds), stopwatch(), advance)
    timed = [[one for one, batch in zip(own, rounds, strict=True) if len(batch) == len(batches[0])] for own in times]

    target = torch.tensor(labels)
    answers = [torch.cat(found[1 : 1 + len(batches)]) for found in logits]
    for answer in answers:
        check_finite(answer)
    variants = []
    for value, answer, seconds in zip(values, answers, timed, strict=True):
        model.set_token_merging(r=value)
        counts = token_counts(model)
        predicted = answer.argmax(-1)
        accuracy, standard_error = share_with_error((predicted == target).numpy())
        variants.append(
            Variant(
                r=value,
                tokens=(counts[0], counts[-1]),
                removed=1 - counts[-1] / counts[0],
                accuracy=accuracy,
                standard_error=standard_error,
                nll=torch.nn.functional.cross_entropy(answer.float(), target).item(),
                agreement=(predicted == answers[0].argmax(-1)).double().mean().item(),
                clips_per_second=len(batches[0]) / statistics.median(seconds),
                speedup=ratio(timed[0], seconds).median,
            )
        )
    return variants


def _parse_values(text: str) -> list[int | float]:
    """Parses the values of r, without duplicates and with r = 0 first, as the baseline."""
    values: list[int | float] = [0]
    for part in text.split(","):
        value = parse_setting("r", part.strip(), "each value of --r")
        if not isinstance(value, list) and value not in values:
            values.append(value)
    return values


def _make_clips(
    classifier: Classifier, folder: Path, count: int, advance: Callable[[], None]
) -> tuple[list[torch.Tensor], list[int], list[Path]]:
    """Renders, encodes and decodes test clips; only the first few files are kept."""
    from ...data.moving_digits import VARIANTS, write_clips
    from ...data.sampling import sample_frame_indices
    from ...data.video.decoding import read_frames

    config = VARIANTS["standard"]
    wanted = classifier.model.config.num_frames
    indices = sample_frame_indices(config.num_frames, wanted, config.num_frames // wanted, "start")
    frames, labels, paths = [], [], []
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(count):
            (written,) = write_clips(folder if index < KEPT_CLIPS else scratch, "test", [index], config)
            frames.append(read_frames(written.path, indices))
            labels.append(written.label.action)
            if index < KEPT_CLIPS:
                paths.append(folder / written.path.name)
            else:
                written.path.unlink()
            advance()
    return frames, labels, paths


def _draw(
    classifier: Classifier,
    frames: torch.Tensor,
    pixel_values: torch.Tensor,
    name: str,
    label: int,
    values: Sequence[int | float],
    path: Path,
) -> Path:
    """Draws the tokens of one clip at the smallest and the largest r."""
    import torch

    from ...evaluation import predict_labels
    from ...visualization import ClipGeometry, model_view, save_contact_sheet

    model = classifier.model
    merging = [value for value in values if value] or [0]
    traces, answers = {}, {}
    with torch.inference_mode():
        for value in dict.fromkeys((0, merging[0], merging[-1])):
            model.set_token_merging(r=value)
            out = model(pixel_values[None], output_token_merging=True)
            answers[value] = ", ".join(best.label for (best,) in predict_labels(out.logits[0], model.config).values())
            if value in merging:
                traces[f"r = {value}"] = out.token_merging
    answered = ", ".join(f"{text!r} at r = {value}" for value, text in answers.items())
    return save_contact_sheet(
        path,
        model_view(frames, classifier.transform),
        traces,
        ClipGeometry.from_config(model.config),
        title=f"{DEFAULT_CHECKPOINT}, clip of {model.config.id2label[label]!r} ({name}); answers: {answered}",
        note="Each token that the last layer leaves is filled with the mean colour of all that it stands for, and its "
        "outline has the same colour in all frames. Dark outlines: tokens that were not merged.",
    )


def _conditions(classifier: Classifier, clips: int) -> dict[str, Any]:
    """Returns the measuring conditions, JSON-safe."""
    import torch
    import transformers

    config = classifier.model.config
    return {
        "model": classifier.name,
        "location": classifier.location,
        "data": "Moving Digits, test split, mp4 (H.264)",
        "clips": clips,
        "batch_size": min(BATCH_SIZE, clips),
        "dtype": str(classifier.model.dtype).removeprefix("torch."),
        "device": str(classifier.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "caption": CAPTION.format(tokens=config.token_layout.num_tokens, width=config.hidden_size),
    }


def _print_table(variants: Sequence[Variant]) -> None:
    names = ("r", "tokens", "removed", "accuracy", "agreement", "clips/s", "speed-up")
    rows = [
        (
            str(variant.r),
            f"{variant.tokens[0]} → {variant.tokens[1]}",
            f"{variant.removed:.0%}",
            f"{100 * variant.accuracy:.1f} ± {100 * variant.standard_error:.1f} %",
            f"{100 * variant.agreement:.1f} %",
            f"{variant.clips_per_second:.0f}",
            f"{variant.speedup:.2f}x",
        )
        for variant in variants
    ]
    print_table(names, rows, text=(), title=f"{DEFAULT_CHECKPOINT}: tokens merged without any training")
