"""Evaluation loop: runs decoded batches through the model, once per setting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..models.pixel_dtype import pixel_dtype
from ..tasks import Task, check_finite
from .decoding import DecodedBatch, ViewDecoder, WorkerDied, dead_workers_noticed
from .journal import Journal, Row
from .results import predict_video

MIXED_PRECISION = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Progress:
    """Progress of an evaluation over all processes.

    Attributes:
        done: Number of processed videos, including unreadable ones.
        total: Total number of videos.
        failed: Number of unreadable videos.
        accuracy: Top-1 accuracy so far with each setting, 0 to 1 (all tasks correct); None without labels.
        waiting: Share of this process's time spent waiting for decoded videos, 0 to 1.
    """

    done: int
    total: int
    failed: int
    accuracy: tuple[float | None, ...]
    waiting: float


class EvaluationTimer:
    """Timer of a process: seconds spent on data and models, from the arrival of the first batch."""

    def __init__(self, num_settings: int) -> None:
        self.startup = 0.0  # until the first batch
        self.waiting = 0.0
        self.total = 0.0
        self.models: list[list[tuple[int, float]]] = [[] for _ in range(num_settings)]  # (clips, seconds) of batches
        self._began: float | None = None

    def waited(self, batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
        """Yields batches and measures the time spent waiting for them."""
        began = time.perf_counter()
        for batch in batches:
            arrived = time.perf_counter()
            if self._began is None:
                self.startup, self._began = arrived - began, arrived
            else:
                self.waiting += arrived - began
            yield batch
            self.total = time.perf_counter() - self._began
            began = time.perf_counter()

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting for batches, 0 to 1."""
        return self.waiting / self.total if self.total else 0.0

    def measured(self) -> dict[str, Any]:
        """Returns the measurements, JSON-safe; model speeds exclude the first batch as warm-up."""
        rates: list[float | None] = []
        for batches in self.models:
            counted = batches[1:] or batches
            seconds = sum(seconds for _, seconds in counted)
            rates.append(sum(clips for clips, _ in counted) / seconds if seconds else None)
        return {"startup": self.startup, "total": self.total, "waiting": self.waiting, "clips_per_second": rates}

    @staticmethod
    def together(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Combines the measurements of all processes: longest times, mean waiting share, sum of speeds."""
        total = sum(times["total"] for times in measured)
        rates = zip(*(times["clips_per_second"] for times in measured), strict=True)
        known = [[rate for rate in setting if rate is not None] for setting in rates]
        return {
            "startup_seconds": round(max(times["startup"] for times in measured), 3),
            "seconds": round(max(times["total"] for times in measured), 3),
            "waiting_for_data": round(sum(times["waiting"] for times in measured) / total, 4) if total else 0.0,
            "clips_per_second": [round(sum(setting), 3) if setting else None for setting in known],
        }


@dataclass(frozen=True)
class EvaluationLoop:
    """Evaluation loop over batches, with the arguments of `evaluate` as fields."""

    model: Any
    apply: Callable[[Mapping[str, Any]], None]  # applies one of the settings to the model
    settings: Sequence[Mapping[str, Any]]
    tasks: Sequence[Task]
    decoder: ViewDecoder
    batch_size: int
    num_workers: int
    mixed_precision: str
    top_k: int

    def run(
        self,
        batches: Mapping[int, Sequence[int]],
        journal: Journal,
        timer: EvaluationTimer,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Evaluates batches.

        Args:
            batches: Mapping from the indices of this process's batches to the positions of their videos.
            journal: Journal for the predictions.
            timer: Timer of this process.
            on_progress: Called after each batch, and while other processes are still running.
        """
        tally = _RunningAccuracy(len(self.decoder.examples), len(self.settings), self.tasks)

        def report() -> None:
            if on_progress is not None:
                on_progress(tally.progress(journal.new_rows(), timer.waiting_share))

        training = self.model.training
        self.model.eval()
        try:
            report()
            todo = dict(batches)
            while todo:
                try:
                    with dead_workers_noticed():
                        for batch in timer.waited(self.decode(todo)):
                            journal.append(self.rows(batch, timer))
                            del todo[batch.number]
                            report()
                    continue
                except WorkerDied:
                    pass  # frees the loader with the error: a late signal of its workers would hit the next one
                # One video at a time, each in its own process, to find the one that crashes.
                number = next(iter(todo))
                journal.append(self.rows(self.decoder.one_by_one(number, todo[number]), timer))
                del todo[number]
                report()
        finally:
            self.model.train(training)
        if on_progress is not None:
            tally.wait_for_others(journal, report)

    def decode(self, batches: Mapping[int, Sequence[int]]) -> Iterator[DecodedBatch]:
        """Decodes batches in the background."""
        on_gpu = next(self.model.parameters()).device.type == "cuda"
        return self.decoder.batches(batches, min(self.num_workers, len(batches)), pin_memory=on_gpu)

    def rows(self, batch: DecodedBatch, timer: EvaluationTimer) -> list[Row]:
        """Returns the predictions for one batch with all settings."""
        rows: list[Row] = [
            {"position": position, "video_id": self.decoder.examples[position].video_id, "error": reason}
            for position, reason in sorted(batch.failures.items())
        ]
        if batch.views is None:
            return rows
        parameter = next(self.model.parameters())
        logits: list[list[torch.Tensor]] = [[] for _ in self.settings]
        seconds = [0.0] * len(self.settings)
        # At most `batch_size` clips at a time: all views may be too many for the device.
        for part, clips in enumerate(batch.views.split(self.batch_size)):
            frames = clips.to(parameter.device, non_blocking=True)
            pixel_values = self.decoder.transform.normalize(frames)
            for index, changes in enumerate(self.settings):
                self.apply(changes)
                inputs = pixel_values.to(pixel_dtype(self.model))
                answer, elapsed = self.forward(inputs, [self.decoder.seed, batch.number, part])
                logits[index].append(answer)
                seconds[index] += elapsed
        for index in range(len(self.settings)):
            timer.models[index].append((len(batch.views), seconds[index]))
            views = torch.cat(logits[index]).chunk(len(batch.positions))
            for position, video in zip(batch.positions, views, strict=True):
                rows.append(self.predict(video, position, index))
        return rows

    def forward(self, pixel_values: torch.Tensor, seeds: Sequence[int]) -> tuple[torch.Tensor, float]:
        """Returns the logits (clips, outputs) on the CPU in float64, and the seconds that the model took."""
        device = pixel_values.device
        low = MIXED_PRECISION[self.mixed_precision]
        precision: AbstractContextManager[Any] = torch.autocast(device.type, low) if low is not None else nullcontext()
        others = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(others, device_type="cuda" if device.type == "cpu" else device.type):
            # The random modes use the global generator: seeded, so that a batch does not depend on what ran before.
            torch.manual_seed(int(np.random.SeedSequence(list(seeds)).generate_state(1)[0]))
            _synchronize(device)
            began = time.perf_counter()
            with torch.inference_mode(), precision:
                logits = self.model(pixel_values).logits
            _synchronize(device)
            elapsed = time.perf_counter() - began
        return logits.float().cpu().double(), elapsed

    def predict(self, logits: torch.Tensor, position: int, setting: int) -> Row:
        """Returns the prediction from the logits (views, outputs) of one video."""
        example, changes = self.decoder.examples[position], dict(self.settings[setting])
        check_finite(logits, f"the logits for {example.video_id!r}", f" with the settings {changes}")
        return {
            "position": position,
            "video_id": example.video_id,
            "setting": setting,
            "token_merging": changes,
            **predict_video(logits, self.tasks, example.labels, self.top_k),
        }


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


class _RunningAccuracy:
    """Running accuracy over the rows of all processes; duplicate rows are ignored."""

    POLL_SECONDS = 1.0
    PATIENCE_SECONDS = 300.0  # without any new row; then progress is no longer reported

    def __init__(self, total: int, num_settings: int, tasks: Sequence[Task]) -> None:
        self.total, self.tasks = total, tasks
        self.seen: list[set[int]] = [set() for _ in range(num_settings)]
        self.failed: set[int] = set()
        self.right, self.labelled = [0] * num_settings, [0] * num_settings

    @property
    def done(self) -> int:
        return len(self.seen[-1]) + len(self.failed)

    def progress(self, rows: Iterable[Row], waiting: float) -> Progress:
        for row in rows:
            position = row["position"]
            if "error" in row:
                self.failed.add(position)
                continue
            setting = row["setting"]
            if position in self.seen[setting]:
                continue
            self.seen[setting].add(position)
            ranks = [row[f"{task.name}_rank"] for task in self.tasks]
            if None not in ranks:
                self.labelled[setting] += 1
                self.right[setting] += not any(ranks)
        accuracy = tuple(
            right / count if count else None for right, count in zip(self.right, self.labelled, strict=True)
        )
        return Progress(self.done, self.total, len(self.failed), accuracy, waiting)

    def wait_for_others(self, journal: Journal, report: Callable[[], None]) -> None:
        """Reports progress until other processes finish."""
        done, news = self.done, time.monotonic()
        while self.done < self.total and time.monotonic() - news < self.PATIENCE_SECONDS:
            time.sleep(self.POLL_SECONDS)
            report()
            if self.done != done:
                done, news = self.done, time.monotonic()
