"""Plot of the frontier: change of the predictions against speed."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ..analysis.drawing import COLOURS, GREY, MARKERS, add_legend, add_note, new_figure, save, tidy
from ..analysis.estimates import estimate
from .result import Finalist, TuningResult

WIDTH, HEIGHT = 8.0, 4.2


def draw_frontier(result: TuningResult, path: str | os.PathLike[str], *, title: str = "") -> Path:
    """Draws divergence and agreement against speed, with standard errors, on the clips that were held back.

    Args:
        result: Result of a search.
        path: Output file; the suffix selects the format.
        title: Title of the figure.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    figure = new_figure(WIDTH, HEIGHT)
    divergence, agreement = figure.subplots(1, 2)
    points = {(it.name, it.operations): it for it in (*result.finalists, *result.frontier)}
    names = list(dict.fromkeys(name for name, _ in points))
    handles = {}
    for number, name in enumerate(names):
        own = sorted((it for it in points.values() if it.name == name), key=lambda it: it.speed)
        style = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "linewidth": 1,
            "capsize": 2,
            "markersize": 5,
        }
        handles[name] = _plot(divergence, own, "divergences", style)
        _plot(agreement, own, "agreements", style)
    if result.frontier:
        speeds = [it.speed for it in result.frontier]
        means = [it.held_back.mean_divergence for it in result.frontier]
        handles["frontier"] = divergence.plot(speeds, means, color=GREY, linewidth=0.8, linestyle="--", zorder=0)[0]
    measured = all(it.speedup is not None for it in points.values())
    for axes in (divergence, agreement):
        axes.set_xlabel("measured speed-up" if measured else "times fewer multiply-accumulates", fontsize=9)
        tidy(axes)
    divergence.set_ylabel("KL from the unmerged predictions (nats)", fontsize=9)
    agreement.set_ylabel("agreement (%)", fontsize=9)
    agreement.set_ylim(top=100)
    figure.suptitle(title, fontsize=10)
    clips = len(next(iter(points.values())).held_back.divergences) if points else 0
    add_legend(figure, handles, 0.06)
    add_note(figure, f"{clips} clips that were held back, ± one standard error")
    figure.subplots_adjust(left=0.1, right=0.98, top=0.9, bottom=0.32, wspace=0.28)
    return save(figure, path)


def _plot(axes: object, finalists: list[Finalist], what: str, style: dict[str, object]) -> object:
    found = [estimate(getattr(it.held_back, what)) for it in finalists]
    scale = 100 if what == "agreements" else 1
    values = [scale * (it.value or 0.0) for it in found]
    errors = [scale * (it.standard_error or 0.0) for it in found]
    most = 100.0 if what == "agreements" else math.inf
    # Neither mean nor error bar may be where no value can be.
    ends = [
        [min(error, value) for value, error in zip(values, errors, strict=True)],
        [min(error, most - value) for value, error in zip(values, errors, strict=True)],
    ]
    speeds = [it.speed for it in finalists]
    return axes.errorbar(speeds, values, ends, clip_on=False, **style)  # type: ignore[attr-defined]
