"""Accuracy against r up to the limit, against the number of remaining tokens, and against speed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configuration import TokenMergingConfigMixin
from ..describe import setting_name
from ..merging.modes import MODES
from ..merging.schedule import SCHEDULE_INFLECTIONS, max_removable, tokens_of_share
from ..tasks import ACTION
from .drawing import COLOURS, GREY, MARKERS, add_legend, add_note, new_figure, save, tidy

PAPER_SHARES = (0.5, 0.25, 0.125, 0.0625)
"""Values of r in "Video, How Do Your Tokens Merge?" (CVPRW 2025), as shares of the initial tokens; the first is the
limit."""
SCHEDULES = tuple(SCHEDULE_INFLECTIONS)
R, TOKENS_LEFT, SPEED_UP = AXES = ("r", "tokens_left", "speed_up")
_AXIS_NAMES = {
    R: "r (tokens asked of each layer and set)",
    TOKENS_LEFT: "tokens left after the last layer (%)",
    SPEED_UP: "measured speed-up",
}


@dataclass(frozen=True)
class AccuracyPoint:
    """Measurements with one setting.

    Attributes:
        r: Mean number of tokens that each layer is asked to remove; a share if it was given as one.
        tokens_left: Share of the tokens that remain after the last layer, 0 to 1.
        accuracy: Top-1 accuracy, 0 to 1; that of the action if there are several tasks.
        standard_error: Standard error of the accuracy.
        change: Accuracy minus that of the first setting, on the same clips; None for the first.
        change_standard_error: Standard error of the change.
        nll: Mean negative log-likelihood of the label, in nats.
        agreement: Share of clips with the same prediction as the first setting; None for the first.
        speed_up: Speed relative to the unmerged model; None if not measured.
        settings: All token merging settings.
    """

    r: float
    tokens_left: float
    accuracy: float
    standard_error: float
    change: float | None
    change_standard_error: float | None
    nll: float
    agreement: float | None
    speed_up: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class AccuracyCurve:
    """Curve of points that only differ in r.

    Attributes:
        settings: Settings that the points have in common.
        points: The points in ascending order of r; the first is the unmerged model if that was measured.
    """

    settings: dict[str, Any]
    points: tuple[AccuracyPoint, ...]


def setting_grid(
    config: TokenMergingConfigMixin,
    r: Sequence[int | float] | None = None,
    modes: Sequence[str] = ("merge",),
    schedules: Sequence[str | float] = SCHEDULES,
    common: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Returns settings for `evaluate`: the unmerged model, then each r with each mode and schedule.

    Args:
        config: Config of the model.
        r: Values of r; shares become whole tokens, as in the config. The paper's values up to the limit when None.
        modes: Modes.
        schedules: Schedules.
        common: Further settings common to all.

    Returns:
        Checked settings without duplicates.

    Raises:
        ValueError: If the config does not support one of them.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> [setting["r"] for setting in setting_grid(VideoMAEConfig(), schedules=["constant"])]
        [0, 98, 196, 392, 784]
    """
    common = dict(common or {})
    candidate = type(config).from_stock(config)
    candidate.update_token_merging(**{**common, "r": 0})
    plan = candidate.token_merging_plan()
    set_tokens, num_protected = plan.layout.set_size(plan.settings.scope)
    if plan.input_keep is not None:
        set_tokens = plan.entering_tokens
    limit = max_removable(set_tokens, num_protected)
    values = [
        tokens_of_share(value, set_tokens - num_protected) if isinstance(value, float) else value
        for value in (PAPER_SHARES if r is None else r)
    ]
    for value in values:
        if not 0 <= value <= limit:
            raise ValueError(f"r must be at most {limit}, half of the tokens that are matched together, got {value!r}")
    if not any(values):
        raise ValueError(f"r must be at least 1 of the {set_tokens - num_protected} tokens once, got {list(r or [])}")
    grid: list[dict[str, Any]] = [{**common, **candidate.unmerged_settings}]
    for mode in modes:
        threshold = {} if mode in MODES and MODES[mode].needs_threshold else {"threshold": None}
        for schedule in schedules:
            grid += [
                {**common, **threshold, "mode": mode, "schedule": schedule, "r": value}
                for value in sorted({*values} - {0})
            ]
    for setting in grid:
        type(config).from_stock(config).update_token_merging(**setting)
    return grid


def accuracy_curves(
    results: Mapping[str, Any], speed_ups: Sequence[float | None] | None = None, num_tokens: int | None = None
) -> tuple[AccuracyCurve, ...]:
    """Builds curves from the results of an evaluation.

    Settings that only differ in r form a curve; the unmerged model is the first point of each.

    Args:
        results: Content of `results.json`, or `EvaluationResults.to_dict()`.
        speed_ups: Speed of each setting relative to the unmerged model; None if unknown.
        num_tokens: Number of tokens of a clip, before the input stage. When None, the largest number that enters the
            first layer with any of the settings, which is correct if the unmerged model is included.

    Returns:
        The curves, in the order of the settings.

    Raises:
        ValueError: If the settings have no accuracy or are of a stock model, r has both numbers and shares, or no
            setting merges tokens.
    """
    settings = results["settings"]
    if speed_ups is not None and len(speed_ups) != len(settings):
        raise ValueError(f"speed_ups must be as many as settings, {len(settings)}, got {len(speed_ups)}")
    num_tokens = num_tokens or max((it["token_counts"][0] for it in settings if it["token_counts"]), default=None)
    unmerged: list[AccuracyPoint] = []
    curves: dict[str, list[AccuracyPoint]] = {}
    kinds = set()
    for number, measured in enumerate(settings):
        resolved, counts = dict(measured["resolved"]), measured["token_counts"]
        if counts is None:
            raise ValueError(f"settings[{number}] must be of a model that can merge tokens, got a stock model")
        if not measured["tasks"]:
            raise ValueError("results must have accuracies, but the labels of the videos are unknown")
        tasks = measured["tasks"]
        main = tasks.get(ACTION) or next(iter(tasks.values()))
        r = resolved.pop("r")
        merges = counts[-1] < num_tokens
        if merges:
            kinds.add(isinstance(r, float))
        change, agreement = measured["top_1_difference"], measured["agreement"]
        point = AccuracyPoint(
            r=sum(r) / (len(counts) - 1) if isinstance(r, list) else r,
            tokens_left=counts[-1] / num_tokens,
            accuracy=main["top_1"]["value"],
            standard_error=main["top_1"]["standard_error"],
            change=change and change["value"],
            change_standard_error=change and change["standard_error"],
            nll=main["nll"],
            agreement=agreement and agreement["value"],
            speed_up=None if speed_ups is None else speed_ups[number],
            settings=dict(measured["resolved"]),
        )
        if merges:
            curves.setdefault(repr(sorted(resolved.items())), []).append(point)
        else:
            unmerged.append(point)
    if not curves:
        raise ValueError("results must have settings that merge tokens, got r = 0 only")
    if len(kinds) > 1:
        raise ValueError("r must be numbers of tokens or shares in all settings, got both")
    return tuple(
        AccuracyCurve(
            settings={name: value for name, value in points[0].settings.items() if name != "r"},
            points=(*unmerged[:1], *sorted(points, key=lambda point: (point.r, -point.tokens_left))),
        )
        for points in curves.values()
    )


def curve_rows(curves: Sequence[AccuracyCurve]) -> list[dict[str, Any]]:
    """Returns all points as JSON-safe rows of a table; the unmerged model appears once per curve."""
    rows = []
    for number, curve in enumerate(curves):
        for point in curve.points:
            values = {name: value for name, value in vars(point).items() if name != "settings"}
            # The unmerged point is part of every curve, with the settings of that curve.
            rows.append({"curve": number, **curve.settings, **values})
    return rows


def _differing(curves: Sequence[AccuracyCurve]) -> list[str]:
    """Returns the settings in which the curves differ, except for the schedule."""
    names = [name for name in curves[0].settings if name != "schedule"]
    return [name for name in names if len({repr(curve.settings.get(name)) for curve in curves}) > 1]


def _label(curve: AccuracyCurve, differing: Sequence[str]) -> str:
    return setting_name({name: curve.settings.get(name) for name in differing or ["mode"]})


def draw_accuracy(
    curves: Sequence[AccuracyCurve], path: str | os.PathLike[str], *, title: str = "", note: str = ""
) -> Path:
    """Draws accuracy against r and against speed-up (if not measured: remaining tokens), one column per schedule.

    Args:
        curves: Result of `accuracy_curves`.
        path: Output file; the suffix selects the format.
        title: Text above the plots.
        note: Text below the plots.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    schedules = list(dict.fromkeys(curve.settings.get("schedule") for curve in curves))
    differing = _differing(curves)
    labels = list(dict.fromkeys(_label(curve, differing) for curve in curves))
    timed = all(point.speed_up is not None for curve in curves for point in curve.points)
    axes_names = [R, SPEED_UP if timed else TOKENS_LEFT]
    figure = new_figure(max(3.0 * len(schedules), 4.6), 5.6)
    grid = figure.subplots(len(axes_names), len(schedules), squeeze=False, sharey=True, sharex="row")
    for axes_row, axis in zip(grid, axes_names, strict=True):
        for axes, schedule in zip(axes_row, schedules, strict=True):
            for curve in curves:
                if curve.settings.get("schedule") != schedule:
                    continue
                label = _label(curve, differing)
                style = labels.index(label)
                axes.errorbar(
                    [_place(point, axis) for point in curve.points],
                    [100 * point.accuracy for point in curve.points],
                    [100 * point.standard_error for point in curve.points],
                    color=COLOURS[style % len(COLOURS)],
                    marker=MARKERS[style % len(MARKERS)],
                    markersize=4,
                    linewidth=1.3,
                    elinewidth=0.8,
                    capsize=2,
                    label=label,
                )
            baseline = curves[0].points[0]
            if baseline.tokens_left == 1:
                axes.axhline(100 * baseline.accuracy, color=GREY, linestyle=":", linewidth=1, zorder=0)
            tidy(axes)
            axes.set_xlabel(_AXIS_NAMES[axis], fontsize=8)
        axes_row[0].set_ylabel("top-1 accuracy (%)", fontsize=8)
        axes_row[0].set_ylim(top=min(axes_row[0].get_ylim()[1], 101))  # markers at 100 % are whole
        if axis == TOKENS_LEFT:
            axes_row[0].invert_xaxis()
    for axes, schedule in zip(grid[0], schedules, strict=True):
        axes.set_title(f"{schedule} schedule", fontsize=9)
    handles = {
        label: handle for axes in grid[0] for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    add_legend(figure, {label: handles[label] for label in labels}, 0.035)
    figure.suptitle(title, fontsize=10, parse_math=False)
    add_note(figure, note)
    figure.subplots_adjust(
        left=0.6 / figure.get_figwidth(), right=0.985, top=0.89, bottom=0.17, wspace=0.08, hspace=0.32
    )
    return save(figure, path)


def _place(point: AccuracyPoint, axis: str) -> float:
    if axis == TOKENS_LEFT:
        return 100 * point.tokens_left
    value = point.r if axis == R else point.speed_up
    assert value is not None  # callers check that all points have one
    return value
