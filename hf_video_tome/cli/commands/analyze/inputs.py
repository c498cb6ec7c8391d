"""Inputs of analyses: a checkpoint with clips, or the results of an evaluation."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ...common import (
    Classifier,
    Dtype,
    InputError,
    check_device,
    find_checkpoint,
    input_errors,
    load_classifier,
    option_name,
    read_evaluation,
    with_settings,
)
from ...evaluation import (
    SHOWN_FAILURES,
    DataOptions,
    EvaluationRequest,
    choose_sampling,
    find_dataset,
    finish,
    load_examples,
    report_failures,
    run_evaluation,
)
from ...printing import one_line, print_error, print_note, progress_bar
from .options import EvaluatedDataOptions, EvaluationRunOptions, RunOptions
from .results import OutputOptions

if TYPE_CHECKING:
    from ....analysis import Clips
    from ....configuration import TokenMergingConfigMixin
    from ....data.sampling import ClipSampling
    from ....evaluation import Examples, Task

DEFAULT_REMOVED = 0.8
"""Default share of the tokens removed by all layers together."""


@dataclass(frozen=True)
class AnalysisInputs:
    """Checkpoint, clips and merging settings of an analysis."""

    classifier: Classifier
    clips: Clips
    tasks: Sequence[Task]
    settings: dict[str, Any]
    request: EvaluationRequest
    sampling: dict[str, Any]

    def conditions(self) -> dict[str, Any]:
        """Returns the conditions of the analysis, JSON-safe and without paths."""
        from ....analysis.files import model_name

        config: Any = self.classifier.model.config
        dataset, split = find_dataset(self.request)
        return {
            "model": model_name(self.classifier.name),
            "model_type": config.model_type,
            "dataset": dataset,
            "split": split,
            "num_clips": len(self.clips),
            "unreadable": len(self.clips.failures),
            "sampling": self.sampling,
            "transform": self.classifier.transform.to_dict(),
            "resolved": with_settings(config, self.settings).token_merging_settings(resolved=True),
            "batch_size": self.request.batch_size,
            "dtype": self.request.dtype,
            "device": self.classifier.device.type,
            "seed": self.request.seed,
        }

    def name(self, clip: int) -> str:
        """Returns the name of the class of a clip."""
        from ....evaluation import output_name

        config: Any = self.classifier.model.config
        labels = self.clips.labels[clip]
        if labels is None:
            return f"clip {clip}"
        return ", ".join(output_name(config, task, label) for task, label in zip(self.tasks, labels, strict=True))

    def finish(self) -> None:
        """Lists unreadable videos.

        Raises:
            Exit: With code 2, if there are any.
        """
        finish_clips(self.clips)


def finish_clips(clips: Clips) -> None:
    """Lists unreadable videos.

    Raises:
        Exit: With code 2, if there are any.
    """
    failures = clips.failures
    for video_id, reason in list(failures.items())[:SHOWN_FAILURES]:
        print_error(f"{video_id}: {one_line(reason)}")
    if failures:
        print_error(f"{len(failures)} of {len(failures) + len(clips)} videos could not be read")
        raise typer.Exit(2)


def make_request(
    model: str | None, dataset: str | None, data: DataOptions, run: RunOptions, hint: str = "", **others: Any
) -> EvaluationRequest:
    """Builds a request from the options, checked as far as possible without loading anything.

    Args:
        model: Value of `MODEL`.
        dataset: Value of `--dataset`.
        data: Options for the videos.
        run: Options for sampling and running the model.
        hint: Hint at an alternative to a dataset.
        **others: Further fields of the request.

    Raises:
        InputError: If required options are missing or invalid.
    """
    if model is not None:
        find_checkpoint(model)
    if run.device is not None:
        check_device(run.device)
    if model is None:
        raise InputError("MODEL must be given, or --evaluation with the folder of a finished evaluation")
    if dataset is None:
        raise InputError(f"--dataset must be given{hint}")
    fields = {**asdict(run), "dtype": run.dtype or Dtype.float32}
    sampling = {name: fields.pop(name) for name in ("strategy", "sampling_rate")}
    request = EvaluationRequest(model=model, dataset=dataset, data=data, sampling=sampling, **{**fields, **others})
    find_dataset(request)
    return request


def load_evaluated(model: str, results: Mapping[str, Any], device: str = "cpu") -> Classifier:
    """Loads the evaluated checkpoint, in the dtype of the evaluation.

    Args:
        model: Value of `MODEL`.
        results: Results of the evaluation.
        device: Device of the model.

    Raises:
        InputError: If the evaluation belongs to another checkpoint.
    """
    from ....hub import check_evaluation

    classifier = load_classifier(model, {}, results["run"]["dtype"], device)
    with input_errors(ValueError, at=f"MODEL {model}"):
        check_evaluation(results, classifier.model)
    return classifier


def take_results(
    kind: str,
    model: str | None,
    dataset: str | None,
    data: EvaluatedDataOptions,
    run: EvaluationRunOptions,
    files: OutputOptions,
    *,
    settings: Callable[[Classifier], list[dict[str, Any]]],
    check: Callable[[dict[str, Any]], object],
) -> tuple[Path, dict[str, Any], bool]:
    """Runs an evaluation, or reads a finished one; ends the command in all processes but the main one.

    Args:
        kind: Kind of the analysis.
        model: Value of `MODEL`.
        dataset: Value of `--dataset`.
        data: Options for the videos, or for the finished evaluation.
        run: Options for sampling and running the model.
        files: Options for the output.
        settings: Function that returns the settings to evaluate.
        check: Function that raises an `InputError` if a finished evaluation cannot be analysed.

    Returns:
        The output folder of the analysis, the results, and whether videos are unreadable.

    Raises:
        InputError: If required options are missing or invalid.
    """
    target, evaluation = files.folder(kind, model, data.evaluation), data.evaluation
    if evaluation is not None:
        kept = ("evaluation", "batch_size", "workers", "device", "seed")  # which it leaves open
        for name, value in {"dataset": dataset, **asdict(run), **asdict(data)}.items():
            if value and name not in kept:
                raise InputError(f"{option_name(name)} and --evaluation exclude each other")
        results = read_evaluation(evaluation)
        check(results)
        files.check(target, kind)
        return target, results, False
    request = make_request(
        model,
        dataset,
        data,
        run,
        ", or --evaluation",
        settings=settings,
        output=target / "evaluation",
        overwrite=files.overwrite,
        needs_labels=True,
    )
    files.check(target, kind, run.resume)
    finished = run_evaluation(request, quiet=files.as_json)
    if finished.processes.is_main:
        report_failures(finished.results, finished.folder)
    finish(finished.processes, False)
    if not finished.processes.is_main:
        raise typer.Exit
    # As it is read from a file: JSON has no tuples and no other keys than strings.
    return target, json.loads(json.dumps(finished.results.to_dict())), bool(finished.results.failures)


def load(
    request: EvaluationRequest,
    choose: Callable[[Examples], Examples],
    given: Mapping[str, Any],
    check: Callable[[TokenMergingConfigMixin], object] = lambda config: None,
) -> AnalysisInputs:
    """Loads the checkpoint and decodes the clips.

    Args:
        request: The request.
        choose: Function that selects videos of the split.
        given: The given merging options.
        check: Function that raises a ValueError if the model with these settings cannot be analysed.
    """
    from ....evaluation import classifier_tasks

    check_one_process()
    name, split = find_dataset(request)
    classifier = load_classifier(request.model, {}, request.dtype, choose_device(request.device))
    config: Any = classifier.model.config
    settings, changed = merging_of(given, classifier)
    with input_errors(ValueError, options=("r", "share", "region")):
        check(changed)
    sampling = choose_sampling(request, name, classifier)
    with input_errors(ValueError, OSError, ImportError, at=f"--dataset {name}"):
        examples = choose(load_examples(request, name, split, classifier))
    clips = decode(examples, sampling, classifier, request, f"--dataset {name}")
    return AnalysisInputs(classifier, clips, classifier_tasks(config), settings, request, sampling.to_dict())


def check_one_process() -> None:
    """Rejects several processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("this command runs in one process: start it without torchrun or accelerate launch")


def decode(
    examples: Examples, sampling: ClipSampling, classifier: Classifier, request: EvaluationRequest, at: str
) -> Clips:
    """Decodes one clip per video, with a progress bar.

    Args:
        examples: The videos.
        sampling: How to sample frames.
        classifier: The model.
        request: The request.
        at: Option that names the videos, for errors.

    Returns:
        The clips that could be read.

    Raises:
        InputError: If none could be read.
    """
    from ....analysis import load_clips

    batches = -(-len(examples) // request.batch_size)
    with progress_bar(f"decoding {len(examples)} clips", batches) as advance, input_errors(ValueError, at=at):
        return load_clips(
            examples,
            sampling,
            classifier.transform,
            batch_size=request.batch_size,
            num_workers=request.workers,
            seed=request.seed,
            on_progress=advance,
        )


def choose_device(name: str | None) -> str:
    """Returns the given device, or by default a GPU if available."""
    import torch

    if name is not None:
        check_device(name)
        return name
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


def with_default_r(settings: Mapping[str, Any], classifier: Classifier) -> dict[str, Any]:
    """Returns settings with an r: as given, as saved with the checkpoint, or one that removes most of the tokens."""
    config: Any = classifier.model.config
    if "r" in settings or any(config.token_merging_plan().requested):
        return dict(settings)
    share = round(DEFAULT_REMOVED / config.num_merging_layers, 4)
    print_note(f"--r was not given: {share:g} of the tokens in each layer")
    return {**settings, "r": min(share, 0.5)}


def merging_of(given: Mapping[str, Any], classifier: Classifier) -> tuple[dict[str, Any], TokenMergingConfigMixin]:
    """Returns the given merging options as settings with an r, and a config with these settings.

    Raises:
        InputError: If they conflict with the model, or nothing is merged.
    """
    settings = with_default_r(given, classifier)
    changed = with_settings(classifier.model.config, settings)
    if not any(changed.token_merging_plan().requested):
        raise InputError(f"--r must be more than 0, so that tokens are merged, got {changed.token_merging_r}")
    return settings, changed
