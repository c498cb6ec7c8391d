"""Output folder of an evaluation: locking, resuming and result files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..tasks import Task
from .examples import Examples
from .journal import Journal, Row, read_rows, write_atomically
from .processes import Processes
from .results import EvaluationResults

RUN_FILE, PREDICTIONS_FILE, RESULTS_FILE, TIMING_FILE = "run.json", "predictions.jsonl", "results.json", "timing.json"
DIGEST = "predictions_sha256"
"""Key in `results.json` for the digest of the predictions."""
_TIMES = {"startup_seconds", "seconds", "waiting_for_data"}


@contextmanager
def locked(folder: Path, processes: Processes) -> Iterator[None]:
    """Locks an output folder against other evaluations.

    Args:
        folder: The folder, created if needed.
        processes: Processes of this evaluation; the main one holds the lock.

    Raises:
        ValueError: If another evaluation is running there.
        OSError: If the folder is not writable.
    """
    path = folder / ".lock"
    lock = FileLock(path, timeout=0)

    def acquire() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise ValueError(f"{folder} is being written to by another evaluation") from None

    processes.from_main(acquire)
    try:
        yield
    finally:
        if processes.is_main:
            lock.release()
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Reference:
    """Earlier evaluation to compare with.

    Attributes:
        identity: Its folder and a digest of its predictions, JSON-safe.
        rows: Mapping from `video_id` to row, without unreadable videos.
    """

    identity: dict[str, str]
    rows: dict[str, Row]


def read_predictions(folder: str | os.PathLike[str], tasks: Iterable[str] = ()) -> list[Row]:
    """Reads the predictions of a finished evaluation.

    Args:
        folder: Its `output`.
        tasks: Names of tasks that each row must have predictions for.

    Returns:
        The rows of `predictions.jsonl`.

    Raises:
        ValueError: If there are no predictions, or they are damaged.
    """
    path, results = Path(folder) / PREDICTIONS_FILE, Path(folder) / RESULTS_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is not the output folder of a finished evaluation: {path} does not exist")
    content = path.read_bytes()
    try:
        expected = json.loads(results.read_text(encoding="utf-8")).get(DIGEST)
    except (OSError, ValueError, AttributeError):
        expected = None  # nothing to compare with, as for older versions
    if expected not in (None, _digest(content)):
        raise ValueError(
            f"{path} is damaged or was changed: its checksum differs from that in {results}; restore an intact copy "
            f"of the file, or delete {results} to accept it"
        )
    if not content.endswith(b"\n"):
        raise ValueError(f"{path} is damaged: its last line is incomplete; restore an intact copy of the file")
    return _answering(read_rows(content, path), tasks, path)


def _answering(rows: list[Row], tasks: Iterable[str], path: Path) -> list[Row]:
    """Returns rows after checking that they have predictions for all tasks, since old rows have no checksum.

    Raises:
        ValueError: If a row does not.
    """
    for task, row in product(tasks, (row for row in rows if "error" not in row)):
        best, known = row.get(f"{task}_top"), isinstance(row.get(task, ""), int)
        ranked = all(isinstance(row.get(f"{task}_{name}"), (int, float)) == known for name in ("rank", "nll"))
        if not isinstance(best, list) or not best or not isinstance(best[0], int) or task not in row or not ranked:
            raise ValueError(
                f"{path}: the row of {row.get('video_id')!r} is damaged ({task}): restore an intact copy, or "
                "start over (--overwrite)"
            )
    return rows


def _read_object(path: Path) -> dict[str, Any]:
    """Reads a file with one JSON object.

    Raises:
        ValueError: If it is not a JSON object; the message names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: it must hold a JSON object, got {_short(content)}")
    return content


def read_timing(folder: Path, num_settings: int) -> dict[str, Any]:
    """Reads the timing of a finished evaluation.

    Args:
        folder: Its output folder.
        num_settings: Number of its settings.

    Raises:
        ValueError: If `timing.json` is incomplete.
        OSError: If there is none.
    """
    timing = _read_object(folder / TIMING_FILE)
    rates = timing.get("clips_per_second")
    if not isinstance(rates, list) or len(rates) != num_settings or not timing.keys() >= _TIMES:
        raise ValueError(
            f"{folder / TIMING_FILE} must hold the times of {num_settings} settings, got {_short(timing)}"
        )
    return timing


def read_reference(
    folder: str | os.PathLike[str], run: Mapping[str, Any], examples: Examples, tasks: Sequence[Task]
) -> Reference:
    """Reads an earlier evaluation and checks that it is comparable.

    Args:
        folder: Its `output`.
        run: Identity of the current evaluation, as in `run.json`.
        examples: Videos of the current evaluation.
        tasks: Tasks of the current classifier.

    Returns:
        The predictions of the earlier evaluation with its first setting.

    Raises:
        ValueError: If there are no predictions, or their tasks, outputs, videos or labels differ.
    """
    try:
        rows = read_predictions(folder)
        before = _read_object(Path(folder) / RUN_FILE)
    except (ValueError, OSError) as error:
        raise ValueError(f"reference: {error}") from None
    for name, what in (("tasks", "tasks"), ("outputs", "outputs of the classifier")):
        if before.get(name) != run[name]:
            raise ValueError(
                f"reference {folder} has other {what} ({before.get(name)}) than this evaluation ({run[name]}), so "
                "equal class indices do not mean equal predictions"
            )
    _answering(rows, run["tasks"], Path(folder) / PREDICTIONS_FILE)
    known = {row.get("video_id") for row in rows}
    missing = [example.video_id for example in examples.videos if example.video_id not in known]
    if missing:
        raise ValueError(f"reference {folder} lacks {len(missing)} videos, such as {missing[0]!r}")
    chosen = {row.get("video_id", ""): row for row in rows if row.get("setting") == 0}
    for example in examples.videos:
        row = chosen.get(example.video_id)
        if row is None or example.labels is None or row.get(tasks[0].name) is None:
            continue
        labels = tuple(row.get(task.name) for task in tasks)
        if labels != example.labels:
            raise ValueError(
                f"reference {folder} has other labels for {example.video_id!r} ({labels}) than the dataset "
                f"({example.labels})"
            )
    digest = _digest((Path(folder) / PREDICTIONS_FILE).read_bytes())[:16]
    return Reference({"folder": os.fspath(folder), "predictions": digest}, chosen)


def open_output(
    folder: Path,
    run: Mapping[str, Any],
    batches: Mapping[int, Sequence[int]],
    *,
    resume: bool,
    overwrite: bool,
    retry_failed: bool,
) -> set[int]:
    """Prepares the output folder for this evaluation.

    Args:
        folder: The output folder, created if needed.
        run: Identity of the evaluation, as in `run.json`.
        batches: Mapping from the index of each batch to the positions of its videos.
        resume: Whether to resume an existing evaluation.
        overwrite: Whether to delete an existing evaluation.
        retry_failed: Whether to repeat batches with unreadable videos.

    Returns:
        The indices of finished batches. The journals then contain exactly their rows.

    Raises:
        FileExistsError: If there is an evaluation, and neither `resume` nor `overwrite` is set.
        ValueError: If it is a different evaluation, or damaged.
    """
    path, journal = folder / RUN_FILE, Journal(folder, 0)
    exists = path.exists() or journal.exists()
    if exists and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} has an evaluation already: resume it (--resume), overwrite it (--overwrite) or choose another "
            "folder (--output)"
        )
    if overwrite or not exists:
        journal.delete()
        for name in (RUN_FILE, PREDICTIONS_FILE, RESULTS_FILE, TIMING_FILE):
            (folder / name).unlink(missing_ok=True)
        write_atomically(path, _dump(run))
        return set()

    if not path.exists():
        raise ValueError(f"{folder} cannot be resumed: it has journals but no {RUN_FILE}")
    try:
        before, now = _read_object(path), json.loads(_dump(run))
    except ValueError as error:
        raise ValueError(f"{error}; restore an intact copy of the file, or start over (--overwrite)") from None
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{folder} cannot be resumed: its {name} was {_short(before.get(name))}, now it is "
                f"{_short(now.get(name))}"
            )
    predictions = folder / PREDICTIONS_FILE
    rows = _answering(journal.rows(), run["tasks"], folder)
    if predictions.exists():
        rows = read_predictions(folder, run["tasks"]) + rows
    done = _finished(rows, batches, len(run["settings"]), retry_failed)
    positions = {position for number in done for position in batches[number]}
    kept = {(row["position"], row.get("setting", -1)): row for row in rows if row["position"] in positions}
    journal.replace([kept[key] for key in sorted(kept)])
    # From here on the evaluation counts as unfinished, should this process be killed.
    for name in (PREDICTIONS_FILE, RESULTS_FILE, *(() if len(done) == len(batches) else (TIMING_FILE,))):
        (folder / name).unlink(missing_ok=True)
    return done


def close_output(
    folder: Path, rows: Sequence[Row], results: EvaluationResults, timing: Mapping[str, Any], keep_timing: bool
) -> None:
    """Writes the final files of an evaluation.

    Args:
        folder: Its output folder.
        rows: All predictions, in order.
        results: Results of the evaluation.
        timing: Timing of the run, the only part that is not reproducible.
        keep_timing: Whether to keep the timing of an earlier run, if there is one.
    """
    predictions = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_atomically(folder / PREDICTIONS_FILE, predictions)
    write_atomically(folder / RESULTS_FILE, _dump({**results.to_dict(), DIGEST: _digest(predictions.encode())}))
    if keep_timing:
        try:
            read_timing(folder, len(results.settings))
            return
        except (OSError, ValueError):
            pass  # killed, or out of space, just before it was written
    write_atomically(folder / TIMING_FILE, _dump(timing))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _finished(
    rows: Iterable[Row], batches: Mapping[int, Sequence[int]], num_settings: int, retry_failed: bool
) -> set[int]:
    """Returns the indices of the batches with rows for all of their videos and settings."""
    found: dict[int, set[int]] = {}
    failed: set[int] = set()
    for row in rows:
        if "error" in row:
            failed.add(row["position"])
        else:
            found.setdefault(row["position"], set()).add(row["setting"])
    wanted = set(range(num_settings))
    complete = {position for position, settings in found.items() if settings == wanted}
    complete = complete - failed if retry_failed else complete | failed
    return {number for number, positions in batches.items() if complete.issuperset(positions)}


def in_order(rows: Iterable[Row], examples: Examples, num_settings: int) -> list[Row]:
    """Sorts rows in the order of the dataset and checks that they are complete.

    Args:
        rows: Rows of all journals.
        examples: The videos.
        num_settings: Number of settings.

    Returns:
        One row per video and setting, or one row with the reason for an unreadable video.

    Raises:
        ValueError: If a row is missing or belongs to another video.
    """
    keyed = {(row["position"], row.get("setting", -1)): row for row in rows}
    strange = [row for row in keyed.values() if row.get("video_id") != examples[row["position"]].video_id]
    failed = sum(setting == -1 for _, setting in keyed)
    if strange or (len(examples) - failed) * num_settings + failed != len(keyed):
        raise ValueError(
            f"predictions for {len(examples)} videos with {num_settings} settings were expected; the journals contain "
            f"{len(keyed) - failed} of them, {failed} unreadable videos and {len(strange)} rows of other videos: did "
            "something else write to the same folder, or do some processes not share it?"
        )
    return [keyed[key] for key in sorted(keyed)]
