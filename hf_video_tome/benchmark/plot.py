"""Plot of a benchmark: speed-ups and their limit set by multiply-accumulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..describe import setting_name
from .results import BenchmarkResults
from .timing import Ratio
from .variants import SHORT_DTYPES, Variant

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Colours of Okabe and Ito, distinguishable by colour-blind readers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[Any, ...] = ("--", ":", "-.", (0, (1, 3)))


class Point(NamedTuple):
    """Variant in the plot.

    Attributes:
        r: Number of tokens removed per layer; the mean over the layers for a share or a list.
        speedup: Speed-up over the stock model that a user would run.
        mac_ratio: Multiply-accumulates without merging relative to those of the variant.
        name: Name of the variant in tables.
    """

    r: float
    speedup: Ratio
    mac_ratio: float
    name: str


class Curve(NamedTuple):
    """Variants that differ only in r.

    Attributes:
        name: Description of their common settings and model.
        setting: Description of their settings apart from r; empty for the defaults.
        points: Variants in the order of r.
    """

    name: str
    setting: str
    points: list[Point]


def curves(results: BenchmarkResults, batch_size: int) -> list[Curve]:
    """Returns the curves for one batch size, each with at least one variant that merges.

    Args:
        results: Results of the benchmark.
        batch_size: One of its batch sizes.

    Returns:
        The curves, including r = 0 where available.
    """
    found: dict[str, Curve] = {}
    unmerged: dict[str, Point] = {}
    for entry in results.measured:
        speedup = results.speedup(entry)
        if entry.batch_size != batch_size or entry.variant.settings is None or speedup is None:
            continue
        others = {name: value for name, value in entry.variant.settings.items() if name != "r"}
        setting = setting_name({"r": 0, **others}).removeprefix("r = 0").removeprefix(", ")
        model = _model_name(entry.variant)
        point = Point(entry.requested_per_layer, speedup, entry.mac_ratio, entry.variant.name)
        if entry.mac_ratio == 1:
            unmerged[model] = point
        else:
            name = ", ".join(filter(None, (setting, model)))
            found.setdefault(name, Curve(name, setting, [])).points.append(point)
    for curve in found.values():
        model = curve.name.removeprefix(curve.setting).removeprefix(", ")
        curve.points.extend([unmerged[model]] if model in unmerged else [])
        curve.points.sort()
    return list(found.values())


def _model_name(variant: Variant) -> str:
    dtype = SHORT_DTYPES.get(variant.dtype, variant.dtype)
    return f"{variant.attn_implementation}, {dtype}" + (", compiled" if variant.compiled else "")


def save_plot(results: BenchmarkResults, path: Path) -> Path | None:
    """Plots the speed-up over stock transformers, with one panel per batch size.

    The speed-up is plotted against r if settings were measured with several r, and as one bar per setting otherwise.
    Whiskers are the quartiles of the rounds. Grey marks are ratios of multiply-accumulates: the speed-up if only they
    took time.

    Args:
        results: Results of the benchmark.
        path: Output file, PNG or another format of matplotlib (installed by the extra `viz`).

    Returns:
        The path; None, and no file, if no variant merges or there is no stock model to compare with.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {size: curves(results, size) for size in results.batch_sizes}
    panels = {size: found for size, found in panels.items() if found}
    if not panels:
        return None
    alone = all(len(curve.points) == 1 for found in panels.values() for curve in found)
    rows = max(map(len, panels.values()))
    width = (3.4 if alone else 2.2) + 3.6 * len(panels)
    figure = Figure(figsize=(max(7.0, width), 1.8 + 0.34 * rows if alone else 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    handles = (_draw_bars if alone else _draw_curves)(axes, panels)
    speedup = f"times as fast as stock {results.reference_attention}"
    for axis, batch_size in zip(axes, panels, strict=True):
        axis.set_title(f"batch size {batch_size}", fontsize=10)
        axis.set_xlabel(speedup if alone else "r (tokens removed per layer)")
        axis.grid(alpha=0.25, axis="x" if alone else "both")
        axis.spines[["top", "right"]].set_visible(False)
    if not alone:
        axes[0].set_ylabel(speedup)
    facts = results.conditions
    figure.suptitle(f"{facts['model']} on {facts['gpu'] or facts['cpu']}, {facts['threads']} threads", fontsize=11)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    figure.savefig(path, dpi=150)
    return path


def _draw_curves(axes: Sequence[Any], panels: Mapping[int, list[Curve]]) -> dict[str, Any]:
    """Draws speed-ups against r; returns the legend handles."""
    names = list(dict.fromkeys(curve.name for found in panels.values() for curve in found))
    settings = list(dict.fromkeys(curve.setting for found in panels.values() for curve in found))
    handles: dict[str, Any] = {}
    for axis, found in zip(axes, panels.values(), strict=True):
        axis.axhline(1, color="0.7", linewidth=1, zorder=0)
        for number, setting in enumerate(settings):
            if setting not in {curve.setting for curve in found}:
                continue
            limit = {point.r: point.mac_ratio for curve in found if curve.setting == setting for point in curve.points}
            label = ", ".join(filter(None, ("ratio of MACs", setting)))
            style = DASHES[number % len(DASHES)]
            ordered = sorted(limit.items())
            handles[label] = axis.plot(*zip(*ordered, strict=True), linestyle=style, color="0.4", marker=".")[0]
        for curve in found:
            number = names.index(curve.name)
            handles[curve.name] = axis.errorbar(
                [point.r for point in curve.points],
                [point.speedup.median for point in curve.points],
                yerr=_whiskers(curve.points),
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                markersize=5,
                capsize=3,
                linewidth=1.6,
            )
        largest = max(point.r for curve in found for point in curve.points)
        axis.set_xlim(-0.04 * largest, 1.04 * largest)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(bottom=0)
    return handles


def _draw_bars(axes: Sequence[Any], panels: Mapping[int, list[Curve]]) -> dict[str, Any]:
    """Draws one bar per setting, each with a single r; returns the legend handles."""
    rows = list(dict.fromkeys(point.name for found in panels.values() for curve in found for point in curve.points))
    handles: dict[str, Any] = {}
    for axis, found in zip(axes, panels.values(), strict=True):
        axis.axvline(1, color="0.7", linewidth=1, zorder=0)
        for curve in found:
            (point,) = curve.points
            row = rows.index(point.name)
            bar = axis.barh(
                row, point.speedup.median, xerr=_whiskers(curve.points), color=COLOURS[0], height=0.62, capsize=3
            )
            handles["measured"] = bar
            (handles["ratio of MACs"],) = axis.plot(
                [point.mac_ratio] * 2, [row - 0.42, row + 0.42], color="0.4", linewidth=2.5
            )
        axis.set_xlim(left=0)
        axis.set_axisbelow(True)
        axis.set_yticks(range(len(rows)), rows, fontsize=8)
        axis.set_ylim(len(rows) - 0.4, -0.6)  # the first on top
    return handles


def _whiskers(points: Sequence[Point]) -> list[list[float]]:
    """Returns the distances of the quartiles below and above the medians."""
    return [
        [point.speedup.median - point.speedup.low for point in points],
        [point.speedup.high - point.speedup.median for point in points],
    ]
