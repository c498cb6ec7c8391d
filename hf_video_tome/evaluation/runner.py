"""Evaluation of a classifier on a data set: on any number of processes, resumable, several settings in one pass."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from ..api import set_token_merging, token_counts
from ..configuration import TokenMergingConfigMixin
from ..data.sampling import ClipSampling
from .examples import DecodedBatch, Example, decode_batches, read_examples
from .journal import Journal, Row
from .output import close_output, in_order, open_output, read_predictions
from .processes import Processes
from .results import EvaluationResults, predict_video, summarize
from .tasks import Task, classifier_tasks

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

MIXED_PRECISION = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is, over all processes.

    Attributes:
        done: Videos that are through, those that could not be read included.
        total: Videos in all.
        failed: Videos that could not be read.
        accuracy: Top-1 accuracy so far with each of the settings, 0 to 1 (all tasks right); None where there is none.
        waiting: Share of this process's time that the model waited for decoded videos, 0 to 1.
    """

    done: int
    total: int
    failed: int
    accuracy: tuple[float | None, ...]
    waiting: float


class _Clock:
    """Where the time of this process goes, in seconds, from the moment when the first batch is there."""

    def __init__(self, num_settings: int) -> None:
        self.startup = 0.0  # until then
        self.waiting = 0.0
        self.total = 0.0
        self.models: list[list[tuple[int, float]]] = [[] for _ in range(num_settings)]  # (clips, seconds) of batches
        self._began = 0.0

    def waited(self, batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
        """Passes batches on and counts how long they take to come."""
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            arrived = time.perf_counter()
            if number:
                self.waiting += arrived - began
            else:
                self.startup, self._began = arrived - began, arrived
            yield batch
            began = time.perf_counter()

    def lap(self) -> None:
        """Takes the time."""
        self.total = time.perf_counter() - self._began

    @property
    def waiting_share(self) -> float:
        return self.waiting / self.total if self.total else 0.0

    def clips_per_second(self) -> list[float | None]:
        """Of the model alone, with each of the settings, without the first batch, which warms up."""
        rates: list[float | None] = []
        for batches in self.models:
            counted = batches[1:] or batches
            seconds = sum(seconds for _, seconds in counted)
            rates.append(round(sum(clips for clips, _ in counted) / seconds, 3) if seconds else None)
        return rates


def evaluate(
    model: nn.Module,
    dataset: Iterable[Mapping[str, Any]] | Sequence[Example],
    transform: ClipTransform,
    sampling: ClipSampling,
    output: str | os.PathLike[str],
    *,
    settings: Sequence[Mapping[str, Any]] = ({},),
    batch_size: int = 8,
    num_workers: int = 2,
    mixed_precision: str = "no",
    match_labels_by_name: bool | None = None,
    pad: bool = True,
    seed: int = 0,
    top_k: int = 5,
    resume: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
    reference: str | os.PathLike[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> EvaluationResults:
    """Measures a classifier on a data set, with several token merging settings in one pass over the decoded videos.

    Started by `accelerate launch` or torchrun, the processes share the work; each video is counted once. Predictions
    go to `output` batch by batch. The videos of a batch and their random numbers depend neither on the number of
    processes nor on interruptions, so a resumed evaluation ends in the same files as one that ran through.

    Args:
        model: A video classifier on its device; in eval mode afterwards, its token merging settings as before.
        dataset: Rows as described at `read_examples`, those of `hf_video_tome.data.load` for instance; or what
            `read_examples` made of them.
        transform: How frames become the model's input.
        sampling: Which frames of a video are looked at. The probabilities of several views are averaged.
        output: Folder for `predictions.jsonl`, `results.json`, `timing.json` and what is needed to resume; shared by
            all processes.
        settings: Token merging settings to measure, as for `set_token_merging`, relative to those that the model has.
            The first is what the others are compared with.
        batch_size: Videos decoded together, and clips that go through the model together.
        num_workers: Processes that decode ahead of each process's model; 0 decodes in between.
        mixed_precision: "no", "bf16" or "fp16": autocast of the model.
        match_labels_by_name: Whether the data set's classes are matched with `config.id2label` by name (True), taken
            by number (False), or by name where both have names (None).
        pad: Whether a video with too few frames repeats its last one, or counts as one that cannot be read.
        seed: Of random sampling and of the random modes.
        top_k: Labels to store for each video.
        resume: Go on with what is in `output`.
        retry_failed: When resuming, try again the videos that could not be read.
        overwrite: Delete what is in `output`.
        reference: Folder of an earlier evaluation of the same videos to compare all settings with, in place of the
            first setting.
        identity: What else a resumed evaluation must agree on (names of model and data set), JSON-safe; goes into
            `run.json` and the results.
        on_progress: Called after each batch, in the main process.

    Returns:
        The results, in all processes.

    Raises:
        ValueError: If an argument, the data set or the settings are not as described, `output` has results of another
            evaluation, or the logits are not finite.
        FileExistsError: If `output` has results and neither `resume` nor `overwrite` is set.

    Examples:
        >>> import tempfile
        >>> from transformers import AutoModelForVideoClassification
        >>> import hf_video_tome
        >>> from hf_video_tome.checkpoints import checkpoint_path
        >>> from hf_video_tome.data import ClipSampling, ClipTransform
        >>> from hf_video_tome.data.moving_digits import write_clips
        >>> folder = tempfile.mkdtemp()
        >>> rows = [{"video": str(clip.path), "label": clip.label.action}
        ...         for clip in write_clips(folder, "test", range(8))]
        >>> checkpoint = checkpoint_path("videomae-moving-digits")
        >>> model = AutoModelForVideoClassification.from_pretrained(checkpoint)
        >>> transform = ClipTransform.from_pretrained(checkpoint)
        >>> results = evaluate(model, rows, transform, ClipSampling(16), folder + "/results",
        ...                    settings=[{"r": 0}, {"r": 38}], num_workers=0)
        >>> [setting.token_counts[-1] for setting in results.settings]
        [288, 60]
    """
    if mixed_precision not in MIXED_PRECISION:
        allowed = ", ".join(map(repr, MIXED_PRECISION))
        raise ValueError(f"mixed_precision must be one of {allowed}, got {mixed_precision!r}")
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("top_k", top_k, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other, got True for both")
    if retry_failed and not resume:
        raise ValueError("retry_failed must go with resume, got resume=False")
    if not settings:
        raise ValueError("settings must hold at least one dictionary of token merging settings, got none")

    processes = Processes()
    folder = Path(output)
    config: Any = model.config
    tasks = classifier_tasks(config)
    if isinstance(dataset, Sequence) and dataset and isinstance(dataset[0], Example):
        examples: Sequence[Example] = cast("Sequence[Example]", dataset)
    else:
        rows = cast("Iterable[Mapping[str, Any]]", dataset)
        examples = read_examples(rows, tasks, config.id2label, match_labels_by_name)
    transform.check_config(config)
    if sampling.num_frames != config.num_frames:
        raise ValueError(
            f"sampling must take the {config.num_frames} frames that the model expects, got {sampling.num_frames}"
        )
    if transform.output_size is None:
        raise ValueError(f"transform must give frames of one size, so that videos can be batched, got {transform}")

    with _restored_settings(model) as base:
        described = []
        for changes in settings:
            _apply(model, base, changes)
            described.append(
                {"changes": dict(changes), "resolved": _resolved(model), "token_counts": _counts(model)},
            )
        run = {
            **(identity or {}),
            "settings": described,
            "tasks": {task.name: task.size for task in tasks},
            "num_videos": len(examples),
            "videos": _digest(examples),
            "weights": _digest_weights(model),
            "transform": transform.to_dict(),
            "sampling": sampling.to_dict(),
            "pad": pad,
            "batch_size": batch_size,
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            "mixed_precision": mixed_precision,
            "device": next(model.parameters()).device.type,
            "seed": seed,
            "top_k": top_k,
        }
        earlier = None if reference is None else read_predictions(reference, examples)
        batches = {
            number: range(first, min(first + batch_size, len(examples)))
            for number, first in enumerate(range(0, len(examples), batch_size))
        }
        done = processes.from_main(
            lambda: open_output(folder, run, batches, resume=resume, overwrite=overwrite, retry_failed=retry_failed)
        )
        mine = {
            number: positions
            for number, positions in batches.items()
            if number not in done and number % processes.count == processes.index
        }
        clock = _Clock(len(settings))
        loop = _Loop(
            model=model,
            base=base,
            settings=settings,
            examples=examples,
            tasks=tasks,
            transform=transform,
            sampling=sampling,
            batch_size=batch_size,
            num_workers=num_workers,
            mixed_precision=mixed_precision,
            pad=pad,
            seed=seed,
            top_k=top_k,
        )
        with Journal(folder, processes.index) as journal:
            loop.run(mine, journal, clock, on_progress if processes.is_main else None)
    processes.wait()

    def finish() -> EvaluationResults:
        rows = in_order(journal.rows(), len(examples), len(settings))
        results = summarize(run, rows, tasks, earlier)
        timing = {
            "processes": processes.count,
            "startup_seconds": round(clock.startup, 3),
            "seconds": round(clock.total, 3),
            "waiting_for_data": round(clock.waiting_share, 4),
            "clips_per_second": clock.clips_per_second(),
            "torch_threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        close_output(folder, rows, results, timing)
        journal.delete()
        return results

    return processes.from_main(finish)


# --- the loop
@dataclass(frozen=True)
class _Loop:
    """What happens to each batch; the fields are those of `evaluate`."""

    model: Any
    base: Mapping[str, Any]  # the settings that the model came with
    settings: Sequence[Mapping[str, Any]]
    examples: Sequence[Example]
    tasks: Sequence[Task]
    transform: ClipTransform
    sampling: ClipSampling
    batch_size: int
    num_workers: int
    mixed_precision: str
    pad: bool
    seed: int
    top_k: int

    def run(
        self,
        batches: Mapping[int, Sequence[int]],
        journal: Journal,
        clock: _Clock,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Goes through the batches of this process."""
        device = next(self.model.parameters()).device
        tally = _Tally(len(self.examples), len(self.settings), self.tasks)
        training = self.model.training
        self.model.eval()
        if on_progress is not None:
            on_progress(tally.progress(journal.new_rows(), 0.0))
        decoded = decode_batches(
            self.examples,
            batches,
            self.sampling,
            self.transform,
            num_workers=min(self.num_workers, len(batches)),
            pad=self.pad,
            seed=self.seed,
            pin_memory=device.type == "cuda",
        )
        for batch in clock.waited(decoded):
            journal.append(self.rows(batch, clock))
            clock.lap()
            if on_progress is not None:
                on_progress(tally.progress(journal.new_rows(), clock.waiting_share))
        self.model.train(training)

    def rows(self, batch: DecodedBatch, clock: _Clock) -> list[Row]:
        """Predicts one batch with all of the settings."""
        rows: list[Row] = [
            {"position": position, "video_id": self.examples[position].video_id, "error": reason}
            for position, reason in sorted(batch.failures.items())
        ]
        if batch.views is None:
            return rows
        parameter = next(self.model.parameters())
        frames = batch.views.to(parameter.device, non_blocking=True)
        pixel_values = self.transform.normalize(frames).to(parameter.dtype)
        for index, changes in enumerate(self.settings):
            _apply(self.model, self.base, changes)
            logits, seconds = self.forward(pixel_values, batch.number)
            clock.models[index].append((len(pixel_values), seconds))
            views = logits.chunk(len(batch.positions))
            for position, video in zip(batch.positions, views, strict=True):
                rows.append(self.predict(video, position, index))
        return rows

    def forward(self, pixel_values: torch.Tensor, number: int) -> tuple[torch.Tensor, float]:
        """Gives the logits (clips, outputs) on the CPU in float64, and how long the model took in seconds."""
        device = pixel_values.device
        low = MIXED_PRECISION[self.mixed_precision]
        precision: AbstractContextManager[Any] = torch.autocast(device.type, low) if low is not None else nullcontext()
        # The random modes draw from the global generator: the same numbers for a batch, whatever ran before.
        torch.manual_seed(int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0]))
        _synchronize(device)
        began = time.perf_counter()
        with torch.inference_mode(), precision:
            logits = torch.cat([self.model(clips).logits for clips in pixel_values.split(self.batch_size)])
        _synchronize(device)
        return logits.double().cpu(), time.perf_counter() - began

    def predict(self, logits: torch.Tensor, position: int, setting: int) -> Row:
        """Makes a row of the logits (views, outputs) of one video."""
        example, changes = self.examples[position], dict(self.settings[setting])
        if not torch.isfinite(logits).all():
            raise ValueError(
                f"the logits for {example.video_id!r} are not finite with the settings {changes}: the model may need "
                "a wider dtype"
            )
        return {
            "position": position,
            "video_id": example.video_id,
            "setting": setting,
            "token_merging": changes,
            **predict_video(logits.numpy(), self.tasks, example.labels, self.top_k),
        }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Tally:
    """Running accuracy over the rows of all processes."""

    def __init__(self, total: int, num_settings: int, tasks: Sequence[Task]) -> None:
        self.total, self.tasks = total, tasks
        self.done: set[int] = set()
        self.failed: set[int] = set()
        self.right: list[dict[int, bool]] = [{} for _ in range(num_settings)]

    def progress(self, rows: Iterable[Row], waiting: float) -> Progress:
        for row in rows:
            if "error" in row:
                self.failed.add(row["position"])
                self.done.add(row["position"])
                continue
            if row["setting"] == len(self.right) - 1:
                self.done.add(row["position"])
            ranks = [row[f"{task.name}_rank"] for task in self.tasks]
            if None not in ranks:
                self.right[row["setting"]][row["position"]] = not any(ranks)
        accuracy = tuple(sum(right.values()) / len(right) if right else None for right in self.right)
        return Progress(len(self.done), self.total, len(self.failed), accuracy, waiting)


# --- settings
@contextmanager
def _restored_settings(model: Any) -> Iterator[dict[str, Any]]:
    """Gives the token merging settings that the model has, and puts them back afterwards."""
    config = model.config
    if not isinstance(config, TokenMergingConfigMixin):
        yield {}
        return
    base = config.token_merging_settings()
    try:
        yield base
    finally:
        set_token_merging(model, **base)


def _apply(model: Any, base: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    if base or changes:
        set_token_merging(model, **{**base, **changes})


def _resolved(model: Any) -> dict[str, Any]:
    """The settings with the architecture's choices filled in; none for a stock model."""
    config = model.config
    return config.token_merging_settings(resolved=True) if isinstance(config, TokenMergingConfigMixin) else {}


def _counts(model: Any) -> list[int] | None:
    return token_counts(model) if isinstance(model.config, TokenMergingConfigMixin) else None


# --- what identifies a run
def _digest(examples: Sequence[Example]) -> str:
    """Fingerprint of which videos with which labels are evaluated, wherever they lie."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.video_id, example.segment, example.labels)).encode())
    return digest.hexdigest()[:16]


def _digest_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
