"""Shared code of commands that evaluate a checkpoint on a dataset: options, requests and execution."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..describe import distinct_names
from .common import (
    Classifier,
    Dtype,
    DtypeOption,
    InputError,
    check_device,
    check_writable,
    describe_merging,
    input_errors,
    load_classifier,
    parse_named_values,
    with_settings,
)
from .printing import fits_bar, live_bar, one_line, print_error, print_fields, print_note

if TYPE_CHECKING:
    from ..data.sampling import ClipSampling
    from ..evaluation import EvaluationResults, Examples, Progress
    from ..evaluation.processes import Processes

SHOWN_FAILURES = 10
_OWN_OPTIONS = {
    "name": "use the option --dataset",
    "split": "use the option --split",
    "data_dir": "use the option --data-dir",
    "annotations": "use the option --annotations",
    "streaming": "rows are always streamed here",
}
_SAMPLING_OPTIONS = ("num_frames", "sampling_rate", "strategy", "num_clips", "num_crops", "target_fps")
_BY_NAME: dict[str, bool | None] = {"auto": None, "name": True, "number": False}
_SPANS = {"center": "in the middle", "start": "from the first frame on", "random": "anywhere"}
SECONDS_BETWEEN_LINES = 30.0


# --- options
Protocol = Literal["single", "full", "paper"]
MixedPrecision = Literal["no", "bf16", "fp16"]
WorkersOption = Annotated[int, typer.Option("--workers", metavar="N", min=0, help="Number of decoding processes.")]
BatchSizeOption = Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Number of videos per batch.")]
DeviceChoice = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Device of the model: cpu, cuda, cuda:1, mps.",
        show_default="a GPU if available",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume the evaluation in the output folder.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Delete the evaluation in the output folder.")]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Use only N videos, evenly spaced over the dataset."),
]


LabelsOption = Annotated[
    Literal["auto", "name", "number"] | None,
    typer.Option(
        "--labels",
        help="Match the dataset's classes with the model's by name or by number; auto: by name if both have names, by "
        "number if the dataset has numbers.",
        show_default="auto",
    ),
]


@dataclass(frozen=True)
class VideoOptions:
    """Options for the videos of a dataset; whether `--dataset` is required depends on the command."""

    # As they were typed: a `Path` would take a slash out of a URL.
    data_dir: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the dataset.")] = None
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Split of the dataset.", show_default="the usual split for evaluation"),
    ] = None
    annotations: Annotated[
        str | None, typer.Option(metavar="FILE", help="Annotation file.", show_default="the usual one in --data-dir")
    ] = None
    data_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of the dataset's loader, such as config_name=noise; can be given more than once.",
        ),
    ] = None

    def loader_options(self) -> dict[str, Any]:
        """Returns the options of the dataset's loader.

        Raises:
            InputError: If a loader option is invalid.
        """
        options = parse_data_options(self.data_option or [])
        return options if self.annotations is None else {**options, "annotations": self.annotations}


@dataclass(frozen=True)
class DataOptions(VideoOptions):
    """Options for the videos and labels of a dataset."""

    labels: LabelsOption = None


@dataclass(frozen=True)
class ClipOptions:
    """Options that override the protocol's sampling of frames."""

    strategy: Annotated[
        Literal["uniform", "center", "start", "random"] | None,
        typer.Option(help="How to sample the frames of a clip.", show_default="by the protocol"),
    ] = None
    sampling_rate: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Distance between two sampled frames.", show_default="by the protocol"),
    ] = None


@dataclass(frozen=True)
class PassOptions:
    """Options for running the model, with the fields of an `EvaluationRequest`."""

    limit: LimitOption = None
    batch_size: BatchSizeOption = 8
    workers: WorkersOption = 2
    dtype: DtypeOption = Dtype.float32
    mixed_precision: Annotated[
        MixedPrecision | None, typer.Option(help="Autocast.", show_default="that of accelerate launch, else no")
    ] = None
    device: DeviceChoice = None


# --- evaluation
@dataclass(frozen=True)
class EvaluationRequest:
    """Request to evaluate one checkpoint on one dataset: the values of the options."""

    model: str
    dataset: str
    data: DataOptions
    settings: Callable[[Classifier], list[dict[str, Any]]] = lambda classifier: [{}]
    protocol: Protocol = "single"
    output: Path | None = None
    sampling: Mapping[str, Any] | None = None
    pad: bool = True
    limit: int | None = None
    batch_size: int = 8
    workers: int = 2
    dtype: Dtype = Dtype.float32
    mixed_precision: MixedPrecision | None = None
    device: str | None = None
    seed: int = 0
    resume: bool = False
    retry_failed: bool = False
    overwrite: bool = False
    reference: Path | None = None
    needs_labels: bool = False


@dataclass(frozen=True)
class FinishedEvaluation:
    """Finished evaluation with its results and timing.

    Attributes:
        results: Results of the evaluation.
        folder: Output folder.
        timing: Content of its `timing.json`; empty except in the main process.
        processes: Processes of the evaluation.
    """

    results: EvaluationResults
    folder: Path
    timing: dict[str, Any]
    processes: Processes


def finish(processes: Processes, failed: bool) -> None:
    """Ends the command in all processes together, since a process that exits early stops the others.

    Raises:
        Exit: With code 2 in the main process, if videos are unreadable.
    """
    processes.wait()
    if failed and processes.is_main:
        raise typer.Exit(2)


def output_folder(model: str, dataset: str, split: str) -> Path:
    """Returns the default output folder of an evaluation, separate for each model."""
    return Path("evaluations") / "-".join((re.sub(r"[^\w.]+", "-", model).strip("-."), dataset, split))


def find_dataset(request: EvaluationRequest) -> tuple[str, str]:
    """Returns the canonical name of the requested dataset and split, before anything is loaded.

    Raises:
        InputError: If the dataset is unknown, or its folder is missing.
    """
    from ..data.loading import DATASETS, canonical_name

    with input_errors(ValueError, at="--dataset"):
        name = canonical_name(request.dataset)
    entry, folder = DATASETS[name], request.data.data_dir
    if entry.on_disk and folder is None:
        raise InputError(f"--data-dir must be given with --dataset {name}: the folder of the dataset")
    if not entry.on_disk and folder is not None:
        raise InputError(f"--data-dir {folder} has no effect with --dataset {name}, which is generated on demand")
    if folder is not None and not Path(folder).expanduser().is_dir():
        raise InputError(f"--data-dir {folder}: no such folder")
    request.data.loader_options()  # checked before anything is loaded
    return name, request.data.split or entry.evaluation_split


def run_evaluation(request: EvaluationRequest, quiet: bool = False) -> FinishedEvaluation:
    """Evaluates a checkpoint on a dataset, in all available processes.

    Args:
        request: The evaluation request.
        quiet: Whether to omit printing the decisions.

    Returns:
        The finished evaluation.

    Raises:
        InputError: If the request is invalid.
    """
    from ..evaluation import evaluate
    from ..evaluation.journal import JournalRemovedError
    from ..evaluation.output import read_timing
    from ..evaluation.processes import Processes

    if request.resume and request.overwrite:
        raise InputError("--resume and --overwrite exclude each other")
    if request.retry_failed and not request.resume:
        raise InputError("--retry-failed has no effect without --resume")
    name, split = find_dataset(request)
    folder = request.output or output_folder(request.model, name, split)
    if request.device is not None:
        check_device(request.device)
    processes = Processes(cpu=request.device == "cpu")
    if processes.count > 1 and request.device not in (None, processes.device.type):
        raise InputError(
            f"--device must be {processes.device.type!r} or omitted with {processes.count} processes, got "
            f"{request.device!r}"
        )
    processes.from_main(lambda: check_writable(folder))
    device = str(processes.device) if request.device is None or processes.count > 1 else request.device
    classifier = load_classifier(request.model, {}, request.dtype, device)
    config: Any = classifier.model.config
    settings = request.settings(classifier)
    resolved = [with_settings(config, changes).token_merging_settings(resolved=True) for changes in settings]
    sampling = choose_sampling(request, name, classifier)
    with input_errors(ValueError, OSError, ImportError, at=f"--dataset {name}"):
        examples = processes.from_main(lambda: load_examples(request, name, split, classifier))
    if request.needs_labels and all(example.labels is None for example in examples.videos):
        raise InputError(f"--dataset {name}: the labels of its {split} split are unknown; choose another with --split")
    mixed_precision = request.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if not quiet and processes.is_main:
        _print_decided(classifier, name, split, examples, sampling, settings, resolved, folder, request, processes)
    try:
        with (
            _progress(settings, len(examples), processes.is_main) as on_progress,
            input_errors(ValueError, FileExistsError),
        ):
            results = evaluate(
                classifier.model,
                examples,
                classifier.transform,
                sampling,
                folder,
                settings=settings,
                batch_size=request.batch_size,
                num_workers=request.workers,
                mixed_precision=mixed_precision,
                pad=request.pad,
                seed=request.seed,
                resume=request.resume,
                retry_failed=request.retry_failed,
                overwrite=request.overwrite,
                reference=request.reference,
                identity={"model": classifier.name, "model_type": config.model_type, "dataset": name, "split": split},
                on_progress=on_progress,
            )
            timing = read_timing(folder, len(settings)) if processes.is_main else {}
    except JournalRemovedError as error:
        raise InputError(f"--output {folder}: {error.strerror}") from error
    except OSError as error:
        raise InputError(
            f"--output {folder}: {one_line(error)}; finished batches are kept, continue with --resume"
        ) from error
    except KeyboardInterrupt:
        print_note(f"interrupted: repeat the command with --resume to continue the evaluation in {folder}")
        raise
    return FinishedEvaluation(results, folder, timing, processes)


def parse_data_options(texts: Sequence[str]) -> dict[str, Any]:
    """Parses the values of `--data-option`, with integers as numbers."""
    options: dict[str, Any] = {}
    for name, value in parse_named_values(texts, "--data-option").items():
        if name in _OWN_OPTIONS:
            raise InputError(f"--data-option {name}={value}: {_OWN_OPTIONS[name]}")
        # Names may begin with a zero, so those are kept as text.
        options[name] = int(value) if re.fullmatch(r"-?(0|[1-9]\d*)", value) else value
    return options


def choose_sampling(request: EvaluationRequest, dataset: str, classifier: Classifier) -> ClipSampling:
    """Returns the sampling preset of the protocol, overridden by the given options.

    Args:
        request: The evaluation request.
        dataset: Canonical name of the dataset.
        classifier: The checkpoint.

    Returns:
        The sampling.

    Raises:
        InputError: If there is no preset, or the options conflict.
    """
    from ..data.sampling import ClipSampling, sampling_preset

    config = classifier.model.config
    given = {name: value for name, value in (request.sampling or {}).items() if value is not None}
    if given.get("strategy") == "uniform" or {"strategy", "sampling_rate"} <= given.keys():
        # The options replace everything that a preset depends on the architecture for.
        with input_errors(ValueError, TypeError, options=_SAMPLING_OPTIONS):
            return ClipSampling(**{"num_frames": config.num_frames, **given})
    hint = "; use --strategy uniform, or --strategy and --sampling-rate"
    with input_errors(ValueError, rewrite=lambda text: f"--protocol {request.protocol}: {text}{hint}"):
        # One view of the many: at the rate of training, which the paper's differs from for VideoMAE.
        single = request.protocol == "single"
        full = request.protocol == "full" or (single and dataset != "moving-digits")
        preset = sampling_preset(
            config.model_type, dataset, num_frames=config.num_frames, protocol="full" if full else "paper"
        )
        if single:
            preset = replace(preset, num_clips=1, num_crops=1)
    with input_errors(ValueError, TypeError, options=_SAMPLING_OPTIONS):
        return ClipSampling(**{**preset.to_dict(), **given})


def read_rows(data: VideoOptions, name: str, split: str) -> Any:
    """Returns the rows of the split; streams them, so that no other split is generated and no cache is used."""
    from ..data.loading import load

    if "[" in split:
        raise ValueError(f"--split must be a whole split, got {split!r}; use --limit for a part of it")
    try:
        return load(name, split, data.data_dir, streaming=True, **data.loader_options())
    except RuntimeError as error:  # datasets keeps a number there
        if "shared memory" not in str(error):
            raise
        raise ValueError(f"/dev/shm must have free shared memory: {error}") from error


def load_examples(request: EvaluationRequest, name: str, split: str, classifier: Classifier) -> Examples:
    """Reads the videos and labels of the split."""
    from ..evaluation import classifier_tasks, read_examples

    rows = read_rows(request.data, name, split)
    config: Any = classifier.model.config
    by_name = _BY_NAME[request.data.labels or "auto"]
    examples = read_examples(rows, classifier_tasks(config), config.id2label, by_name)
    return examples.spread(request.limit)


# --- printing
def _print_decided(
    classifier: Classifier,
    dataset: str,
    split: str,
    examples: Examples,
    sampling: ClipSampling,
    settings: Sequence[Mapping[str, Any]],
    resolved: Sequence[Mapping[str, Any]],
    folder: Path,
    request: EvaluationRequest,
    processes: Processes,
) -> None:
    config: Any = classifier.model.config
    spacing = (
        "one from each of as many segments"
        if sampling.strategy == "uniform"
        else f"{sampling.sampling_rate} apart, {_SPANS[sampling.strategy]}"
    )
    rate = "" if sampling.target_fps is None else f" at {sampling.target_fps:g} frames per second"
    views = f"{sampling.num_clips} x {sampling.num_crops} view{'s' if sampling.num_views > 1 else ''}"
    clips = f"{sampling.num_frames} frames, {spacing}{rate}; {views}; transform {classifier.transform_source}"
    described = [describe_merging(setting) for setting in resolved]
    if len(settings) > 1:
        described = [f"{name}: {words}" for name, words in zip(distinct_names(settings), described, strict=True)]
    device = "cpu" if classifier.device.type == "cpu" else str(classifier.device)
    count = f", {processes.count} processes" if processes.count > 1 else ""
    print_fields(
        [
            ("model", f"{classifier.name} ({config.model_type}, {config.num_labels} outputs)"),
            ("data", f"{dataset}, {split}: {len(examples)} videos"),
            ("classes", ", ".join(_matching(examples.matched_by))),
            ("clips", clips),
            *(("" if number else "settings", words) for number, words in enumerate(described)),
            ("runs on", f"{device}, {request.dtype}{count}"),
            ("output", folder),
        ]
    )


def _matching(matched_by: Mapping[str, str]) -> list[str]:
    """Describes how the dataset's classes were matched with the model's."""
    if len(set(matched_by.values())) == 1:
        return [f"matched by {next(iter(matched_by.values()))}"]
    return [f"{task} matched by {how}" for task, how in matched_by.items()]


@contextmanager
def _progress(
    settings: Sequence[Mapping[str, Any]], total: int, enabled: bool
) -> Iterator[Callable[[Progress], None] | None]:
    """Shows the progress with the running accuracy: as a bar on a terminal, otherwise as occasional lines."""
    if not enabled:
        yield None
        return
    names = distinct_names(settings)

    def text(progress: Progress) -> str:
        parts = [
            f"{name}: {accuracy:.1%}"
            for name, accuracy in zip(names, progress.accuracy, strict=True)
            if accuracy is not None
        ]
        shown = parts if len(parts) <= 3 else [*parts[:3], "..."]
        parts = ["top-1 " + "  ".join(shown)] if shown else []
        parts += [f"waiting for data {progress.waiting:.0%}"]
        parts += [f"{progress.failed} unreadable"] if progress.failed else []
        return "  ".join(parts)

    if not fits_bar():
        last = [time.monotonic()]

        def print_line(progress: Progress) -> None:
            if progress.done == progress.total or time.monotonic() - last[0] >= SECONDS_BETWEEN_LINES:
                last[0] = time.monotonic()
                print_note(f"{progress.done}/{progress.total} videos  {text(progress)}")

        yield print_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    columns = BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn()
    with live_bar(*columns, text_first=False) as bar:
        task = bar.add_task("decoding the first videos", total=total)
        yield lambda progress: bar.update(task, completed=progress.done, description=text(progress))


def report_failures(results: EvaluationResults, folder: Path) -> None:
    """Lists unreadable videos on stderr."""
    for video_id, reason in list(results.failures.items())[:SHOWN_FAILURES]:
        print_error(f"{video_id}: {one_line(reason)}")
    if len(results.failures) > SHOWN_FAILURES:
        print_note(f"{len(results.failures) - SHOWN_FAILURES} more are listed in {folder / 'results.json'}")
    if results.failures:
        print_error(f"{len(results.failures)} of {results.num_videos} videos could not be read and are not counted")
