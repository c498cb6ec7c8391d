"""The output folder of an evaluation: whose it is, what of it is done, and the files that it ends in."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .examples import Example
from .journal import Journal, Row, write_atomically
from .results import EvaluationResults

RUN_FILE, PREDICTIONS_FILE, RESULTS_FILE, TIMING_FILE = "run.json", "predictions.jsonl", "results.json", "timing.json"


def read_predictions(folder: str | os.PathLike[str], examples: Sequence[Example] | None = None) -> dict[str, Row]:
    """Reads the predictions of an earlier evaluation with the first of its settings.

    Args:
        folder: Its `output`.
        examples: Videos of which there must be predictions.

    Returns:
        From `video_id` to a row of `predictions.jsonl`.

    Raises:
        ValueError: If there are none, or a video is not among them.
    """
    path = Path(folder) / PREDICTIONS_FILE
    if not path.is_file():
        raise ValueError(f"reference must be the output folder of a finished evaluation, {path} does not exist")
    with path.open(encoding="utf-8") as handle:
        rows = {row["video_id"]: row for row in map(json.loads, handle) if row.get("setting", 0) == 0}
    missing = [example.video_id for example in examples or () if example.video_id not in rows]
    if missing:
        raise ValueError(f"reference {folder} has no prediction for {len(missing)} videos, such as {missing[0]!r}")
    return rows


def open_output(
    folder: Path,
    run: Mapping[str, Any],
    batches: Mapping[int, Sequence[int]],
    *,
    resume: bool,
    overwrite: bool,
    retry_failed: bool,
) -> set[int]:
    """Makes sure that the folder is of this evaluation, or of none.

    Args:
        folder: The output folder; made if need be.
        run: What identifies the evaluation.
        batches: From the number of each batch to the positions of its videos.
        resume: Whether what is there is to be gone on with.
        overwrite: Whether it is to be deleted.
        retry_failed: Whether batches with videos that could not be read are to be done again.

    Returns:
        The batches that need not be done again. The journals hold their rows, and nothing else.

    Raises:
        FileExistsError: If there is something and nobody said what to do with it.
        ValueError: If it is of another evaluation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, journal = folder / RUN_FILE, Journal(folder, 0)
    exists = path.exists() or any(journal.rows())
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
    before, now = json.loads(path.read_text(encoding="utf-8")), json.loads(_dump(run))
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{folder} cannot be resumed: its {name} was {_short(before.get(name))}, now it is "
                f"{_short(now.get(name))}"
            )
    predictions = folder / PREDICTIONS_FILE
    rows = journal.rows()
    if predictions.exists():
        rows = [json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines()] + rows
    done = _finished(rows, batches, len(run["settings"]), retry_failed)
    positions = {position for number in done for position in batches[number]}
    kept = {(row["position"], row.get("setting", -1)): row for row in rows if row["position"] in positions}
    journal.replace([kept[key] for key in sorted(kept)])
    # From here on it is unfinished again, should this process be killed.
    for name in (PREDICTIONS_FILE, RESULTS_FILE, TIMING_FILE):
        (folder / name).unlink(missing_ok=True)
    return done


def close_output(folder: Path, rows: Sequence[Row], results: EvaluationResults, timing: Mapping[str, Any]) -> None:
    """Writes what an evaluation ends in.

    Args:
        folder: Its output folder.
        rows: All predictions, in order.
        results: What they come to.
        timing: How long it took; the only part that another run does not repeat.
    """
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomically(folder / PREDICTIONS_FILE, text)
    write_atomically(folder / RESULTS_FILE, _dump(results.to_dict()))
    write_atomically(folder / TIMING_FILE, _dump(timing))


def _dump(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _finished(
    rows: Iterable[Row], batches: Mapping[int, Sequence[int]], num_settings: int, retry_failed: bool
) -> set[int]:
    """Says which batches are there with all of their videos and settings."""
    found: dict[int, set[int]] = {}
    failed: set[int] = set()
    for row in rows:
        if "error" in row:
            failed.add(row["position"])
        else:
            found.setdefault(row["position"], set()).add(row["setting"])
    complete = {position for position, settings in found.items() if len(settings) == num_settings}
    complete = complete - failed if retry_failed else complete | failed
    return {number for number, positions in batches.items() if complete.issuperset(positions)}


def in_order(rows: Iterable[Row], num_videos: int, num_settings: int) -> list[Row]:
    """Brings rows into the order of the data set and checks that none is missing.

    Args:
        rows: Those of all journals.
        num_videos: Videos in the data set.
        num_settings: Settings that each was classified with.

    Returns:
        Every video once with each setting, or once with the reason why it could not be read.

    Raises:
        RuntimeError: If a row is missing.
    """
    keyed = {(row["position"], row.get("setting", -1)): row for row in rows}
    failed = sum(setting == -1 for _, setting in keyed)
    if (num_videos - failed) * num_settings + failed != len(keyed):
        raise RuntimeError(
            f"predictions of {num_videos} videos with {num_settings} settings were expected, {len(keyed) - failed} "
            f"are in the journals, and {failed} videos that could not be read: was another process writing to the "
            "same folder, or do not all processes share it?"
        )
    return [keyed[key] for key in sorted(keyed)]
