r"""Compares the settings that `hf-video-tome tune` found with constant r and the presets, on other clips.

    hf-video-tome tune MODEL ... --split validation --operations 4 --output tuned
    python examples/compare_tuned.py settings tuned > settings.json
    hf-video-tome evaluate MODEL ... --split test --settings settings.json --output evaluated
    python examples/compare_tuned.py table tuned evaluated

`settings` lists no merging and all settings that the search compared in the end, for `evaluate`; `table` prints a
Markdown table of their agreement with the unmerged model and their change of accuracy, and the differences, clip by
clip, of the best settings that the search found from all others. Several pairs of folders are several blocks of rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study_budgets import points, table

from hf_video_tome.metrics.standard_errors import mean_with_error

HEADERS = (
    "checkpoint",
    "times fewer operations",
    "settings",
    "agreement, %",
    "change of accuracy, points",
    "found minus these: agreement, points",
    "found minus these: accuracy, points",
)


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def settings_of(tuned: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns no merging, and the finalists of a search."""
    return [{"r": 0}, *(it["settings"] for it in tuned["finalists"])]


def rows(tuned: Mapping[str, Any], evaluated: Path) -> list[list[str]]:
    """Returns the rows of one search: the settings that it found first, then simple ones in descending order.

    Args:
        tuned: Results of the search.
        evaluated: Output folder of an evaluation of `settings_of`.

    Raises:
        ValueError: If the search found or recommended nothing, or some of its settings were not evaluated.
    """
    if tuned["recommended"] is None or all(it["is_simple"] for it in tuned["finalists"]):
        missing = "recommended settings" if tuned["recommended"] is None else "settings that the search found"
        raise ValueError(f"the results of tune have no {missing}, so there is nothing to compare")
    changes = [it["changes"] for it in read_json(evaluated / "results.json")["run"]["settings"]]
    if changes[0].get("r") != 0 or changes[0].get("input") is not None:
        raise ValueError(f"setting 0 in {evaluated} must be no merging, {{'r': 0}}, got {changes[0]}")
    predicted: dict[int, dict[str, dict[str, Any]]] = {}
    for line in (evaluated / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        it = json.loads(line)
        predicted.setdefault(it["setting"], {})[it["video_id"]] = it
    clips = sorted(predicted[0])

    def right(setting: int) -> np.ndarray:
        return np.array([predicted[setting][clip]["label_rank"] == 0 for clip in clips], dtype=float)

    def agrees(setting: int) -> np.ndarray:
        pairs = ((predicted[number][clip]["label_top"][0] for number in (0, setting)) for clip in clips)
        return np.array([unmerged == own for unmerged, own in pairs], dtype=float)

    numbered = [(it, _number(it, changes)) for it in tuned["finalists"]]
    known = [(it, number) for it, number in numbered if number is not None]
    if len(known) < len(numbered):
        names = ", ".join(it["name"] for it, number in numbered if number is None)
        raise ValueError(f"{evaluated} must have the settings of all finalists, lacks {names}")
    found = min(
        (it for it in known if not it[0]["is_simple"]), key=lambda it: it[0]["searched"]["divergence"]["value"]
    )
    simple = sorted((it for it in known if it[0]["is_simple"]), key=lambda it: -agrees(it[1]).mean())
    recommended = tuned["recommended"]["name"]
    result = []
    for finalist, number in (found, *simple):
        mark = " (recommended)" if finalist["name"] == recommended else ""
        name = finalist["name"] if finalist["is_simple"] else f"found: {_in_words(finalist['settings'])}"
        against = [
            points(mean_with_error(measure(found[1]) - measure(number))) if finalist["is_simple"] else ""
            for measure in (agrees, right)
        ]
        agreement, error = mean_with_error(agrees(number))
        result.append(
            [
                tuned["model"],
                f"{finalist['operations']:.2f}",
                f"{name}{mark}",
                f"{100 * agreement:.1f} ± {100 * error:.1f}",
                points(mean_with_error(right(number) - right(0))),
                *against,
            ]
        )
    return result


def _number(finalist: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> int | None:
    """Returns the number of the evaluated settings that are those of a finalist; None if they were not evaluated."""
    settings = finalist["settings"].items()
    same = (
        number
        for number, it in enumerate(changes)
        if number and all(it.get(name) == value for name, value in settings)
    )
    return next(same, None)


def _in_words(settings: Mapping[str, Any]) -> str:
    options = ",".join(f"{name}={value}" for name, value in (settings["mode_options"] or {}).items())
    stage = "" if settings["input"] is None else f"{settings['input']} keeping {settings['input_keep']}, "
    mode = f"{settings['mode']}{f' ({options})' if options else ''}, r = {settings['r']}"
    return f"{stage}{mode}, schedule {settings['schedule']}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("settings", help="print settings for `hf-video-tome evaluate --settings`")
    listing.add_argument("tuned", type=Path, help="output folder of `hf-video-tome tune`")
    showing = commands.add_parser("table", help="print the table")
    showing.add_argument("folders", type=Path, nargs="+", metavar="TUNED EVALUATED")
    chosen = parser.parse_args(arguments)
    if chosen.command == "settings":
        json.dump(settings_of(read_json(chosen.tuned / "results.json")), sys.stdout, indent=2)
        print()
        return
    if len(chosen.folders) % 2:
        parser.error("folders must come in pairs: that of tune, then that of evaluate")
    found = []
    for tuned, evaluated in zip(chosen.folders[::2], chosen.folders[1::2], strict=True):
        try:
            found += rows(read_json(tuned / "results.json"), evaluated)
        except ValueError as error:
            raise SystemExit(f"error: {tuned}: {error}") from error
    print(table(HEADERS, found))


if __name__ == "__main__":
    main()
