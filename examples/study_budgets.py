r"""Measures the cost in accuracy of each way of merging, at equal numbers of operations, for any model and videos.

    python examples/study_budgets.py measure videomae-moving-digits --dataset moving-digits \
        --data-option num_test=480 --output moving-digits-videomae.json
    python examples/study_budgets.py page moving-digits-videomae.json --output docs/my-page.md

`measure` evaluates a classifier with all modes, and with the other values of schedule, scope, proportional attention
and pooling, each with values of r that reduce multiply-accumulates by factors of 1.5, 2, 2.5 and 4. It writes the
results of each setting to a JSON file: accuracy and its change on the same videos, agreement with r = 0, divergence
(KL from the predictions at r = 0), negative log-likelihood, and the correctly classified videos. After an
interruption, repeat the command to continue.

`page` writes tables and conclusions from such files between the lines `<!-- study -->` and `<!-- end of study -->` of
a page. Every conclusion follows from the numbers by a rule stated on the page.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch

import hf_video_tome
from hf_video_tome.cli.evaluation import parse_data_options
from hf_video_tome.data import DATASETS, load, sampling_preset
from hf_video_tome.data.loading import canonical_name
from hf_video_tome.evaluation import evaluate
from hf_video_tome.loading import load_classifier
from hf_video_tome.metrics.standard_errors import mean_with_error, share_with_error
from hf_video_tome.models.fit_operations import fit_operations

TARGETS = (1.5, 2.0, 2.5, 4.0)
TOLERANCE = 0.08
"""Largest relative difference in operations between two settings to be compared."""
BEGIN, END = "<!-- study -->", "<!-- end of study -->"
MODES: dict[str, dict[str, Any]] = {
    "merge": {},
    "hybrid": {"threshold": 0.8},
    "drop": {},
    "random_merge": {},
    "random_drop": {},
}
MINUS = "\N{MINUS SIGN}"


# --- settings
@dataclass(frozen=True)
class Factor:
    """Setting with a value to compare.

    Attributes:
        field: Name of the setting.
        value: The value to compare with the default.
    """

    field: str
    value: Any


def factors(config: Any) -> list[Factor]:
    """Returns the non-default values to compare for a model, modes first."""
    usual = config.token_merging_settings(resolved=True)
    found = [Factor("mode", mode) for mode in MODES if mode != "merge"]
    found += [Factor("schedule", name) for name in ("decreasing", "increasing")]
    # Merging along time removes whole frames: few settings of it are comparable.
    scopes = config.supported_token_merging_scopes
    found += [Factor("scope", scope) for scope in scopes if scope not in (usual["scope"], "time")]
    found.append(Factor("proportional_attention", not usual["proportional_attention"]))
    if config.token_layout.num_prefix_tokens == 0:
        found.append(Factor("pooling", "mean" if usual["pooling"] == "weighted" else "weighted"))
    return found


def grid(config: Any, targets: Sequence[float] = TARGETS) -> list[dict[str, Any]]:
    """Lists settings: the unmerged model, and at each target the default and those that differ in one factor.

    The schedule and proportional attention are also changed together, since one may only matter with the other.

    Returns:
        For each setting its `changes`, its `target`, its `differs` (differences from the default), and its `ratio`
        (reduction factor of operations).
    """
    usual = config.token_merging_settings(resolved=True)
    base = {name: usual[name] for name in ("scope", "proportional_attention", "pooling")}
    base |= {"mode": "merge", "schedule": "constant", "threshold": None}
    chosen = factors(config)
    attention = next(factor for factor in chosen if factor.field == "proportional_attention")
    variants: list[dict[str, Any]] = [{}, *({factor.field: factor.value} for factor in chosen)]
    variants.append({"schedule": "decreasing", attention.field: attention.value})
    settings: list[dict[str, Any]] = [{"changes": {"r": 0}, "target": None, "differs": {}, "ratio": 1.0}]
    for target in targets:
        for differs in variants:
            changes = {**base, **differs}
            changes |= MODES[changes["mode"]]
            fitted = fit_operations(config, changes, target, nearest=True)
            settings.append(
                {
                    "changes": fitted.settings,
                    "target": target,
                    "differs": differs,
                    "ratio": round(fitted.factor, 3),
                }
            )
    return settings


# --- measuring
def measure(
    arguments: argparse.Namespace, list_settings: Callable[[Any], list[dict[str, Any]]], script: str
) -> dict[str, Any]:
    """Evaluates a model with all settings; returns the content of the file.

    Args:
        arguments: The parsed arguments of `add_measuring_arguments`.
        list_settings: Returns the settings to evaluate for a config, as `grid` does.
        script: Name of the script in the command on the page.
    """
    classifier = load_classifier(arguments.model)
    model, name = classifier.model, arguments.name or Path(arguments.model).name
    dataset = canonical_name(arguments.dataset)
    split = arguments.split or DATASETS[dataset].evaluation_split
    options = parse_data_options(arguments.data_option or [])
    rows: Any = load(dataset, split, arguments.data_dir, cache_dir=arguments.scratch / "data", **options)
    if arguments.clips is not None and arguments.clips < len(rows):
        # Evenly over the dataset, so that all classes occur.
        rows = rows.select(np.linspace(0, len(rows) - 1, arguments.clips).round().astype(int).tolist())
    settings = list_settings(model.config)
    if len(rows) < 2:
        raise ValueError(f"at least 2 clips are needed for a standard error, got {len(rows)}")
    output = arguments.scratch / arguments.output.stem
    evaluate(
        model,
        rows,
        classifier.transform,
        sampling_preset(model.config.model_type, dataset, num_frames=model.config.num_frames),
        output,
        settings=[setting["changes"] for setting in settings],
        batch_size=arguments.batch_size,
        num_workers=0,
        top_k=model.config.num_labels,  # whole distributions
        resume=output.exists(),
        identity={"model": name},
        on_progress=lambda progress: print(f"\r{name}: {progress.done}/{progress.total}", end="", file=sys.stderr),
    )
    print(file=sys.stderr)
    measured = summarize_rows(settings, output / "predictions.jsonl", model.config.num_labels)
    return {
        "model": name,
        "architecture": model.config.model_type,
        "tokens": hf_video_tome.token_counts(model)[0],
        "data": arguments.data_name or dataset,
        "split": split,
        "clips": len(measured[0]["right"]),
        "command": shlex.join(["python", f"examples/{script}.py", *public_arguments(arguments)]),
        "versions": {"torch": torch.__version__, "hf_video_tome": hf_video_tome.__version__},
        "settings": measured,
    }


def public_arguments(arguments: argparse.Namespace) -> list[str]:
    """Returns the command without local paths."""
    words = ["measure", Path(arguments.model).name, "--dataset", arguments.dataset]
    words += ["--data-dir", "DATA"] if arguments.data_dir else []
    for option in arguments.data_option or []:
        words += ["--data-option", option]
    words += ["--split", arguments.split] if arguments.split else []
    words += ["--clips", str(arguments.clips)] if arguments.clips else []
    if tuple(arguments.targets) != tuple(arguments.usual_targets):
        words += ["--targets", *(f"{target:g}" for target in arguments.targets)]
    return [*words, "--output", arguments.output.name]


def summarize_rows(settings: Sequence[dict[str, Any]], path: Path, num_labels: int) -> list[dict[str, Any]]:
    """Reads the predictions of an evaluation and computes the results of each setting."""
    logs: list[dict[int, np.ndarray]] = [{} for _ in settings]
    ranks: list[dict[int, int]] = [{} for _ in settings]
    nlls: list[dict[int, float]] = [{} for _ in settings]
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if "error" in row:
                print(f"left out: {row['video_id']}: {row['error']}", file=sys.stderr)
                continue
            number, position = row["setting"], row["position"]
            log = np.empty(num_labels)
            log[row["label_top"]] = row["label_log_probabilities"]
            logs[number][position], ranks[number][position] = log, row["label_rank"]
            nlls[number][position] = row["label_nll"]
    positions = sorted(logs[0])
    reference = np.array([logs[0][position] for position in positions])
    first_right = np.array([ranks[0][position] == 0 for position in positions])
    measured = []
    for setting, log_of, rank_of, nll_of in zip(settings, logs, ranks, nlls, strict=True):
        log = np.array([log_of[position] for position in positions])
        right = np.array([rank_of[position] == 0 for position in positions])
        nll = np.array([nll_of[position] for position in positions])
        divergence = (np.exp(reference) * (reference - log)).sum(axis=1)
        measured.append(
            {
                **setting,
                "accuracy": rounded(share_with_error(right)),
                "change": rounded(mean_with_error(right.astype(float) - first_right)),
                "agreement": rounded(share_with_error(log.argmax(1) == reference.argmax(1))),
                "kl": rounded(mean_with_error(divergence)),
                "nll": rounded(mean_with_error(nll)),
                "right": "".join("1" if answer else "0" for answer in right),
            }
        )
    return measured


def rounded(pair: tuple[float, float]) -> list[float]:
    """Rounds a mean and its standard error."""
    return [round(float(value), 5) for value in pair]


# --- the page
def read_files(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Reads the files written by `measure`."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def label(differs: Mapping[str, Any]) -> str:
    """Returns the name of a setting in tables."""
    words = []
    for field, value in differs.items():
        if field == "proportional_attention":
            words.append("proportional attention" if value else "plain attention")
        else:
            words.append(str(value) if field == "mode" else f"{field} {value}")
    return ", ".join(words) or "**usual**"


def points(pair: Sequence[float]) -> str:
    """Formats a change in percentage points with its standard error."""
    value, error = (100 * number for number in pair)
    sign = "+" if value > 0.05 else MINUS if value < -0.05 else ""
    return f"{sign}{abs(value):.1f} ± {error:.1f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines)


def model_section(study: Mapping[str, Any]) -> str:
    """Returns the tables of one model on one dataset."""
    settings = study["settings"]
    unmerged, merged = settings[0], settings[1:]
    targets = list(dict.fromkeys(setting["target"] for setting in merged))
    kinds = list(dict.fromkeys(json.dumps(setting["differs"]) for setting in merged))
    found = {(json.dumps(setting["differs"]), setting["target"]): setting for setting in merged}
    value, error = (100 * number for number in unmerged["accuracy"])

    def rows(cell: Any) -> list[list[str]]:
        return [[label(json.loads(kind)), *(cell(found[kind, target]) for target in targets)] for kind in kinds]

    usual = [found["{}", target] for target in targets]
    header = [f"{setting['ratio']:.2f}x (r = {setting['changes']['r']})" for setting in usual]

    def change(setting: Mapping[str, Any]) -> str:
        off = abs(math.log(setting["ratio"] / setting["target"])) > math.log1p(TOLERANCE)
        return points(setting["change"]) + (f" ({setting['ratio']:.2f}x)" if off else "")

    def likeness(setting: Mapping[str, Any]) -> str:
        return f"{100 * setting['agreement'][0]:.1f} / {setting['kl'][0]:.3f} / {setting['nll'][0]:.3f}"

    return "\n\n".join(
        [
            f"### {study['model']}, {study['data']}",
            f"{study['clips']} clips, {study['tokens']} tokens. Unmerged: {value:.1f} ± {error:.1f} %, negative "
            f"log-likelihood {unmerged['nll'][0]:.3f}. Change of accuracy in points ± its standard error, on the same "
            "clips:",
            table(["fewer operations", *header], rows(change)),
            "Agreement with r = 0 in percent / divergence from it (KL, nats) / negative log-likelihood:",
            table(["fewer operations", *header], rows(likeness)),
        ]
    )


@dataclass(frozen=True)
class Comparison:
    """Comparison of two values of a factor, averaged over targets.

    Attributes:
        study: Model and clips.
        title: Description of the comparison.
        value: Mean difference of accuracy, as a share.
        error: Its standard error over clips.
        pairs: Number of pairs of settings.
        not_worse: Number of pairs in which the first setting is better or equal.
    """

    study: str
    title: str
    value: float
    error: float
    pairs: int
    not_worse: int


def compare(study: Mapping[str, Any]) -> list[Comparison]:
    """Compares the default setting with those that differ in one factor, at each target that both reach."""
    settings = study["settings"][1:]
    right = {
        (json.dumps(s["differs"]), s["target"]): (np.array(list(s["right"]), dtype=float), s["ratio"])
        for s in settings
    }
    comparisons = []
    for kind in dict.fromkeys(key for key, _ in right):
        differences = []
        for target in dict.fromkeys(target for _, target in right):
            (answers, ratio), (usual, usual_ratio) = right[kind, target], right["{}", target]
            if kind != "{}" and abs(math.log(ratio / usual_ratio)) <= math.log1p(TOLERANCE):
                differences.append(answers - usual)
        if differences:
            value, error = mean_with_error(np.mean(differences, axis=0))
            not_worse = sum(difference.mean() >= 0 for difference in differences)
            name = f"{study['model']}, {study['data']}"
            comparisons.append(
                Comparison(name, label(json.loads(kind)), value, error, len(differences), int(not_worse))
            )
    return comparisons


def certain_distance(comparisons: int) -> float:
    """Returns how many standard errors one of all comparisons would reach in 1 of 20 studies if nothing differed."""
    return NormalDist().inv_cdf(1 - 0.025 / max(1, comparisons))


def verdict(value: float, error: float, bound: float) -> str:
    """Describes the significance of a difference with its standard error."""
    distance = value / error if error else math.copysign(math.inf, value)
    if value == 0 or not abs(distance) >= 2:  # or is NaN
        return "no difference beyond noise"
    return ("" if abs(distance) >= bound else "perhaps ") + ("better" if distance > 0 else "worse")


def conclusions(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the comparisons of all studies with their conclusions."""
    titles = Counter(f"{study['model']}, {study['data']}" for study in studies)
    for title, count in titles.items():
        if count > 1:
            raise SystemExit(f"error: {count} files are of {title}: give --name or --data-name when measuring")
    made = [comparison for study in studies for comparison in compare(study)]
    bound = certain_distance(len(made))
    names = list(dict.fromkeys(comparison.study for comparison in made))
    by_title = {(comparison.title, comparison.study): comparison for comparison in made}
    rows = []
    for title in dict.fromkeys(comparison.title for comparison in made):
        cells = [title]
        for name in names:
            found = by_title.get((title, name))
            cells.append(
                f"{points((found.value, found.error))}, {verdict(found.value, found.error, bound)}; better or equal "
                f"in {found.not_worse} of {found.pairs}"
                if found
                else ""
            )
        rows.append(cells)
    return "\n\n".join(
        [
            "### What makes a difference",
            "Against the usual setting at equal operations (within "
            f"{TOLERANCE:.0%}), averaged over the budgets clip by clip, in points ± standard error. A difference of 2 "
            f"standard errors counts as *perhaps* better or worse, one of {bound:.1f} as better or worse: if nothing "
            f"made a difference, one page in twenty would have such a one among its {len(made)} comparisons. The "
            "standard errors are over clips: they say nothing of other persons, places or trainings.",
            table(["not usual", *names], rows),
        ]
    )


def render(studies: Sequence[Mapping[str, Any]]) -> str:
    """Returns the generated part of the page."""
    commands = "\n".join(study["command"] for study in studies)
    parts = [conclusions(studies), *map(model_section, studies), "### Commands", f"```\n{commands}\n```"]
    return "\n\n".join(parts)


def write_page(
    paths: Sequence[Path], page: Path, render: Callable[[Sequence[Mapping[str, Any]]], str] = render
) -> None:
    """Writes tables and conclusions into a page, which is created if needed."""
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Study\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"error: {page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{render(read_files(paths))}\n\n{END}{after}", encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="evaluate a model with all settings")
    add_measuring_arguments(measuring, TARGETS)
    writing = commands.add_parser("page", help="write tables and conclusions into a page")
    writing.add_argument("files", type=Path, nargs="+")
    writing.add_argument("--output", type=Path, required=True, help="output page, in Markdown")
    return parser.parse_args(arguments)


def add_measuring_arguments(measuring: argparse.ArgumentParser, targets: Sequence[float]) -> None:
    """Adds the arguments of `measure`, with its usual reduction factors."""
    measuring.add_argument("model", help="name of a bundled checkpoint, folder or Hub id")
    measuring.add_argument("--name", help="name of the model on the page (default: the name of its folder)")
    measuring.add_argument("--dataset", default="class-folders")
    measuring.add_argument("--data-dir")
    measuring.add_argument("--data-option", action="append", help="NAME=VALUE, as for hf-video-tome evaluate")
    measuring.add_argument("--data-name", help="name of the clips on the page (default: the dataset)")
    measuring.add_argument("--split")
    measuring.add_argument("--clips", type=int, help="largest number of clips, evenly spaced over the split")
    measuring.add_argument(
        "--targets", type=float, nargs="+", default=list(targets), help="reduction factors of operations"
    )
    measuring.set_defaults(usual_targets=targets)
    measuring.add_argument("--batch-size", type=int, default=16)
    measuring.add_argument("--threads", type=int, default=1)
    measuring.add_argument("--scratch", type=Path, default=Path("study-scratch"), help="folder for predictions")
    measuring.add_argument("--output", type=Path, required=True, help="output file, in JSON")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    chosen = parse_arguments(arguments)
    if chosen.command == "page":
        write_page(chosen.files, chosen.output)
        return
    measure_to_file(chosen, lambda config: grid(config, chosen.targets), "study_budgets")


def measure_to_file(
    arguments: argparse.Namespace, list_settings: Callable[[Any], list[dict[str, Any]]], script: str
) -> None:
    """Evaluates a model with all settings and writes the file: see `measure`."""
    torch.set_num_threads(arguments.threads)
    try:
        write_json(arguments.output, measure(arguments, list_settings, script))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a data file of a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
