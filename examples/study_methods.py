r"""Compares all methods of this package at equal numbers of operations, and at equal time on this machine.

    python examples/study_methods.py time videomae-moving-digits --output speeds-videomae.json
    python examples/study_methods.py measure videomae-moving-digits --dataset moving-digits \
        --data-option config_name=noise --speeds speeds-videomae.json --output noise-videomae.json
    python examples/study_methods.py page noise-videomae.json --output docs/my-page.md --details docs/my-numbers.md

`time` measures how much faster a model is with each method and several amounts of removal, all in turn; leave the
machine alone meanwhile. `measure` evaluates a classifier with the presets, with each method at 2.5 and 4 times fewer
operations and, given the result of `time`, at 2 and 3 times the speed, and writes accuracy and its change on the same
videos, agreement and divergence (KL) with the unmerged model, and negative log-likelihood to a JSON file. After an
interruption, repeat the command to continue. `page` writes tables from such files between the lines `<!-- study -->`
and `<!-- end of study -->` of a page, and all numbers into a second page; `docs` does it for the pages of this
project. Files of the same model on "DATA, VARIANT" have to be of the same clips, rendered otherwise; those on "DATA,
fold 1", "DATA, fold 2", ... are of others, and are joined.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
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

import hf_video_tome
from hf_video_tome.analysis.speed import measure_speed_ups
from hf_video_tome.loading import load_classifier
from hf_video_tome.merging import SettingError
from hf_video_tome.metrics.standard_errors import mean_with_error
from hf_video_tome.models.fit_operations import fit_operations
from hf_video_tome.presets import RECIPES, preset, recipe_of

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


REFERENCE = "merge decreasing"
"""Method that the others are compared with."""


def name_of(preset_name: str) -> str:
    """Returns the name of a preset among the methods."""
    return f"preset {preset_name}"


def is_control(method: str) -> bool:
    """Returns whether a method is a random one: others have to beat it."""
    return method in METHODS and METHODS[method].is_control


# --- settings
def presets(config: Any) -> Iterator[dict[str, Any]]:
    """Iterates over the presets "balanced" and "fast" of a model, each at its own budget."""
    unmerged = hf_video_tome.mac_count(config, **config.unmerged_settings).total
    for name in RECIPES:
        try:
            settings = preset(name, config)
        except SettingError:  # the model is too short for it
            continue
        ratio = unmerged / hf_video_tome.mac_count(config, **settings).total
        yield entry(name_of(name), settings, round(ratio, 3), recipe_of(name, config).factor)


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
    """Lists settings: the unmerged model, the presets, and each method at each budget.

    Args:
        config: Config of the model.
        targets: Reduction factors of operations.
        speeds: For each method, pairs of a reduction factor and the measured speed-up; None compares no times.
    """
    settings = [entry("", {**config.unmerged_settings}, 1.0, None), *presets(config)]
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
    """Iterates over the budgets of the methods of a study: title, whether it is one of time, and its factor."""
    found = {("speed" in setting, setting["target"]) for setting in study["settings"][1:] if not is_preset(setting)}
    for is_time, factor in sorted(found):
        yield f"{factor:g}x {'faster' if is_time else 'fewer operations'}", is_time, factor


def misses(setting: Mapping[str, Any]) -> bool:
    """Returns whether a setting is too far from its budget to be compared."""
    reached, tolerance = (setting["speed"], SPEED_TOLERANCE) if "speed" in setting else (setting["ratio"], TOLERANCE)
    return abs(math.log(reached / setting["target"])) > math.log1p(tolerance)


def is_preset(setting: Mapping[str, Any]) -> bool:
    """Returns whether a setting is a preset."""
    return setting["differs"]["method"] in map(name_of, RECIPES)


def cell(setting: Mapping[str, Any] | None, *, with_nll: bool = False) -> str:
    """Returns change of accuracy / agreement, and the reduction factor where it is not that of the column."""
    if setting is None:
        return ""
    parts = [points(setting["change"]), "{:.1f} ± {:.1f}".format(*(100 * number for number in setting["agreement"]))]
    parts += ["{:.3f} ± {:.3f}".format(*setting["nll"])] if with_nll else []
    reached = setting["speed"] if "speed" in setting else setting["ratio"]
    return " / ".join(parts) + (f" ({reached:.2f}x)" if misses(setting) else "")


def method_table(columns: Mapping[str, Mapping[str, Mapping[str, Any]]], *, with_nll: bool = False) -> str:
    """Returns a table with a row per method: first those that reach most budgets, by descending mean agreement.

    Args:
        columns: For each title, the settings by method.
        with_nll: Whether to show the negative log-likelihood.
    """

    def order(name: str) -> tuple[int, float]:
        found = [column[name] for column in columns.values() if name in column]
        reached = [setting["agreement"][0] for setting in found if not misses(setting)]
        return len(columns) - len(reached), -float(np.mean(reached or [0.0]))

    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [
        [f"*{name}*" if is_control(name) else name]
        + [cell(column.get(name), with_nll=with_nll) for column in columns.values()]
        for name in sorted(names, key=order)
    ]
    return table(["method", *columns], rows)


def columns_of(study: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Returns the settings of a study by budget and method, without the presets, which are methods at a budget."""
    return {
        title: {
            setting["differs"]["method"]: setting
            for setting in study["settings"][1:]
            if not is_preset(setting) and ("speed" in setting, setting["target"]) == (is_time, factor)
        }
        for title, is_time, factor in budgets(study)
    }


def unmerged_results(study: Mapping[str, Any]) -> str:
    """Returns the results without merging."""
    unmerged = study["settings"][0]
    value, error = (100 * number for number in unmerged["accuracy"])
    return (
        f"{study['clips']} clips, {study['tokens']} tokens. Unmerged: {value:.1f} ± {error:.1f} %, negative "
        f"log-likelihood {unmerged['nll'][0]:.3f} ± {unmerged['nll'][1]:.3f}."
    )


CELLS = "Change of accuracy in points / agreement with the unmerged model in percent"


def detailed_section(study: Mapping[str, Any]) -> str:
    """Returns the table of one model on one dataset, with negative log-likelihoods."""
    text = f"{unmerged_results(study)} {CELLS} / negative log-likelihood; controls in italics:"
    return "\n\n".join([f"### {title_of(study)}", text, method_table(columns_of(study), with_nll=True)])


def title_of(study: Mapping[str, Any]) -> str:
    """Returns the name of a model and its clips."""
    return f"{study['model']}, {study['data']}"


def family_of(study: Mapping[str, Any]) -> tuple[str, str]:
    """Returns the model, and the name of the clips without their variant."""
    return study["model"], study["data"].split(",")[0]


def variant_of(study: Mapping[str, Any]) -> str:
    """Returns the variant of the clips, what follows their name."""
    return str(study["data"]).removeprefix(family_of(study)[1]).strip(", ")


def by_family(studies: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Groups studies by model and name of the clips."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for study in studies:
        groups.setdefault(family_of(study), []).append(study)
    return groups


FOLD = re.compile(r"fold (\d+)")
"""Name of a fold within that of the clips."""


def fold_of(study: Mapping[str, Any]) -> int:
    """Returns the number of the fold of a study; 0 if it has none."""
    found = FOLD.search(study["data"])
    return int(found[1]) if found else 0


def join_folds(studies: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Joins the studies of a model that differ in their fold only: means over all clips.

    Raises:
        SystemExit: If there are two studies of the same fold, or the folds have different settings.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for study in studies:
        groups.setdefault((study["model"], FOLD.sub("fold", study["data"])), []).append(study)
    return [join_studies(sorted(group, key=fold_of)) if len(group) > 1 else group[0] for group in groups.values()]


def join_studies(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the results of a model over the clips of several folds, which are in ascending order."""
    first, *others = group
    for before, study in pairwise(group):
        if fold_of(study) == fold_of(before):
            raise SystemExit(f"error: two files are of {title_of(study)}")
    for study in others:
        if settings_of(study) != settings_of(first):
            raise SystemExit(f"error: {title_of(study)}: other settings than in fold {fold_of(first)}")
    *numbers, last = (str(fold_of(study)) for study in group)
    return {
        **first,
        "data": FOLD.sub(f"folds {', '.join(numbers)} and {last}", first["data"]),
        "clips": sum(study["clips"] for study in group),
        "settings": [join(settings) for settings in zip(*(study["settings"] for study in group), strict=True)],
    }


def settings_of(study: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Returns what a study measures, without the results."""
    return [(setting["differs"], setting["target"], setting["changes"]) for setting in study["settings"]]


def join(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the results of a setting over the clips of several studies."""
    counts = np.array([len(setting["right"]) for setting in settings])
    joined: dict[str, Any] = {**settings[0], "right": "".join(setting["right"] for setting in settings)}
    for measure in ("accuracy", "change", "agreement", "kl", "nll"):
        means, errors = np.array([setting[measure] for setting in settings]).T
        joined[measure] = [
            float(np.average(means, weights=counts)),
            float(np.sqrt(((counts * errors) ** 2).sum()) / counts.sum()),
        ]
    return joined


def answers_of(study: Mapping[str, Any], number: int) -> np.ndarray:
    """Returns which clips a setting classifies correctly, (N,) of 0 and 1."""
    return np.array(list(study["settings"][number]["right"]), dtype=float)


def preset_numbers(study: Mapping[str, Any]) -> dict[str, int]:
    """Returns the number of each preset among the settings of a study."""
    settings = enumerate(study["settings"])
    return {setting["differs"]["method"]: number for number, setting in settings if number and is_preset(setting)}


def preset_table(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the results of the presets, and their means over the models of the same clips."""
    rows, differences = [], dict[str, dict[str, list[np.ndarray]]]()
    for study in studies:
        found = preset_numbers(study)
        value, error = (100 * number for number in study["settings"][0]["accuracy"])
        row = [study["model"], study["data"], f"{value:.1f} ± {error:.1f}"]
        for name in map(name_of, RECIPES):
            if name not in found:
                row += ["", ""]
                continue
            setting = study["settings"][found[name]]
            row += [f"{setting['ratio']:.2f}x", cell({**setting, "target": setting["ratio"]})]
            change = answers_of(study, found[name]) - answers_of(study, 0)
            differences.setdefault(study["data"], {}).setdefault(name, []).append(change)
        rows.append(row)
    rows += [mean_row(data, by_name) for data, by_name in differences.items() if max(map(len, by_name.values())) > 1]
    header = [word for name in RECIPES for word in (f"{name}: fewer operations", "change / agreement")]
    return "\n\n".join(
        [
            "### Presets",
            f"{CELLS}, ± standard error over clips. Means are of the changes, clip by clip:",
            table(["model", "clips", "unmerged, %", *header], rows),
        ]
    )


def mean_row(data: str, by_name: Mapping[str, Sequence[np.ndarray]]) -> list[str]:
    """Returns the row of the mean changes of the presets over the models that have them.

    Args:
        data: Name of the clips.
        by_name: For each preset, the change of each clip for each model, (N,).
    """
    counts = {len(changes) for changes in by_name.values()}
    row = [f"**mean of {max(counts)} models**" if len(counts) == 1 else "**mean of models**", data, ""]
    for name in map(name_of, RECIPES):
        changes = by_name.get(name, [])
        mean = points(mean_with_error(np.mean(changes, axis=0))) if changes else ""
        count = f" ({len(changes)} model{'s' if len(changes) > 1 else ''})" if changes and len(counts) > 1 else ""
        row += ["", mean + count]
    return row


def preset_overview(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the mean results of the presets over all variants of the clips, a row per model and kind of clips."""
    rows = []
    for (model, data), group in by_family(join_folds(studies)).items():
        row = [
            model,
            f"{data}: {', '.join(variant_of(study) for study in group)}" if len(group) > 1 else group[0]["data"],
        ]
        row.append(f"{100 * np.mean([study['settings'][0]['accuracy'][0] for study in group]):.1f} %")
        for name in map(name_of, RECIPES):
            changes, agreements = [], []
            for study in group:
                number = preset_numbers(study).get(name)
                if number is not None:
                    changes.append(answers_of(study, number) - answers_of(study, 0))
                    agreements.append(100 * study["settings"][number]["agreement"][0])
            mean = points(mean_with_error(np.mean(changes, axis=0))) if changes else ""
            row.append(f"{mean} / {np.mean(agreements):.1f} %" if changes else "")
        rows.append(row)
    return table(["checkpoint", "clips", "unmerged", *RECIPES], rows)


LEAST = 2.5
"""Least reduction factor of operations at which methods are compared with the reference: below it, few differ."""


def against_reference(
    group: Sequence[Mapping[str, Any]], *, is_time: bool
) -> tuple[list[float], dict[str, tuple[list[float], np.ndarray]]]:
    """Compares all methods with the reference, for one model on all variants of the same clips.

    Args:
        group: Studies, one per variant.
        is_time: Whether to compare at equal time instead of at equal operations.

    Returns:
        The budgets that the reference reaches, and for each method, those of them that it reaches on every variant
        too, with the mean difference of right answers at these, (N,).
    """
    differences: dict[tuple[str, float], list[np.ndarray]] = {}
    for study in group:
        numbers = {
            (s["differs"]["method"], s["target"]): number
            for number, s in enumerate(study["settings"])
            if number and ("speed" in s) == is_time and not is_preset(s) and not misses(s)
        }
        for (name, target), number in numbers.items():
            if (REFERENCE, target) in numbers and (is_time or target >= LEAST):
                change = answers_of(study, number) - answers_of(study, numbers[REFERENCE, target])
                differences.setdefault((name, target), []).append(change)
    wanted = {target: len(found) for (name, target), found in sorted(differences.items()) if name == REFERENCE}
    compared: dict[str, tuple[list[float], np.ndarray]] = {}
    for name in dict.fromkeys(name for name, _ in differences if name != REFERENCE):
        reached = [target for target, count in wanted.items() if len(differences.get((name, target), [])) == count]
        if reached:
            mean = np.mean([change for target in reached for change in differences[name, target]], axis=0)
            compared[name] = reached, mean
    return list(wanted), compared


def times(factors: Iterable[float]) -> str:
    """Formats budgets as a remark in parentheses."""
    return f" ({', '.join(f'{factor:g}x' for factor in factors)})"


def summary(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the differences of accuracy from the reference: a row per method, a column per model and data."""
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    remarks: dict[tuple[str, str], str] = {}
    for is_time in (False, True):
        for (model, data), group in by_family(studies).items():
            wanted, compared = against_reference(group, is_time=is_time)
            title = f"{model}, {data}{', at equal time' if is_time else ''}{times(wanted)}"
            for name, (reached, differences) in compared.items():
                cells.setdefault(name, {})[title] = mean_with_error(differences)
                remarks[name, title] = times(reached) if reached != wanted else ""
    count = sum(map(len, cells.values()))
    bound = certain_distance(count)
    titles = list(dict.fromkeys(title for row in cells.values() for title in row))
    rows = []
    for name, row in cells.items():
        verdicts = {title: verdict(*pair, bound) for title, pair in row.items()}
        better, worse = (sum(it == sign for it in verdicts.values()) for sign in ("better", "worse"))
        shown = [
            f"{points(row[title])}{MARKS.get(verdicts[title], '')}{remarks[name, title]}" if title in row else ""
            for title in titles
        ]
        rows.append([name, f"{better} / {worse} of {len(row)}", *shown])
    return "\n\n".join(
        [
            "### Against merging early",
            f"Change of accuracy against `merge` with the decreasing schedule and proportional attention at the same "
            f"budget, in points ± standard error. Each number is the mean, clip by clip, over the variants of the "
            f"clips and over the budgets in the title of its column: those of at least {LEAST:g} times fewer "
            f"operations, or speed-ups in columns at equal time, that the reference reaches. Where a method misses "
            f"some of them, its cell names those that it is averaged over. ▲ better and ▼ worse by {bound:.1f} "
            f"standard errors: if no method made a difference, one page in twenty would have such a mark among its "
            f"{count} comparisons; △ and ▽ by 2. Second column: ▲ / ▼.",
            table(["method", "▲ / ▼", *titles], rows),
        ]
    )


def model_section(group: Sequence[Mapping[str, Any]]) -> str:
    """Returns the tables of one model on all variants of the same clips: one per budget if there are several."""
    model, data = family_of(group[0])
    if len(group) == 1:
        text = f"{unmerged_results(group[0])} {CELLS}; controls in italics:"
        return "\n\n".join([f"### {title_of(group[0])}", text, method_table(columns_of(group[0]))])
    variants = {variant_of(study): columns_of(study) for study in group}
    parts = [f"### {model}, {data}", f"{CELLS}; controls in italics:"]
    for title in dict.fromkeys(title for columns in variants.values() for title in columns):
        columns = {variant: columns[title] for variant, columns in variants.items() if title in columns}
        parts += [f"**{title}**", method_table(columns)]
    return "\n\n".join(parts)


def render(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the generated part of the page on methods."""
    joined = join_folds(studies)
    return "\n\n".join([summary(joined), *map(model_section, by_family(joined).values())])


def render_details(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the generated part of the page with all numbers."""
    commands = "\n".join(study["command"] for study in studies)
    return "\n\n".join([*map(detailed_section, studies), "### Commands", f"```\n{commands}\n```"])


ROOT = Path(__file__).parents[1]
DATA = "docs/methods-compared"
PAGES: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "README.md": preset_overview,
    "docs/which-settings.md": lambda studies: preset_table(join_folds(studies)),
    "docs/methods-compared.md": render,
    "docs/methods-in-numbers.md": render_details,
}
"""Pages of this project that are written from the files in `DATA`, and how."""


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
    writing.add_argument("--details", type=Path, help="second output page, with all numbers")
    commands.add_parser("docs", help="write the pages of this project again")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    chosen = parse_arguments(arguments)
    if chosen.command == "page":
        write_page(
            chosen.files,
            chosen.output,
            lambda studies: "\n\n".join([preset_table(join_folds(studies)), render(studies)]),
        )
        if chosen.details:
            write_page(chosen.files, chosen.details, render_details)
    elif chosen.command == "docs":
        for page, function in PAGES.items():
            write_page(sorted((ROOT / DATA).glob("*.json")), ROOT / page, function)
    elif chosen.command == "time":
        torch.set_num_threads(chosen.threads)
        write_json(chosen.output, measure_time(chosen))
    else:
        speeds = json.loads(chosen.speeds.read_text(encoding="utf-8"))["speeds"] if chosen.speeds else None
        measure_to_file(chosen, lambda config: grid(config, chosen.targets, speeds), "study_methods")


if __name__ == "__main__":
    main()
