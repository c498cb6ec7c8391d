"""Measures the cost in accuracy of each token merging setting, at equal numbers of tokens, on Moving Digits.

    python examples/study_moving_digits.py

evaluates three bundled checkpoints with every mode, schedule, scope, pooling and kind of attention on the standard
test clips, and with the settings around the defaults on four harder variants. Then it writes `docs/results.md`, with
plots and a table of all results. The full study takes about 40 minutes on one CPU thread; an interrupted study is
continued, and a finished one only rewrites its page.

*Equal tokens.* Schedules and scopes are compared if they leave the same number of tokens, within 2 % of the initial
number. The r of each schedule is chosen accordingly; if no r fits, the table shows the actual number of tokens, and no
conclusion is drawn.

*Rule-based conclusions.* Every conclusion on the page is composed from the measured differences by the rules below, so
that other numbers give other sentences.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import matplotlib
import numpy as np
import torch
import transformers
from study_budgets import certain_distance, table
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.benchmark import machine
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data.loading import load
from hf_video_tome.data.moving_digits import NOUNS, VARIANTS
from hf_video_tome.data.sampling import sampling_preset
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.evaluation import Progress, evaluate
from hf_video_tome.metrics.standard_errors import mean_with_error, share_with_error

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ARCHITECTURES = {"videomae": "VideoMAE", "vivit": "ViViT", "timesformer": "TimeSformer"}
SCHEDULES = ("constant", "decreasing", "increasing")
LEVELS = (4, 5)
"""Tokens that each layer removes from each frame with the constant schedule: of the 36, 12 and 6 are left."""
LEVEL = 5
"""The level that most tables are about."""
# The paper's threshold for VideoMAE, and a higher one. On 24 validation clips, at this level and with the defaults,
# 2, 1 and 17 % of the pairs (VideoMAE, ViViT, TimeSformer) are less similar than 0.8, and 14, 5 and 31 % than 0.95.
COMMON_THRESHOLD, HIGH_THRESHOLD = 0.8, 0.95
MERGING_MODES: tuple[tuple[str, float | None], ...] = (
    ("merge", None),
    ("hybrid", COMMON_THRESHOLD),
    ("random_merge", None),
)
DROPPING_MODES = ("drop", "random_drop")
MODES: tuple[tuple[str, float | None], ...] = (
    ("merge", None),
    ("hybrid", COMMON_THRESHOLD),
    ("hybrid", HIGH_THRESHOLD),
    ("drop", None),
    ("random_merge", None),
    ("random_drop", None),
)
STUDIED_VARIANTS = ("standard", "noise", "contrast", "vp9", "distractor")
EQUAL_TOKENS = 0.02
"""Largest difference of what is left, as a share of the initial tokens, at which settings count as equal."""
SEED = 0


# --- settings
@dataclass(frozen=True)
class Setting:
    """Token merging setting; fields without effect have a fixed value, so that nothing is run twice.

    Attributes:
        level: One of `LEVELS`; 0 for the unmerged model.
        mode: Mode of token merging.
        threshold: That of the hybrid mode.
        schedule: One of `SCHEDULES`.
        scope: Scope of the matching.
        pooling: Pooling of mean-pooled heads (VideoMAE).
        proportional: Whether attention is proportional to size.
    """

    level: int
    mode: str
    threshold: float | None
    schedule: str
    scope: str
    pooling: str
    proportional: bool

    @property
    def mode_name(self) -> str:
        """Name of the mode with its threshold."""
        if not self.level:
            return "unmerged"
        return self.mode if self.threshold is None else f"{self.mode} {self.threshold:g}"

    def changes(self, r: int) -> dict[str, Any]:
        """Returns the setting for `evaluate`."""
        if not self.level:
            return {"r": 0}
        return {
            "r": r,
            "mode": self.mode,
            "threshold": self.threshold,
            "schedule": self.schedule,
            "scope": self.scope,
            "pooling": self.pooling,
            "proportional_attention": self.proportional,
        }


class Subject:
    """Architecture with its possible settings and their token counts."""

    def __init__(self, architecture: str, config: Any) -> None:
        self.architecture, self.config = architecture, config
        self._known: dict[tuple[Setting, int], list[int]] = {}
        # Merging along time removes whole frames: no r of it leaves as many tokens as the levels do.
        self.scopes = tuple(scope for scope in config.supported_token_merging_scopes if scope != "time")
        # Heads that read a CLS token do not pool.
        self.poolings = ("weighted", "mean") if config.token_layout.num_prefix_tokens == 0 else ("weighted",)
        chosen = config.token_merging_settings(resolved=True)
        self.default = Setting(
            LEVEL, "merge", None, "constant", chosen["scope"], chosen["pooling"], chosen["proportional_attention"]
        )
        self.unmerged = replace(self.default, level=0)
        paper = hf_video_tome.paper_settings(architecture)
        self.paper = replace(
            self.default,
            scope=paper["scope"],
            pooling=paper["pooling"] if len(self.poolings) > 1 else "weighted",
            proportional=paper["proportional_attention"],
        )

    def counts(self, setting: Setting) -> list[int]:
        """Returns the number of tokens before the first and after each layer."""
        return self._counts(setting, self.r(setting))

    def _counts(self, setting: Setting, r: int) -> list[int]:
        if (setting, r) not in self._known:
            config = copy.copy(self.config)
            config.update_token_merging(**setting.changes(r))
            self._known[setting, r] = hf_video_tome.token_counts(config)
        return self._known[setting, r]

    def target(self, level: int) -> int:
        """Returns the number of tokens left by the constant schedule at a level, whatever the scope."""
        return self._counts(replace(self.default, level=level, scope=self.scopes[-1]), level)[-1]

    def r(self, setting: Setting) -> int:
        """Returns the r that leaves as many tokens as the constant schedule, as closely as possible."""
        if not setting.level:
            return 0
        layout = self.config.token_layout
        step = layout.num_frames if setting.scope == "clip" else 1
        if setting.schedule == "constant":
            return setting.level * step
        target = self.target(setting.level)
        return min(
            range(1, setting.level * step * 2 + 1), key=lambda r: (abs(self._counts(setting, r)[-1] - target), r)
        )

    def comparable(self, setting: Setting) -> bool:
        """Returns whether a setting leaves the number of tokens of its level."""
        counts = self.counts(setting)
        return not setting.level or abs(counts[-1] - self.target(setting.level)) <= EQUAL_TOKENS * counts[0]

    def removed(self, level: int) -> str:
        """Returns the share of patch tokens that a level removes."""
        prefix = self.config.token_layout.num_prefix_tokens
        return percent(1 - (self.target(level) - prefix) / (self.counts(self.unmerged)[0] - prefix))

    def work(self, setting: Setting) -> float:
        """Returns the tokens seen by attention and MLP of all layers, as a share of those without merging."""
        counts = self.counts(setting)
        return (sum(counts[:-1]) + sum(counts[1:])) / (2 * counts[0] * (len(counts) - 1))

    def full_grid(self) -> list[Setting]:
        """Returns all modes x schedules x scopes x pooling x attention at both levels, the unmerged model first."""
        grid = [self.unmerged]
        for level in LEVELS:
            for scope in self.scopes:
                for schedule in SCHEDULES:
                    base = replace(self.default, level=level, scope=scope, schedule=schedule)
                    grid += [
                        replace(base, mode=mode, threshold=threshold, pooling=pooling, proportional=proportional)
                        for mode, threshold in MERGING_MODES
                        for pooling in self.poolings
                        for proportional in (False, True)
                    ]
                    # All sizes stay one: neither pooling nor attention has anything to weigh.
                    grid += [replace(base, mode=mode) for mode in DROPPING_MODES]
                base = replace(self.default, level=level, scope=scope)
                grid.append(replace(base, mode="hybrid", threshold=HIGH_THRESHOLD))
        return list(dict.fromkeys(grid))

    def main_grid(self) -> list[Setting]:
        """Returns the defaults in all modes, and what differs from the default merging in one factor."""
        base = self.default
        grid = [self.unmerged, *(replace(base, mode=mode, threshold=threshold) for mode, threshold in MODES)]
        grid += [replace(base, level=level, mode=mode) for level in LEVELS for mode in ("merge", "drop")]
        for factor in FACTORS:
            grid += [
                replace(base, **{factor.field: value})
                for value in (factor.changed, factor.base)
                if factor.applies(self)
            ]
        return list(dict.fromkeys([*grid, self.paper]))


@dataclass(frozen=True)
class Factor:
    """Setting with two values to compare.

    Attributes:
        title: Name in tables.
        field: Field of `Setting`.
        changed: The value whose effect is reported.
        base: The value that it is compared with.
    """

    title: str
    field: str
    changed: Any
    base: Any

    def applies(self, subject: Subject) -> bool:
        """Returns whether an architecture has both values."""
        values: dict[str, Sequence[Any]] = {"scope": subject.scopes, "pooling": subject.poolings}
        allowed = values.get(self.field)
        return allowed is None or (self.changed in allowed and self.base in allowed)

    def around_default(self, subject: Subject) -> tuple[Setting, Setting]:
        """Returns the default merging with the one and with the other value."""
        return (
            replace(subject.default, **{self.field: self.changed}),
            replace(subject.default, **{self.field: self.base}),
        )


FACTORS = (
    Factor("schedule decreasing, not constant", "schedule", "decreasing", "constant"),
    Factor("schedule increasing, not constant", "schedule", "increasing", "constant"),
    Factor("scope frame, not clip", "scope", "frame", "clip"),
    Factor("scope tube, not clip", "scope", "tube", "clip"),
    Factor("scope frame, not tube", "scope", "frame", "tube"),
    Factor("pooling mean, not weighted", "pooling", "mean", "weighted"),
    Factor("proportional attention, not plain", "proportional", True, False),
)


# --- measuring
@dataclass
class Outcome:
    """Predictions for one architecture on one variant.

    Attributes:
        subject: The architecture.
        variant: Name of the variant.
        settings: The evaluated settings, the unmerged model first.
        scores: By measure, (settings, clips): accuracies in percent (each 0 or 100) and "nll" in nats.
        top: (settings, clips) predicted actions.
    """

    subject: Subject
    variant: str
    settings: list[Setting]
    scores: dict[str, np.ndarray]
    top: np.ndarray
    index: dict[Setting, int] = field(init=False)

    def __post_init__(self) -> None:
        self.index = {setting: number for number, setting in enumerate(self.settings)}

    @property
    def num_clips(self) -> int:
        """Number of evaluated clips."""
        return self.top.shape[1]

    def mean(self, measure: str, setting: Setting) -> tuple[float, float]:
        """Returns the mean and standard error of a measure, such as agreement with the unmerged model."""
        number = self.index[setting]
        if measure == "agreement":
            share, error = share_with_error(self.top[number] == self.top[0])
            return 100 * share, 100 * error
        if measure == "nll":
            return mean_with_error(self.scores["nll"][number])
        share, error = share_with_error(self.scores[measure][number] > 0)
        return 100 * share, 100 * error


def measure(
    architecture: str, variant: str, num_clips: int, grid: str, scratch: Path, batch_size: int, began: float
) -> Outcome:
    """Evaluates an architecture on a variant, or reads the results of an earlier run."""
    folder = checkpoint_path(f"{architecture}-moving-digits")
    model = AutoModelForVideoClassification.from_pretrained(folder)
    subject = Subject(architecture, model.config)
    settings = subject.full_grid() if grid == "full" else subject.main_grid()
    rows = load("moving-digits", "test", num_test=num_clips, config_name=variant, cache_dir=str(scratch / "data"))

    def show(progress: Progress) -> None:
        accuracy = "" if progress.accuracy[0] is None else f", unmerged {progress.accuracy[0]:.1%}"
        print(
            f"\r{architecture}, {variant}: {progress.done} of {progress.total} clips, {len(settings)} settings"
            f"{accuracy} ({time.perf_counter() - began:.0f} s)   ",
            end="",
            file=sys.stderr,
        )

    output = scratch / f"{architecture}-{variant}-{grid}-{num_clips}"
    evaluate(
        model,
        rows,
        ClipTransform.from_pretrained(folder),
        sampling_preset(architecture, "moving-digits", num_frames=model.config.num_frames),
        output,
        settings=[setting.changes(subject.r(setting)) for setting in settings],
        batch_size=batch_size,
        num_workers=0,
        seed=SEED,
        top_k=1,
        resume=True,
        identity={"checkpoint": folder.name, "dataset": "moving-digits", "variant": variant},
        on_progress=show,
    )
    print(file=sys.stderr)
    return read_outcome(subject, variant, settings, num_clips, output / "predictions.jsonl")


def read_outcome(subject: Subject, variant: str, settings: list[Setting], num_clips: int, path: Path) -> Outcome:
    """Reads the predictions of an evaluation."""
    shape = (len(settings), num_clips)
    top, label = np.full(shape, -1), np.full(shape, -1)
    nll = np.full(shape, math.nan)
    with path.open(encoding="utf-8") as handle:
        for line in handle:
            row = json.loads(line)
            if "error" in row:
                raise ValueError(f"{row['video_id']} could not be read: {row['error']}")
            key = row["setting"], row["position"]
            top[key], label[key], nll[key] = row["label_top"][0], row["label"], row["label_nll"]
    verb, noun = (top // len(NOUNS) == label // len(NOUNS)), (top % len(NOUNS) == label % len(NOUNS))
    scores = {"action": 100.0 * (verb & noun), "verb": 100.0 * verb, "noun": 100.0 * noun, "nll": nll}
    return Outcome(subject, variant, settings, scores, top)


# --- comparing
@dataclass(frozen=True)
class Comparison:
    """Difference between two settings, or mean difference of the same change over many settings, on the same clips.

    Attributes:
        value: Mean over the clips.
        error: Its standard error; what the clips have in common cancels.
        nll: Whether it is in nats, where less is better; else in points of accuracy.
    """

    value: float
    error: float
    nll: bool

    @property
    def distance(self) -> float:
        """Distance from zero in standard errors, positive for an improvement."""
        if not self.error:
            return 0.0
        return (-self.value if self.nll else self.value) / self.error

    def __str__(self) -> str:
        digits = 3 if self.nll else 1
        return plus_minus(signed(self.value, digits), self.error, digits)


VERDICTS = ("worse", "perhaps worse", "mixed", "no difference beyond noise", "perhaps better", "better")


class Ledger:
    """Ledger of all comparisons on the page; their number determines the significance bound."""

    def __init__(self) -> None:
        self.made: dict[tuple[Any, ...], Comparison] = {}
        self.bound = math.inf

    def set_bound(self) -> None:
        """Sets the distance from which on a difference is significant."""
        self.bound = certain_distance(len(self.made))

    def compare(
        self, outcome: Outcome, score: str, changed: Setting | Sequence[Setting], base: Setting | Sequence[Setting]
    ) -> Comparison:
        """Compares pairs of settings; differences are averaged over the pairs for each clip."""
        first = [changed] if isinstance(changed, Setting) else list(changed)
        second = [base] if isinstance(base, Setting) else list(base)
        key = (outcome.subject.architecture, outcome.variant, score, tuple(first), tuple(second))
        if key not in self.made:
            scores = outcome.scores[score]
            difference = scores[[outcome.index[s] for s in first]] - scores[[outcome.index[s] for s in second]]
            self.made[key] = Comparison(*mean_with_error(difference.mean(axis=0)), nll=score == "nll")
        return self.made[key]

    def verdict(self, comparisons: Iterable[Comparison]) -> str:
        """Describes the combined significance of the differences in several measures."""
        distances = [comparison.distance for comparison in comparisons]
        worse, better = min(distances) <= -2, max(distances) >= 2
        if worse and better:
            return "mixed"
        if not (worse or better):
            return "no difference beyond noise"
        certain = max(map(abs, distances)) >= self.bound
        return ("" if certain else "perhaps ") + ("worse" if worse else "better")

    def cell(self, comparison: Comparison) -> str:
        """Formats a difference in a table: bold if significant, italic from two standard errors on."""
        if abs(comparison.distance) >= self.bound:
            return f"**{comparison}**"
        return f"*{comparison}*" if abs(comparison.distance) >= 2 else str(comparison)

    def cells(self, outcome: Outcome, changed: Setting, base: Setting, scores: Sequence[str]) -> list[str]:
        """Formats differences in several measures; empty for a setting compared with itself."""
        if changed == base:
            return [""] * len(scores)
        return [self.cell(self.compare(outcome, score, changed, base)) for score in scores]


def over_grid(outcome: Outcome, factor: Factor, pooling: str | None = None) -> tuple[list[Setting], list[Setting]]:
    """Returns all pairs of settings of the mode `merge` that differ in a factor alone and leave equally many tokens.

    Args:
        outcome: The results.
        factor: The factor to change.
        pooling: If given, only settings with this pooling.

    Returns:
        The settings with the changed value, and their partners with the other one; both empty where there is no grid.
    """
    changed, base = [], []
    for setting in outcome.settings:
        partner = replace(setting, **{factor.field: factor.base})
        if (
            setting.level
            and setting.mode == "merge"
            and getattr(setting, factor.field) == factor.changed
            and pooling in (None, setting.pooling)
            and partner in outcome.index
            and all(map(outcome.subject.comparable, (setting, partner)))
        ):
            changed.append(setting)
            base.append(partner)
    # The main grid has hardly more than the pair around the defaults: that is no average over a grid.
    return (changed, base) if len(changed) > 2 else ([], [])


# --- words
NO_BREAK = "\u00a0"


def signed(value: float, digits: int) -> str:
    """Formats a difference, with a typographic minus sign."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def plus_minus(value: str, error: float, digits: int) -> str:
    """Formats a value with its standard error, without a line break in between."""
    return f"{value}{NO_BREAK}±{NO_BREAK}{error:.{digits}f}"


def with_error(mean: tuple[float, float], digits: int = 1) -> str:
    """Formats a mean and its standard error."""
    return plus_minus(f"{mean[0]:.{digits}f}", mean[1], digits)


def percent(share: float) -> str:
    """Formats a share: "83 %"."""
    return f"{100 * share:.0f}{NO_BREAK}%"


def enumeration(names: Iterable[object]) -> str:
    """Formats a list: "A, B and C"."""
    *others, last = map(str, names)
    return f"{', '.join(others)} and {last}" if others else last


def spread(values: Iterable[int]) -> str:
    """Formats a range: "3" or "3 to 5"."""
    ordered = sorted(values)
    return str(ordered[0]) if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def paragraph(text: str, bullet: bool = False) -> str:
    """Wraps prose."""
    return textwrap.fill(
        text,
        width=138,
        initial_indent="- " if bullet else "",
        subsequent_indent="  " if bullet else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


# --- what is compared
@dataclass
class Study:
    """All outcomes by architecture and variant, with their conditions."""

    outcomes: dict[tuple[str, str], Outcome]
    command: str

    @cached_property
    def architectures(self) -> list[str]:
        """The architectures in the order of `ARCHITECTURES`."""
        return [name for name in ARCHITECTURES if any(name == architecture for architecture, _ in self.outcomes)]

    @cached_property
    def variants(self) -> list[str]:
        """The variants in the order of `VARIANTS`, the standard one first."""
        return [name for name in VARIANTS if any(name == variant for _, variant in self.outcomes)]

    @property
    def standard(self) -> list[tuple[str, Outcome]]:
        """The title of each architecture and its outcome on the standard clips."""
        return [(ARCHITECTURES[name], self.outcomes[name, "standard"]) for name in self.architectures]

    @property
    def harder(self) -> list[Outcome]:
        """The outcomes on the other variants."""
        return [
            self.outcomes[architecture, variant]
            for variant in self.variants
            for architecture in self.architectures
            if variant != "standard"
        ]


def default(outcome: Outcome, **changes: Any) -> Setting:
    """Returns the default merging of an architecture with some changes."""
    return replace(outcome.subject.default, **changes)


Pair = tuple[Setting, Setting]
Change = Callable[[Outcome], Pair | None]
"""Gives for an architecture the changed and the base setting; None where there is no such change."""


def mode_change(changed: str, base: str, threshold: float | None = None) -> Change:
    """Returns the change from one mode to another."""
    return lambda outcome: (default(outcome, mode=changed, threshold=threshold), default(outcome, mode=base))


def merging(level: int = LEVEL) -> Change:
    """Returns the change from no merging to merging."""
    return lambda outcome: (default(outcome, level=level), outcome.subject.unmerged)


def factor_change(factor: Factor, mode: str = "merge") -> Change:
    """Returns the change to another value of a setting, if it leaves as many tokens."""

    def change(outcome: Outcome) -> Pair | None:
        if not factor.applies(outcome.subject):
            return None
        changed, base = (replace(setting, mode=mode) for setting in factor.around_default(outcome.subject))
        known = changed in outcome.index and base in outcome.index
        return (changed, base) if known and all(map(outcome.subject.comparable, (changed, base))) else None

    return change


def paper_change(outcome: Outcome) -> Pair | None:
    """Returns the change from the defaults to the paper's settings."""
    subject = outcome.subject
    return None if subject.paper == subject.default else (subject.paper, subject.default)


# --- the page
TASKS = {"verb": "verbs", "noun": "digits", "action": "actions"}


def told(found: Mapping[str, Comparison]) -> str:
    """Describes the numbers of a comparison."""
    names = {"nll": "NLL", **(TASKS if "verb" in found else {"action": "accuracy"})}
    return ", ".join(f"{names[score]} {comparison}" for score, comparison in found.items())


def by_verdict(items: Iterable[tuple[str, str]]) -> str:
    """Groups names by verdict: "worse for A and B; better for C"."""
    groups: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for verdict, name in items:
        groups[verdict].append(name)
    return "; ".join(f"{verdict} for {enumeration(names)}" for verdict, names in groups.items() if names)


def conclude(study: Study, ledger: Ledger, change: Change, scores: Sequence[str] = ("action", "nll")) -> str:
    """Describes for which architectures a change is better or worse on the standard clips, with its numbers."""
    items = []
    for title, outcome in study.standard:
        pair = change(outcome)
        if pair is not None:
            found = {score: ledger.compare(outcome, score, *pair) for score in scores}
            items.append((ledger.verdict(found.values()), f"{title} ({told(found)})"))
    return by_verdict(items)


def poolings(outcome: Outcome, factor: Factor) -> list[tuple[str, str | None]]:
    """Returns the poolings for which the effect of a factor is reported separately."""
    if factor.field == "pooling" or len(outcome.subject.poolings) == 1:
        return [("", None)]
    return [(f", {pooling} pooling", pooling) for pooling in outcome.subject.poolings]


def conclude_grid(study: Study, ledger: Ledger, factor: Factor) -> str:
    """Describes the mean effect of a factor over all comparable settings of the mode `merge`."""
    items = []
    for title, outcome in study.standard:
        for suffix, pooling in poolings(outcome, factor):
            changed, base = over_grid(outcome, factor, pooling)
            if changed:
                found = {score: ledger.compare(outcome, score, changed, base) for score in ("action", "nll")}
                items.append(
                    (ledger.verdict(found.values()), f"{title}{suffix.replace(',', ' with')} ({told(found)})")
                )
    return f" On average over the grid: {by_verdict(items)}." if items else ""


def questions(study: Study) -> list[tuple[str, Change]]:
    """Returns all questions about the defaults."""
    subject = study.standard[0][1].subject
    levels = [(f"merging {subject.removed(level)}, not none", merging(level)) for level in LEVELS]
    factors = [(factor.title, factor_change(factor)) for factor in FACTORS]
    dropping = [
        (f"{factor.title}, with mode `drop`", factor_change(factor, "drop"))
        for factor in FACTORS
        if factor.field == "schedule"
    ]
    return [*levels, *MODE_CHANGES, *factors, *dropping]


def summary(study: Study, ledger: Ledger) -> list[str]:
    """Returns the sorted verdicts without numbers."""
    groups: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for title, change in questions(study):
        names: dict[str, list[str]] = {}
        for name, outcome in study.standard:
            pair = change(outcome)
            if pair is not None:
                found = [ledger.compare(outcome, score, *pair) for score in ("action", "nll")]
                names.setdefault(ledger.verdict(found), []).append(name)
        for verdict, of in names.items():
            everywhere = len(of) == len(study.standard) > 1
            groups[verdict].append(f"{title} ({'all' if everywhere else ', '.join(of)})")
    return [f"**{capital(verdict)}**: {'; '.join(items)}." for verdict, items in groups.items() if items]


def conclusions(study: Study, ledger: Ledger) -> list[str]:
    """Returns the numbers, question by question."""
    standard = study.standard
    subject = standard[0][1].subject
    points = []
    for level in LEVELS:
        same = [
            f"{outcome.mean('agreement', default(outcome, level=level))[0]:.1f}{NO_BREAK}% ({title})"
            for title, outcome in standard
        ]
        points.append(
            f"**Merging {subject.removed(level)}, not none**: {conclude(study, ledger, merging(level))}. The "
            f"answer stays the same for {enumeration(same)} of the clips."
        )
    points += [f"**{capital(title)}**: {conclude(study, ledger, change)}." for title, change in MODE_CHANGES]
    for factor in FACTORS:
        aligned = {factor.changed, factor.base} == {"frame", "tube"}
        scores = ("verb", "noun", "action", "nll") if aligned else ("action", "nll")
        text = conclude(study, ledger, factor_change(factor), scores)
        if not text:
            continue
        point = f"**{capital(factor.title)}**: {text}.{conclude_grid(study, ledger, factor)}"
        if factor.field == "schedule":
            dropping = conclude(study, ledger, factor_change(factor, "drop"))
            point += f" With the mode `drop`: {dropping}." if dropping else ""
            chosen = [outcome.subject.work(default(outcome, schedule=factor.changed)) for _, outcome in standard]
            constant = [outcome.subject.work(outcome.subject.default) for _, outcome in standard]
            point += (
                f" All layers together then see {percent(float(np.mean(chosen)))} of the tokens that they see without "
                f"merging, not {percent(float(np.mean(constant)))}."
            )
        points.append(point)
    different = [
        f"{title} with {described_difference(outcome.subject.paper, outcome.subject.default)}"
        for title, outcome in standard
        if paper_change(outcome) is not None
    ]
    if different:
        points.append(
            f"**The paper's settings, not this package's defaults** ({enumeration(different)}): "
            f"{conclude(study, ledger, paper_change)}."
        )
    return points


def capital(text: str) -> str:
    """Capitalises the first letter."""
    return text[0].upper() + text[1:]


def described_difference(changed: Setting, base: Setting) -> str:
    """Describes the fields in which two settings differ."""
    return " and ".join(
        f"{item.name} {getattr(changed, item.name)}"
        for item in fields(Setting)
        if getattr(changed, item.name) != getattr(base, item.name)
    )


MODE_CHANGES: tuple[tuple[str, Change], ...] = (
    ("mode `drop`, not `merge`", mode_change("drop", "merge")),
    ("mode `random_merge`, not `merge`", mode_change("random_merge", "merge")),
    ("mode `random_drop`, not `drop`", mode_change("random_drop", "drop")),
    ("mode `random_merge`, not `random_drop`", mode_change("random_merge", "random_drop")),
    *(
        (f"mode `hybrid` with threshold {threshold:g}, not `merge`", mode_change("hybrid", "merge", threshold))
        for threshold in (COMMON_THRESHOLD, HIGH_THRESHOLD)
    ),
)
HARDER_CHANGES: tuple[tuple[str, Change], ...] = (
    ("mode `merge`, not unmerged", merging()),
    MODE_CHANGES[0],
    MODE_CHANGES[1],
    *((factor.title, factor_change(factor)) for factor in FACTORS),
)
"""Questions for every harder variant."""


def harder_verdicts(study: Study, ledger: Ledger) -> list[tuple[str, dict[str, list[str]]]]:
    """Returns the pairs of architecture and harder variant by verdict on a change."""
    found = []
    for title, change in HARDER_CHANGES:
        verdicts: dict[str, list[str]] = {}
        for outcome in study.harder:
            pair = change(outcome)
            if pair is not None:
                verdict = ledger.verdict(ledger.compare(outcome, score, *pair) for score in ("action", "nll"))
                name = f"{ARCHITECTURES[outcome.subject.architecture]} on {outcome.variant}"
                verdicts.setdefault(verdict, []).append(name)
        if verdicts:
            found.append((title, verdicts))
    return found


def conclude_harder(study: Study, ledger: Ledger) -> str:
    """Counts the pairs of architecture and harder variant on which each change is better or worse."""
    parts = []
    for title, verdicts in harder_verdicts(study, ledger):
        counted = []
        for verdict in ("worse", "better"):
            names = verdicts.get(verdict, [])
            if names:
                counted.append(f"{verdict} on {len(names)}" + (f" ({', '.join(names)})" if len(names) < 4 else ""))
        if counted:
            parts.append(f"{title}: {', '.join(counted)} of {sum(map(len, verdicts.values()))}")
    names = [name for name in study.variants if name != "standard"]
    return (
        f"**On the harder variants** ({enumeration(names)}), counted over the pairs of architecture and variant: "
        f"{'; '.join(parts) or 'no difference beyond noise'}. What is not named is neither better nor worse on any."
    )


def render(study: Study, ledger: Ledger, folder: str) -> str:
    """Writes the page.

    Args:
        study: The measured outcomes.
        ledger: Collects the comparisons, and knows how many there were when the page was written before.
        folder: Folder of tables and plots, relative to the page.

    Returns:
        Markdown.
    """
    removed = study.standard[0][1].subject.removed(LEVEL)
    short = summary(study, ledger)
    if study.harder:
        short.append(conclude_harder(study, ledger))
    found = conclusions(study, ledger)
    sections = [
        modes_section(study, ledger, folder, removed),
        factors_section(study, ledger, removed),
        schedules_section(study, ledger, folder, removed),
        tasks_section(study, ledger),
        *([harder_section(study, ledger, folder, removed)] if study.harder else []),
    ]
    distances = [abs(comparison.distance) for comparison in ledger.made.values()]
    two, bound = (sum(distance >= limit for distance in distances) for limit in (2, ledger.bound))
    chance = 2 * (1 - NormalDist().cdf(2)) * len(distances)
    reading = (
        "± is one standard error over the clips. Changes are paired differences between two settings on the same "
        "clips, so variation between clips cancels out; accuracy is in points, NLL (of the correct class) in nats, "
        f"lower is better. There are {len(distances)} comparisons on this page. {two} of them are at least 2 standard "
        f"errors from zero, of which about {chance:.0f} would be expected by chance: *these are italic*, and called "
        f"“perhaps better” or “perhaps worse”. {bound} are at least {ledger.bound:.1f} standard errors from zero, "
        "which chance alone would give for any of them in one study of twenty (Bonferroni): **these are bold**, and "
        "only they are called better or worse. “Mixed” means better in one measure and worse in another. Everything "
        "else is no difference beyond noise: there may be one that this many clips do not show."
    )
    parts = [
        "# Results on Moving Digits",
        paragraph(
            "The cost in accuracy of each token merging setting, at equal numbers of tokens, on synthetic clips. This "
            "page is generated by a script from its measurements, and its conclusions follow from the numbers by "
            "rules."
        ),
        f"```\n{study.command}\n```",
        "## Conclusions",
        paragraph(
            f"Unless stated otherwise: mode `merge`, {removed} of the tokens removed, otherwise the architecture's "
            "defaults, standard clips. Better and worse refer to accuracy and NLL together."
        ),
        "\n".join(paragraph(point, bullet=True) for point in short),
        paragraph(reading),
        "## The same with numbers",
        "\n".join(paragraph(point, bullet=True) for point in found),
        "## What was run",
        what_was_run(study),
        *sections,
        "## All results",
        paragraph(
            f"[{folder}/grid.csv]({folder}/grid.csv) has one row per setting: r, tokens after each layer, accuracy of "
            "action, verb and digit, NLL, agreement with the unmerged model, and paired differences from it."
        ),
        "## Limits",
        paragraph(
            "There is one trained checkpoint per architecture, with at most 0.8 million parameters and 6 layers: it "
            "is unknown how well the results transfer to base-size models on natural video. Standard errors cover the "
            "choice of clips, not that of the trained weights. The mean NLL can be dominated by a few clips with very "
            "wrong predictions. In the random modes, each clip has one random draw; the standard errors cover it. All "
            "settings see the same clips, so the comparisons are not independent. The defaults that differ from the "
            "paper's (weighted pooling, scope tube) were chosen after an earlier study with other weights on similar "
            "clips, so their gain here is not an independent test of that choice."
        ),
    ]
    return "\n\n".join(parts) + "\n"


VARIANT_NOTES = {
    "noise": "more noise, texture and movement in the background",
    "contrast": "half the contrast",
    "vp9": "VP9, compressed hard",
    "distractor": "a second, fainter digit at rest",
    "camera": "a background that travels 16 to 32 of 64 pixels in every clip",
}


def what_was_run(study: Study) -> str:
    """Describes the data, models and settings of the study."""
    cpu = machine(torch.device("cpu"))["cpu"]
    standard, harder = study.standard, study.harder
    subject = standard[0][1].subject
    layout = subject.config.token_layout
    clips = (
        f"The standard test split has {enumeration(sorted({outcome.num_clips for _, outcome in standard}))} clips here"
    )
    settings = (
        enumeration(f"{len(outcome.settings)} for {title}" for title, outcome in standard) + " on standard clips"
    )
    if harder:
        notes = ", ".join(f"`{name}` ({VARIANT_NOTES[name]})" for name in study.variants if name != "standard")
        number = enumeration(sorted({outcome.num_clips for outcome in harder}))
        clips += f", each harder variant {number}, the same but for one thing: {notes}"
        settings += f", {spread(len(outcome.settings) for outcome in harder)} on each harder variant"
    runs = sum(len(outcome.settings) * outcome.num_clips for outcome in study.outcomes.values())
    with_cls = [title for title, outcome in standard if outcome.subject.config.token_layout.num_prefix_tokens]
    cls = f"; {enumeration(with_cls)} also a CLS token" if with_cls else ""
    defaults = "; ".join(
        f"{title}, scope {outcome.subject.default.scope}, "
        f"{'proportional' if outcome.subject.default.proportional else 'plain'} attention"
        + (f", {outcome.subject.default.pooling} pooling" if len(outcome.subject.poolings) > 1 else "")
        for title, outcome in standard
    )
    levels = ", ".join(
        f"{subject.removed(level)} removed leaves {subject.target(level) - layout.num_prefix_tokens} patch tokens "
        f"(constant schedule: r = {level} per frame, {level * layout.num_frames} per clip)"
        for level in LEVELS
    )
    threads = torch.get_num_threads()
    lines = [
        "Data: [Moving Digits](moving-digits.md), **synthetic motion of real handwritten digits, not Kinetics**: 12 "
        f"motions (verbs) of 10 digits (nouns), 120 actions, as encoded and decoded video files. {clips}.",
        f"Models: the bundled checkpoints {enumeration(f'`{name}-moving-digits`' for name in study.architectures)}, "
        f"float32, {layout.num_frames} x {layout.num_patches} = {layout.num_frames * layout.num_patches} patch tokens"
        f"{cls}. Defaults: the constant schedule, and for {defaults}.",
        f"Equal tokens: {levels}. Other schedules use the closest r. Settings are compared if their remaining tokens "
        f"differ by at most {percent(EQUAL_TOKENS)} of the initial tokens.",
        f"Settings: {settings}; {f'{runs:,}'.replace(',', ' ')} classifications. Pooling is varied if the head "
        "pools (VideoMAE). Dropping keeps every size at one, so pooling and proportional attention have no effect "
        f"there. The thresholds of `hybrid` are the paper's for VideoMAE ({COMMON_THRESHOLD:g}), and one above the "
        f"similarity of many pairs on validation clips ({HIGH_THRESHOLD:g}).",
        f"Machine: {cpu}, {threads} thread{'s' if threads > 1 else ''}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, hf-video-tome {hf_video_tome.__version__}.",
    ]
    return "\n".join(paragraph(line, bullet=True) for line in lines)


def modes_section(study: Study, ledger: Ledger, folder: str, removed: str) -> str:
    """Compares the modes."""
    parts = [f"## Modes, {removed} of the tokens removed"]
    parts.append(paragraph("Changes and “same answer” (agreement) are against the unmerged model."))
    header = ["mode", "accuracy %", "change", "NLL", "change", "same answer %"]
    for title, outcome in study.standard:
        unmerged = outcome.subject.unmerged
        rows = []
        for setting in [unmerged, *(default(outcome, mode=mode, threshold=limit) for mode, limit in MODES)]:
            accuracy, nll = ledger.cells(outcome, setting, unmerged, ("action", "nll"))
            rows.append(
                [
                    setting.mode_name,
                    with_error(outcome.mean("action", setting)),
                    accuracy,
                    with_error(outcome.mean("nll", setting), 3),
                    nll,
                    "" if setting == unmerged else f"{outcome.mean('agreement', setting)[0]:.1f}",
                ]
            )
        parts += [f"### {title}", table(header, rows)]
    parts.append(
        f"![Change of accuracy and NLL by each mode at both levels, for each architecture]({folder}/modes.png)"
    )
    rows = []
    for mode, limit in MODES:
        settings = [
            (outcome, default(outcome, mode=mode, threshold=limit, schedule=schedule))
            for _, outcome in study.standard
            for schedule in SCHEDULES
        ]
        if all(setting in outcome.index for outcome, setting in settings):
            name = settings[0][1].mode_name
            rows.append([name, *(f"{outcome.mean('nll', setting)[0]:.3f}" for outcome, setting in settings)])
    if len(rows) > 1:
        header = ["mode", *(f"{title} {schedule}" for title, _ in study.standard for schedule in SCHEDULES)]
        parts += [paragraph("NLL of the modes under each schedule:"), table(header, rows)]
    return "\n\n".join(parts)


def factors_section(study: Study, ledger: Ledger, removed: str) -> str:
    """Compares the other settings one by one."""
    scores = ("action", "nll")
    rows = []
    for title, outcome in study.standard:
        subject = outcome.subject
        for factor in FACTORS:
            for suffix, pooling in poolings(outcome, factor):
                pair = factor_change(factor)(outcome)
                if pair and pooling:
                    first, second = (replace(setting, pooling=pooling) for setting in pair)
                    pair = (first, second) if first in outcome.index and second in outcome.index else None
                changed, base = over_grid(outcome, factor, pooling)
                if not (pair or changed):
                    continue
                near = ledger.cells(outcome, *pair, scores) if pair else ["", ""]
                far = [ledger.cell(ledger.compare(outcome, s, changed, base)) for s in scores] if changed else ["", ""]
                name = factor.title + suffix + (" (the paper's)" if pair == (subject.paper, subject.default) else "")
                rows.append([title, name, *near, *far, str(len(changed) or "")])
    text = (
        f"Mode `merge`. First the change of one setting of the defaults, {removed} removed; then, where the whole "
        "grid was run, the same change averaged over all pairs of settings of the mode `merge` that are comparable, "
        "at both levels. The two differ where the effect of a setting depends on the others."
    )
    header = ["", "change", "accuracy", "NLL", "accuracy over the grid", "NLL over the grid", "pairs"]
    parts = ["## One setting at a time", paragraph(text), table(header, rows)]
    for title, outcome in study.standard:
        reference = outcome.subject.paper
        cells = [
            default(outcome, pooling=pooling, proportional=proportional)
            for pooling in outcome.subject.poolings
            for proportional in (False, True)
        ]
        if len(outcome.subject.poolings) == 1 or not all(setting in outcome.index for setting in cells):
            continue
        rows = []
        for setting in cells:
            accuracy, nll = ledger.cells(outcome, setting, reference, scores)
            rows.append(
                [
                    setting.pooling + (" (the paper's)" if setting == reference else ""),
                    "proportional" if setting.proportional else "plain",
                    with_error(outcome.mean("action", setting)),
                    accuracy,
                    with_error(outcome.mean("nll", setting), 3),
                    nll,
                    f"{outcome.mean('agreement', setting)[0]:.1f}",
                ]
            )
        header = ["pooling", "attention", "accuracy %", "change", "NLL", "change", "same answer %"]
        text = f"Pooling and attention of {title} together; changes are against the paper's settings:"
        parts += [paragraph(text), table(header, rows)]
    return "\n\n".join(parts)


def schedules_section(study: Study, ledger: Ledger, folder: str, removed: str) -> str:
    """Compares the schedules and their cost."""
    rows = []
    for title, outcome in study.standard:
        subject = outcome.subject
        for schedule in SCHEDULES:
            setting = default(outcome, schedule=schedule)
            accuracy = nll = "not equal"
            if subject.comparable(setting):
                accuracy, nll = ledger.cells(outcome, setting, subject.default, ("action", "nll"))
            rows.append(
                [
                    title,
                    schedule,
                    str(subject.r(setting)),
                    str(subject.counts(setting)[-1] - subject.config.token_layout.num_prefix_tokens),
                    percent(subject.work(setting)),
                    with_error(outcome.mean("action", setting)),
                    accuracy,
                    with_error(outcome.mean("nll", setting), 3),
                    nll,
                ]
            )
    text = (
        "Equal final numbers of tokens do not mean equal cost. *Work* is the total number of tokens seen by attention "
        "and MLP of all layers, as a share of that without merging; it approximates the cost, which was not timed "
        f"here. Mode `merge`, {removed} removed; changes are against the constant schedule."
    )
    header = ["", "schedule", "r", "patch tokens left", "work", "accuracy %", "change", "NLL", "change"]
    parts = ["## Schedules and what they cost", paragraph(text), table(header, rows)]
    if has_schedules(study):
        parts.append(f"![Change of the NLL against work for each schedule and architecture]({folder}/schedules.png)")
    return "\n\n".join(parts)


def tasks_section(study: Study, ledger: Ledger) -> str:
    """Compares the scopes, separately for motion and content."""
    rows = []
    for title, outcome in study.standard:
        subject = outcome.subject
        settings = [
            subject.unmerged,
            *(default(outcome, level=level, scope=scope) for level in LEVELS for scope in subject.scopes),
        ]
        for setting in settings:
            if setting in outcome.index:
                rows.append(
                    [
                        title,
                        subject.removed(setting.level) if setting.level else "0 %",
                        setting.scope if setting.level else "",
                        *(with_error(outcome.mean(score, setting)) for score in TASKS),
                        *ledger.cells(outcome, setting, subject.unmerged, ("verb", "noun", "nll")),
                    ]
                )
    text = (
        "The scope determines what is matched: all tokens of a clip, those of each frame separately, or those of a "
        "frame with one matching shared by all frames (tube). TimeSformer's temporal attention relates the tokens of "
        "one patch position in all frames. Mode `merge`; changes are against the unmerged model."
    )
    header = ["", "removed", "scope", *(f"{name} %" for name in TASKS.values()), "verbs", "digits", "NLL"]
    parts = ["## Scopes, verbs and digits", paragraph(text), table(header, rows)]
    rows = []
    for title, outcome in study.standard:
        for scope in outcome.subject.scopes:
            settings = [default(outcome, scope=scope, schedule=schedule) for schedule in SCHEDULES]
            if all(setting in outcome.index for setting in settings):
                cells = [with_error(outcome.mean("action", setting)) for setting in settings]
                rows.append([title, scope, *cells, *(f"{outcome.mean('nll', s)[0]:.3f}" for s in settings)])
    if len(rows) > len(study.standard):
        parts.append(paragraph(f"Scope and schedule together, {study.standard[0][1].subject.removed(LEVEL)} removed:"))
        header = ["", "scope", *(f"{schedule}, accuracy %" for schedule in SCHEDULES)]
        parts.append(table([*header, *(f"{schedule}, NLL" for schedule in SCHEDULES)], rows))
    return "\n\n".join(parts)


def harder_section(study: Study, ledger: Ledger, folder: str, removed: str) -> str:
    """Shows whether the findings hold on harder clips."""
    rows = []
    for architecture in study.architectures:
        for variant in study.variants:
            outcome = study.outcomes[architecture, variant]
            scores = ("action", "nll")
            rows.append(
                [
                    ARCHITECTURES[architecture],
                    variant,
                    with_error(outcome.mean("action", outcome.subject.unmerged)),
                    *ledger.cells(outcome, default(outcome), outcome.subject.unmerged, scores),
                    f"{outcome.mean('agreement', default(outcome))[0]:.1f}",
                    *ledger.cells(outcome, default(outcome, mode="drop"), default(outcome), scores),
                ]
            )
    header = ["", "variant", "unmerged %", "merge", "merge, NLL", "same answer %", "drop, not merge"]
    parts = [
        "## Harder variants",
        paragraph(
            f"Defaults, {removed} removed. The models were trained on standard clips only. `merge` is against the "
            "unmerged model."
        ),
        table([*header, "drop, not merge, NLL"], rows),
        f"![Accuracy of some modes on each variant]({folder}/variants.png)",
        paragraph("Other changes on each variant, NLL:"),
    ]
    rows = []
    for architecture in study.architectures:
        for title, change in HARDER_CHANGES[2:]:
            row = []
            for variant in study.variants:
                outcome = study.outcomes[architecture, variant]
                pair = change(outcome)
                row.append("" if pair is None else ledger.cell(ledger.compare(outcome, "nll", *pair)))
            if any(row):
                rows.append([ARCHITECTURES[architecture], title, *row])
    parts.append(table(["", "change", *study.variants], rows))
    parts.append(
        paragraph(
            "On how many pairs of architecture and harder variant each change is for the better or worse, in accuracy "
            "and NLL together:"
        )
    )
    rows = [
        [
            title,
            *(str(len(verdicts[verdict])) if verdict in verdicts else "" for verdict in VERDICTS),
            str(sum(map(len, verdicts.values()))),
        ]
        for title, verdicts in harder_verdicts(study, ledger)
    ]
    parts.append(table(["change", *VERDICTS, "of"], rows))
    return "\n\n".join(parts)


# --- files beside the page
def write_grid(study: Study, path: Path) -> None:
    """Writes all results as a table."""
    header = [
        "architecture", "variant", "clips", "removed", "mode", "threshold", "schedule", "scope", "pooling",
        "proportional_attention", "r", "patch_tokens_left", "equal_tokens", "work", "accuracy", "accuracy_se",
        "accuracy_change", "accuracy_change_se", "verb", "verb_se", "noun", "noun_se", "nll", "nll_se", "nll_change",
        "nll_change_se", "agreement", "agreement_se", "tokens",
    ]  # fmt: skip
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        for architecture in study.architectures:
            for variant in study.variants:
                outcome = study.outcomes[architecture, variant]
                writer.writerows(grid_row(outcome, setting) for setting in outcome.settings)


def grid_row(outcome: Outcome, setting: Setting) -> list[Any]:
    subject = outcome.subject
    counts = subject.counts(setting)
    chosen: list[Any] = [setting.mode, "" if setting.threshold is None else setting.threshold]
    chosen += [setting.schedule, setting.scope]
    chosen += [setting.pooling if len(subject.poolings) > 1 else "", "yes" if setting.proportional else "no"]
    if setting.mode in DROPPING_MODES:
        chosen[-2:] = ["", ""]
    if not setting.level:
        chosen = ["unmerged"] + [""] * 5

    def pair(mean: tuple[float, float], digits: int) -> list[str]:
        return [f"{value:.{digits}f}" for value in mean]

    changes = Ledger()
    accuracy, nll = (changes.compare(outcome, score, setting, subject.unmerged) for score in ("action", "nll"))
    return [
        subject.architecture,
        outcome.variant,
        outcome.num_clips,
        subject.removed(setting.level) if setting.level else "0 %",
        *chosen,
        subject.r(setting),
        counts[-1] - subject.config.token_layout.num_prefix_tokens,
        "yes" if subject.comparable(setting) else "no",
        f"{subject.work(setting):.3f}",
        *pair(outcome.mean("action", setting), 2),
        *pair((accuracy.value, accuracy.error), 2),
        *pair(outcome.mean("verb", setting), 2),
        *pair(outcome.mean("noun", setting), 2),
        *pair(outcome.mean("nll", setting), 4),
        *pair((nll.value, nll.error), 4),
        *pair(outcome.mean("agreement", setting), 2),
        " ".join(map(str, counts)),
    ]


COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377")


def draw_modes(study: Study, path: Path) -> None:
    """Draws the effect of each mode on accuracy and NLL, at both levels."""
    names = [mode if limit is None else f"{mode} {limit:g}" for mode, limit in MODES]
    columns = len(study.standard)
    figure, axes = plt.subplots(2, columns, figsize=(3.6 * columns, 6.4), sharex=True, sharey="row", squeeze=False)
    for column, (title, outcome) in enumerate(study.standard):
        for row, score in enumerate(("action", "nll")):
            for number, level in enumerate(LEVELS):
                points = [
                    (place + 0.24 * number - 0.12, setting)
                    for place, (mode, limit) in enumerate(MODES)
                    if (setting := default(outcome, level=level, mode=mode, threshold=limit)) in outcome.index
                ]
                draw_changes(axes[row, column], outcome, score, points, "os"[number], COLOURS[number])
            frame(axes[row, column])
        axes[0, column].set_title(title)
        axes[1, column].set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes[0, 0].set_ylabel("change of accuracy, points")
    set_nll_axis(axes[1, 0])
    labels = [f"{study.standard[0][1].subject.removed(level)} of the tokens removed" for level in LEVELS]
    add_legend(figure, axes[0, 0].containers, labels)
    save(figure, path)


def draw_changes(
    axis: Any,
    outcome: Outcome,
    score: str,
    points: Sequence[tuple[float, Setting]],
    marker: str,
    colour: str,
    line: str = "",
) -> None:
    """Draws the paired differences of some settings to the unmerged model, with one standard error."""
    ledger = Ledger()
    changes = [ledger.compare(outcome, score, setting, outcome.subject.unmerged) for _, setting in points]
    axis.errorbar(
        [place for place, _ in points],
        [change.value for change in changes],
        yerr=[change.error for change in changes],
        fmt=f"{line}{marker}",
        markersize=5,
        capsize=3,
        color=colour,
        linewidth=1.2,
    )


def frame(axis: Any) -> None:
    """Draws the background: a light grid and the line of the unmerged model."""
    axis.axhline(0, color="black", linewidth=0.8, zorder=0)
    axis.grid(axis="y", color="#e5e5e5")
    axis.set_axisbelow(True)


def set_nll_axis(axis: Any) -> None:
    """Scales the NLL axis so that small and large changes are both visible."""
    axis.set_yscale("symlog", linthresh=0.1, linscale=0.6)
    low, high = axis.get_ylim()
    ticks = [tick for tick in (-1, -0.5, -0.2, -0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if low <= tick <= high]
    axis.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axis.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_ylabel("change of NLL, nats (log scale beyond 0.1)")


def add_legend(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Adds the legend below the panels."""
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0), ncol=3 if len(labels) > 4 else 4)


def has_schedules(study: Study) -> bool:
    """Returns whether all schedules were run at all levels, in the plotted modes."""
    return all(
        default(outcome, level=level, schedule=schedule, mode=mode) in outcome.index
        for _, outcome in study.standard
        for level in LEVELS
        for schedule in SCHEDULES
        for mode in ("merge", "drop")
    )


def draw_schedules(study: Study, path: Path) -> None:
    """Draws the effect of each schedule on the NLL against its work."""
    columns = len(study.standard)
    figure, axes = plt.subplots(1, columns, figsize=(3.6 * columns, 3.6), sharey=True, squeeze=False)
    for column, (title, outcome) in enumerate(study.standard):
        axis, subject = axes[0, column], outcome.subject
        for mode, line in (("merge", "-"), ("drop", ":")):
            for number, schedule in enumerate(SCHEDULES):
                settings = [default(outcome, level=level, schedule=schedule, mode=mode) for level in LEVELS]
                points = [(100 * subject.work(setting), setting) for setting in settings]
                draw_changes(axis, outcome, "nll", points, "os^"[number], COLOURS[number], line)
        frame(axis)
        axis.set_title(title)
        axis.set_xlabel("work, % of the unmerged model's")
    set_nll_axis(axes[0, 0])
    labels = [f"{mode}, {schedule}" for mode in ("merge", "drop") for schedule in SCHEDULES]
    # Legends fill columns first; schedules should be below each other.
    order = [0, 3, 1, 4, 2, 5]
    add_legend(figure, [axes[0, 0].containers[place] for place in order], [labels[place] for place in order])
    save(figure, path)


def draw_variants(study: Study, path: Path) -> None:
    """Draws the accuracy of some modes on every variant."""
    series: list[tuple[str, Callable[[Outcome], Setting]]] = [
        ("unmerged", lambda outcome: outcome.subject.unmerged),
        ("merge", default),
        ("merge, scope frame", lambda outcome: default(outcome, scope="frame")),
        ("drop", lambda outcome: default(outcome, mode="drop")),
        ("random_merge", lambda outcome: default(outcome, mode="random_merge")),
    ]
    columns = len(study.standard)
    figure, axes = plt.subplots(1, columns, figsize=(3.6 * columns, 3.8), sharey=True, squeeze=False)
    for column, architecture in enumerate(study.architectures):
        axis = axes[0, column]
        outcomes = [study.outcomes[architecture, variant] for variant in study.variants]
        for number, (_, chosen) in enumerate(series):
            means = np.array([outcome.mean("action", chosen(outcome)) for outcome in outcomes])
            axis.errorbar(
                np.arange(len(outcomes)) + 0.15 * (number - 2),
                means[:, 0],
                yerr=means[:, 1],
                fmt="os^vD"[number],
                markersize=5,
                capsize=2,
                color=("#000000", *COLOURS)[number],
            )
        axis.grid(axis="y", color="#e5e5e5")
        axis.set_axisbelow(True)
        axis.set_title(ARCHITECTURES[architecture])
        axis.set_xticks(range(len(study.variants)), study.variants, rotation=25, ha="right")
    axes[0, 0].set_ylabel("accuracy, %")
    add_legend(figure, axes[0, 0].containers, [label for label, _ in series])
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Saves a plot with a white background, for dark pages, and without metadata."""
    figure.tight_layout()
    figure.savefig(path, dpi=110, facecolor="white", bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def write_page(study: Study, output: Path) -> None:
    """Writes the page and its files."""
    output.mkdir(parents=True, exist_ok=True)
    write_grid(study, output / "grid.csv")
    draw_modes(study, output / "modes.png")
    if has_schedules(study):
        draw_schedules(study, output / "schedules.png")
    if study.harder:
        draw_variants(study, output / "variants.png")
    ledger = Ledger()
    # Twice: what counts as found depends on how many comparisons there are, which is known when the page is written.
    render(study, ledger, output.name)
    ledger.set_bound()
    output.with_suffix(".md").write_text(render(study, ledger, output.name), encoding="utf-8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scratch = Path(tempfile.gettempdir()) / "moving-digits-study"
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("docs/results"),
        help="folder for plots and tables, beside the page",
    )
    parser.add_argument("--scratch", type=Path, default=scratch, help="folder for clips and predictions, to resume")
    parser.add_argument("--clips", type=int, default=480, help="standard test clips; a multiple of 120 is balanced")
    parser.add_argument("--harder-clips", type=int, default=480, help="clips of each harder variant")
    parser.add_argument("--grid", choices=["full", "main"], default="full", help="settings on the standard clips")
    parser.add_argument("--architectures", nargs="+", choices=list(ARCHITECTURES), default=list(ARCHITECTURES))
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(STUDIED_VARIANTS))
    parser.add_argument("--batch-size", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args(arguments)
    if "standard" not in chosen.variants:
        parser.error("--variants must hold standard")
    return chosen


def command(chosen: argparse.Namespace) -> str:
    """Returns the command with the options that affect the numbers, without folders."""
    defaults, words = parse_arguments([]), ["python examples/study_moving_digits.py"]
    for name in ("clips", "harder_clips", "grid", "architectures", "variants", "batch_size"):
        value = getattr(chosen, name)
        if value != getattr(defaults, name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return " ".join(words)


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = parse_arguments(arguments)
    torch.set_num_threads(chosen.threads)
    began = time.perf_counter()
    outcomes = {}
    for variant in [name for name in VARIANTS if name in chosen.variants]:
        for architecture in [name for name in ARCHITECTURES if name in chosen.architectures]:
            standard = variant == "standard"
            num_clips, grid = (chosen.clips, chosen.grid) if standard else (chosen.harder_clips, "main")
            outcomes[architecture, variant] = measure(
                architecture, variant, num_clips, grid, chosen.scratch, chosen.batch_size, began
            )
    write_page(Study(outcomes, command(chosen)), chosen.output)
    print(f"{chosen.output.with_suffix('.md')} written, {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
