"""The loop of an evaluation: decoded batches through the model, once with each of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..tasks import Task, check_finite
from .decoding import DecodedBatch, ViewDecoder, WorkerDied, dead_workers_noticed
from .journal import Journal, Row
from .results import predict_video

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


class Clock:
    """Where the time of a process goes, in seconds, from the moment when the first batch is there."""

    def __init__(self, num_settings: int) -> None:
        self.startup = 0.0  # until then
        self.waiting = 0.0
        self.total = 0.0
        self.models: list[list[tuple[int, float]]] = [[] for _ in range(num_settings)]  # (clips, seconds) of batches
        self._began: float | None = None

    def waited(self, batches: Iterator[DecodedBatch]) -> Iterator[DecodedBatch]:
        """Passes batches on and counts how long they take to come."""
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
        """Share of the time that was spent waiting for batches, 0 to 1."""
        return self.waiting / self.total if self.total else 0.0

    def measured(self) -> dict[str, Any]:
        """What was measured, JSON-safe; speeds are those of the model alone, without the first batch, its warm-up."""
        rates: list[float | None] = []
        for batches in self.models:
            counted = batches[1:] or batches
            seconds = sum(seconds for _, seconds in counted)
            rates.append(sum(clips for clips, _ in counted) / seconds if seconds else None)
        return {"startup": self.startup, "total": self.total, "waiting": self.waiting, "clips_per_second": rates}

    @staticmethod
    def together(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """What the processes of an evaluation measured: the longest times, the mean waiting, the sum of the speeds."""
        total = sum(clock["total"] for clock in measured)
        rates = zip(*(clock["clips_per_second"] for clock in measured), strict=True)
        known = [[rate for rate in setting if rate is not None] for setting in rates]
        return {
            "startup_seconds": round(max(clock["startup"] for clock in measured), 3),
            "seconds": round(max(clock["total"] for clock in measured), 3),
            "waiting_for_data": round(sum(clock["waiting"] for clock in measured) / total, 4) if total else 0.0,
            "clips_per_second": [round(sum(setting), 3) if setting else None for setting in known],
        }


@dataclass(frozen=True)
class Loop:
    """What happens to each batch; the fields are those of `evaluate`."""

    model: Any
    apply: Callable[[Mapping[str, Any]], None]  # makes the model follow one of the settings
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
        clock: Clock,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        """Goes through batches.

        Args:
            batches: From the numbers of the batches of this process to the positions of their videos.
            journal: Where the predictions go.
            clock: Takes the time.
            on_progress: Called after each batch, and while other processes are still at work.
        """
        tally = _Tally(len(self.decoder.examples), len(self.settings), self.tasks)

        def report() -> None:
            if on_progress is not None:
                on_progress(tally.progress(journal.new_rows(), clock.waiting_share))

        training = self.model.training
        self.model.eval()
        try:
            report()
            todo = dict(batches)
            while todo:
                try:
                    with dead_workers_noticed():
                        for batch in clock.waited(self.decode(todo)):
                            journal.append(self.rows(batch, clock))
                            del todo[batch.number]
                            report()
                    continue
                except WorkerDied:
                    pass  # and with the error goes its loader: else a late signal of its workers would hit the next
                # One video at a time, each in a process of its own, until it is known which one does that.
                number = next(iter(todo))
                journal.append(self.rows(self.decoder.one_by_one(number, todo[number]), clock))
                del todo[number]
                report()
        finally:
            self.model.train(training)
        if on_progress is not None:
            tally.wait_for_others(journal, report)

    def decode(self, batches: Mapping[int, Sequence[int]]) -> Iterator[DecodedBatch]:
        """Decodes batches ahead of the model."""
        on_gpu = next(self.model.parameters()).device.type == "cuda"
        return self.decoder.batches(batches, min(self.num_workers, len(batches)), pin_memory=on_gpu)

    def rows(self, batch: DecodedBatch, clock: Clock) -> list[Row]:
        """Predicts one batch with all of the settings."""
        rows: list[Row] = [
            {"position": position, "video_id": self.decoder.examples[position].video_id, "error": reason}
            for position, reason in sorted(batch.failures.items())
        ]
        if batch.views is None:
            return rows
        parameter = next(self.model.parameters())
        logits: list[list[torch.Tensor]] = [[] for _ in self.settings]
        seconds = [0.0] * len(self.settings)
        # As many clips at a time as were asked for: the views of all videos may be too many for a device.
        for part, clips in enumerate(batch.views.split(self.batch_size)):
            frames = clips.to(parameter.device, non_blocking=True)
            pixel_values = self.decoder.transform.normalize(frames).to(parameter.dtype)
            for index, changes in enumerate(self.settings):
                self.apply(changes)
                answer, elapsed = self.forward(pixel_values, [self.decoder.seed, batch.number, part])
                logits[index].append(answer)
                seconds[index] += elapsed
        for index in range(len(self.settings)):
            clock.models[index].append((len(batch.views), seconds[index]))
            views = torch.cat(logits[index]).chunk(len(batch.positions))
            for position, video in zip(batch.positions, views, strict=True):
                rows.append(self.predict(video, position, index))
        return rows

    def forward(self, pixel_values: torch.Tensor, seeds: Sequence[int]) -> tuple[torch.Tensor, float]:
        """Gives the logits (clips, outputs) on the CPU in float64, and how long the model took in seconds."""
        device = pixel_values.device
        low = MIXED_PRECISION[self.mixed_precision]
        precision: AbstractContextManager[Any] = torch.autocast(device.type, low) if low is not None else nullcontext()
        others = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(others, device_type="cuda" if device.type == "cpu" else device.type):
            # The random modes draw from the global generator: the same numbers for a batch, whatever ran before.
            torch.manual_seed(int(np.random.SeedSequence(list(seeds)).generate_state(1)[0]))
            _synchronize(device)
            began = time.perf_counter()
            with torch.inference_mode(), precision:
                logits = self.model(pixel_values).logits
            _synchronize(device)
            elapsed = time.perf_counter() - began
        return logits.float().cpu().double(), elapsed

    def predict(self, logits: torch.Tensor, position: int, setting: int) -> Row:
        """Makes a row of the logits (views, outputs) of one video."""
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


class _Tally:
    """Running accuracy over the rows of all processes; a row may come more than once."""

    POLL_SECONDS = 1.0
    PATIENCE_SECONDS = 300.0  # without any news: then the others are waited for in silence

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
        """Goes on reporting while other processes write."""
        done, news = self.done, time.monotonic()
        while self.done < self.total and time.monotonic() - news < self.PATIENCE_SECONDS:
            time.sleep(self.POLL_SECONDS)
            report()
            if self.done != done:
                done, news = self.done, time.monotonic()
