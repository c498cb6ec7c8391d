"""A picture of a benchmark: speed-up against r, and the limit that the multiply-accumulates set."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from .results import BenchmarkResults, MeasuredVariant
from .timing import Ratio
from .variants import SHORT_DTYPES, Variant, describe_settings

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Of Okabe and Ito: told apart by all kinds of eyes."""


def mean_removed(entry: MeasuredVariant, initial_removals: int) -> float:
    """Where a variant lies on the axis: its r, or what a share or a list is on average over the layers.

    Args:
        entry: What was measured.
        initial_removals: Tokens of one matched set, which a share of r is one of.
    """
    r: Any = (entry.variant.settings or {}).get("r", 0)
    if isinstance(r, list):
        return statistics.fmean(r + [0] * (len(entry.token_counts) - 1 - len(r)))
    return r if isinstance(r, int) else int(r * initial_removals)


def save_plot(results: BenchmarkResults, path: Path) -> Path | None:
    """Draws the speed-up over stock transformers against r, one panel for each batch size.

    Whiskers are the quartiles of the rounds. The dashed line is the ratio of multiply-accumulates, which the speed-up
    would reach if they were all that takes time.

    Args:
        results: What was measured.
        path: PNG or other format of matplotlib, which the extra `viz` installs.

    Returns:
        The path; None where there is nothing to compare, and nothing is written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reference = results.reference_attention
    panels = {size: curves(results, size) for size in results.batch_sizes}
    panels = {size: found for size, found in panels.items() if found}
    if not panels:
        return None
    names = list(dict.fromkeys(name for found in panels.values() for name in found))
    limits = list(dict.fromkeys(point.limit_name for found in panels.values() for it in found.values() for point in it))
    figure = Figure(figsize=(1.2 + 5.2 * len(panels), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, (batch_size, found) in zip(axes, panels.items(), strict=True):
        for limit, style in zip(limits, _DASHES * len(limits), strict=False):
            points = {
                point.r: point.limit for it in found.values() for point in it if point.limit_name in (limit, "any")
            }
            if any(points):
                axis.plot(*_sorted(points), linestyle=style, color="0.45", linewidth=1.3, label=f"limit: {limit}")
        for index, name in enumerate(names):
            if name not in found:
                continue
            points = sorted(found[name], key=lambda point: point.r)
            middle = [point.speedup.median for point in points]
            axis.errorbar(
                [point.r for point in points],
                middle,
                yerr=[
                    [point.speedup.median - point.speedup.low for point in points],
                    [point.speedup.high - point.speedup.median for point in points],
                ],
                color=COLOURS[index % len(COLOURS)],
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                capsize=3,
                linewidth=1.6,
                label=name,
            )
        axis.axhline(1, color="0.75", linewidth=1, zorder=0)
        axis.set_ylim(bottom=0)
        axis.set_title(f"batch size {batch_size}", fontsize=10)
        axis.set_xlabel("r: tokens removed per layer" + _per_set(results))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"times as fast as stock {reference}, same dtype")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    axes[0].legend(handles.values(), handles.keys(), fontsize=8, frameon=False, loc="best")
    facts = results.conditions
    figure.suptitle(f"{facts['model']}, {facts['gpu'] or facts['cpu']}, {facts['threads']} threads", fontsize=11)
    figure.savefig(path, dpi=150)
    return path
