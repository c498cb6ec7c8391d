r"""Compares all methods of this package at equal numbers of operations, and at equal time on this machine.

    python examples/study_methods.py time videomae-moving-digits --output speeds-videomae.json
    python examples/study_methods.py measure videomae-moving-digits --dataset moving-digits \
        --data-option config_name=noise --speeds speeds-videomae.json --output noise-videomae.json
    python examples/study_methods.py page noise-videomae.json --output docs/my-page.md

`time` measures how much faster a model is with each method and several amounts of removal, all in turn; leave the
machine alone meanwhile. `measure` evaluates a classifier with each method at 2.5 and 4 times fewer operations and,
given the result of `time`, at 2 and 3 times the speed, and writes accuracy and its change on the same videos,
agreement and divergence (KL) with the unmerged model, and negative log-likelihood to a JSON file. After an
interruption, repeat the command to continue. `page` writes tables from such files between the lines `<!-- study -->`
and `<!-- end of study -->` of a page.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from study_budgets import (
    TOLERANCE,
    add_measuring_arguments,
    certain_distance,
    measure_to_file,
    points,
    table,
    verdict,
    write_json,
    write_page,
)

from hf_video_tome.analysis.speed import measure_speed_ups
from hf_video_tome.loading import load_classifier
from hf_video_tome.merging import SettingError
from hf_video_tome.metrics.standard_errors import mean_with_error
from hf_video_tome.models.fit_operations import fit_operations

TARGETS = (2.5, 4.0)
"""Reduction factors of operations."""
SPEEDS = (2.0, 3.0)
"""Speed-ups at which methods are compared at equal time."""
TIMED = (1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Reduction factors at which the speed is measured; in between, it is interpolated."""
SPEED_TOLERANCE = 0.1
"""Largest relative difference in speed between two settings to be compared."""


@dataclass(frozen=True)
class Method:
    """One way to reduce tokens, with an amount that is fitted to a budget.

    Attributes:
        settings: Fixed settings.
        amount: Setting that is fitted: the number of tokens that each layer removes, or that the input stage keeps.
        is_control: Whether it is random: other methods have to beat it.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    amount: Literal["r", "input_keep"] = "r"
    is_control: bool = False


EARLY = {"schedule": "decreasing", "proportional_attention": True}
PROPORTIONAL = {"proportional_attention": True}


def options(mode: str, **values: Any) -> dict[str, Any]:
    """Returns the settings of a mode with some of its options."""
    return {"mode": mode, "mode_options": values or None, **PROPORTIONAL}


METHODS: dict[str, Method] = {
    "merge (usual)": Method(),
    "merge decreasing": Method(EARLY),
    "merge decreasing, norm-preserving": Method({**EARLY, "average": "norm_preserving"}),
    "input run_length": Method({"input": "run_length", "r": 0, **PROPORTIONAL}, amount="input_keep"),
    "input temporal_difference": Method({"input": "temporal_difference", "r": 0, **PROPORTIONAL}, amount="input_keep"),
    "input 2/3, then merge decreasing": Method({"input": "run_length", "input_keep": 2 / 3, **EARLY}),
    "input 2/3, then cluster": Method({"input": "run_length", "input_keep": 2 / 3, **options("cluster")}),
    "cluster": Method(options("cluster")),
    "cluster, 1 segment": Method({**options("cluster"), "segments": 1}),
    "cluster kkz, 1 segment": Method({**options("cluster", centres="kkz"), "segments": 1}),
    "cluster kmedoids": Method(options("cluster", centres="kmedoids")),
    "cluster kmedoids, medoids only": Method({**options("cluster", centres="kmedoids"), "average": "owner"}),
    "pitome": Method(options("pitome")),
    "pitome decreasing": Method({**options("pitome"), "schedule": "decreasing"}),
    "absorb energy": Method(options("absorb", score="energy")),
    "absorb norm": Method(options("absorb", score="norm")),
    "absorb attention": Method(options("absorb", score="attention")),
    "runs": Method(options("runs")),
    "runs, window 1": Method(options("runs", window=1)),
    "sta": Method(options("sta")),
    "vid_tldr": Method(options("vid_tldr")),
    "vid_tldr decreasing": Method({**options("vid_tldr"), "schedule": "decreasing"}),
    "representation_shift": Method(options("representation_shift")),
    "frame_merge": Method({**options("frame_merge"), "scope": "time"}),
    "time_pairs": Method(options("time_pairs")),
    "absorb random": Method(options("absorb", score="random"), is_control=True),
    "random_drop": Method({"mode": "random_drop"}, is_control=True),
    "input random": Method({"input": "random", "r": 0, **PROPORTIONAL}, amount="input_keep", is_control=True),
}


# --- settings
def fit(config: Any, method: Method, target: float) -> tuple[dict[str, Any], float] | None:
    """Returns the settings of a method for about a reduction factor of operations, and the exact factor.

    Returns:
        None if the model does not support the method.
    """
    try:
        fitted = fit_operations(config, method.settings, target, amount=method.amount, nearest=True)
    except SettingError:
        return None
    return fitted.settings, round(fitted.factor, 3)


def grid(
    config: Any, targets: Sequence[float] = TARGETS, speeds: Mapping[str, Sequence[tuple[float, float]]] | None = None
) -> list[dict[str, Any]]:
    """Lists settings: the unmerged model, and each method at each budget.

    Args:
        config: Config of the model.
        targets: Reduction factors of operations.
        speeds: For each method, pairs of a reduction factor and the measured speed-up; None compares no times.
    """
    settings = [entry("", {**config.unmerged_settings}, 1.0, None)]
    for name, method in METHODS.items():
        for target in targets:
            found = fit(config, method, target)
            if found is not None:
                settings.append(entry(name, *found, target))
        measured = (speeds or {}).get(name)
        for speed in SPEEDS if measured is not None else ():
            assert measured is not None
            factor = factor_at(measured, speed)
            found = fit(config, method, factor)
            assert found is not None  # it was timed
            settings.append(entry(name, *found, speed) | {"speed": round(speed_at(measured, found[1]), 3)})
    return settings


def entry(name: str, changes: dict[str, Any], ratio: float, target: float | None) -> dict[str, Any]:
    """Returns an entry of the grid."""
    return {"changes": changes, "target": target, "differs": {"method": name} if name else {}, "ratio": ratio}


def factor_at(measured: Sequence[tuple[float, float]], speed: float) -> float:
    """Returns the reduction factor of operations at which a method reaches a speed-up, by interpolation."""
    factors, speeds = np.array(sorted(measured)).T
    return float(np.exp(np.interp(np.log(speed), np.log(np.maximum.accumulate(speeds)), np.log(factors))))


def speed_at(measured: Sequence[tuple[float, float]], factor: float) -> float:
    """Returns the speed-up at a reduction factor of operations, by interpolation."""
    factors, speeds = np.array(sorted(measured)).T
    return float(np.exp(np.interp(np.log(factor), np.log(factors), np.log(np.maximum.accumulate(speeds)))))


# --- time
def measure_time(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the speed of each method at several reduction factors, all settings in turn."""
    classifier = load_classifier(arguments.model)
    config = classifier.model.config
    chosen: list[tuple[str, dict[str, Any], float]] = []
    for name, method in METHODS.items():
        for target in TIMED:
            found = fit(config, method, target)
            if found is not None and (name, *found) not in chosen:
                chosen.append((name, *found))
    ups = measure_speed_ups(
        classifier.model,
        [changes for _, changes, _ in chosen],
        batch_size=arguments.batch_size,
        rounds=arguments.rounds,
    )
    speeds: dict[str, list[list[float]]] = {}
    for (name, _, ratio), up in zip(chosen, ups, strict=True):
        speeds.setdefault(name, []).append([ratio, round(up, 3)])
    return {
        "model": Path(arguments.model).name,
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "speeds": speeds,
    }


# --- the page
MARKS = {"better": " ▲", "worse": " ▼", "perhaps better": " △", "perhaps worse": " ▽"}
"""Marks of significant differences."""


def budgets(study: Mapping[str, Any]) -> Iterator[tuple[str, bool, float]]:
    """Iterates over the budgets of a study: title, whether it is one of time, and its factor."""
    found = {("speed" in setting, setting["target"]) for setting in study["settings"][1:]}
    for is_time, factor in sorted(found):
        yield f"{factor:g}x {'faster' if is_time else 'fewer operations'}", is_time, factor


def misses(setting: Mapping[str, Any]) -> bool:
    """Returns whether a setting is too far from its budget to be compared."""
    reached, tolerance = (setting["speed"], SPEED_TOLERANCE) if "speed" in setting else (setting["ratio"], TOLERANCE)
    return abs(math.log(reached / setting["target"])) > math.log1p(tolerance)


def model_section(study: Mapping[str, Any]) -> str:
    """Returns the table of one model on one dataset: a row per method, in descending order of agreement."""
    unmerged, merged = study["settings"][0], study["settings"][1:]
    columns = list(budgets(study))
    found = {(s["differs"]["method"], "speed" in s, s["target"]): s for s in merged}
    names = list(dict.fromkeys(setting["differs"]["method"] for setting in merged))
    first = columns[0]

    def agreement(name: str) -> float:
        setting = found.get((name, *first[1:]))
        return -1.0 if setting is None or misses(setting) else setting["agreement"][0]

    def cell(name: str, is_time: bool, factor: float) -> str:
        setting = found.get((name, is_time, factor))
        if setting is None:
            return ""
        share, error = (100 * number for number in setting["agreement"])
        reached = setting["speed"] if is_time else setting["ratio"]
        off = f" ({reached:.2f}x)" if misses(setting) else ""
        change, change_error = points(setting["change"]).split(" ± ")
        return f"{change} ± {change_error} / {share:.1f} ± {error:.1f} / {setting['nll'][0]:.3f}{off}"

    value, error = (100 * number for number in unmerged["accuracy"])
    rows = [
        [f"*{name}*" if METHODS[name].is_control else name, *(cell(name, *column[1:]) for column in columns)]
        for name in sorted(names, key=agreement, reverse=True)
    ]
    return "\n\n".join(
        [
            f"### {study['model']}, {study['data']}",
            f"{study['clips']} clips, {study['tokens']} tokens. Unmerged: {value:.1f} ± {error:.1f} %, negative "
            f"log-likelihood {unmerged['nll'][0]:.3f} ± {unmerged['nll'][1]:.3f}. Change of accuracy in points / "
            "agreement with the unmerged model in percent / negative log-likelihood; controls in italics:",
            table(["method", *(title for title, _, _ in columns)], rows),
        ]
    )


def summary(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns one table of the differences of accuracy from the decreasing schedule, for each method and study."""
    reference = "merge decreasing"
    rows, compared = [], 0
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    for is_time in (False, True):
        for study in studies:
            right = {
                (s["differs"]["method"], s["target"]): (np.array(list(s["right"]), dtype=float), misses(s))
                for s in study["settings"][1:]
                if ("speed" in s) == is_time
            }
            for name in dict.fromkeys(name for name, _ in right):
                differences = [
                    answers - right[reference, target][0]
                    for (other, target), (answers, off) in right.items()
                    if other == name and not off and (reference, target) in right and not right[reference, target][1]
                ]
                if name != reference and differences:
                    title = f"{study['model']}, {study['data']}{', at equal time' if is_time else ''}"
                    cells.setdefault(name, {})[title] = mean_with_error(np.mean(differences, axis=0))
                    compared += 1
    bound = certain_distance(compared)
    titles = list(dict.fromkeys(title for row in cells.values() for title in row))
    for name, row in cells.items():
        found = {title: verdict(*pair, bound) for title, pair in row.items()}
        better, worse = (sum(it == wanted for it in found.values()) for wanted in ("better", "worse"))
        shown = [f"{points(row[title])}{MARKS.get(found[title], '')}" if title in row else "" for title in titles]
        rows.append([name, f"{better} / {worse} of {len(row)}", *shown])
    return "\n\n".join(
        [
            "### Against merging early",
            f"Change of accuracy against `merge` with the decreasing schedule and proportional attention at the same "
            f"budget, averaged over the budgets clip by clip, in points ± standard error. ▲ better and ▼ worse by "
            f"{bound:.1f} standard errors: if no method made a difference, one page in twenty would have such a mark "
            f"among its {compared} comparisons; △ and ▽ by 2. Second column: ▲ / ▼.",
            table(["method", "▲ / ▼", *titles], rows),
        ]
    )


def render(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the generated part of the page."""
    commands = "\n".join(study["command"] for study in studies)
    return "\n\n".join([summary(studies), *map(model_section, studies), "### Commands", f"```\n{commands}\n```"])


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    timing = commands.add_parser("time", help="measure the speed of each method")
    timing.add_argument("model", help="name of a bundled checkpoint, folder or Hub id")
    timing.add_argument("--batch-size", type=int, default=8)
    timing.add_argument("--rounds", type=int, default=7)
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--output", type=Path, required=True, help="output file, in JSON")
    measuring = commands.add_parser("measure", help="evaluate a model with all methods")
    add_measuring_arguments(measuring, TARGETS)
    measuring.add_argument("--speeds", type=Path, help="result of `time` for the same model")
    writing = commands.add_parser("page", help="write tables into a page")
    writing.add_argument("files", type=Path, nargs="+")
    writing.add_argument("--output", type=Path, required=True, help="output page, in Markdown")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    chosen = parse_arguments(arguments)
    if chosen.command == "page":
        write_page(chosen.files, chosen.output, render)
    elif chosen.command == "time":
        torch.set_num_threads(chosen.threads)
        write_json(chosen.output, measure_time(chosen))
    else:
        speeds = json.loads(chosen.speeds.read_text(encoding="utf-8"))["speeds"] if chosen.speeds else None
        measure_to_file(chosen, lambda config: grid(config, chosen.targets, speeds), "study_methods")


if __name__ == "__main__":
    main()
