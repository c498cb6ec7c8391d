"""Common drawing functions of all analyses."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
# The colour-blind safe palette of Okabe and Ito, without yellow and black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
GREY = "0.45"
_NOTE_CHARACTERS = 17  # in an inch of a note
_NOTE_MARGIN, _NOTE_LINE = 0.05, 0.125  # inches below a note, and of each of its lines


def new_figure(width: float, height: float, **kwargs: Any) -> Figure:
    """Returns an empty figure without a window.

    Args:
        width: Width in inches.
        height: Height in inches.
        **kwargs: Arguments of `matplotlib.figure.Figure`.

    Returns:
        The figure.

    Raises:
        ImportError: If matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('drawing needs matplotlib: pip install "hf-video-tome[viz]"') from error
    return Figure(figsize=(width, height), dpi=DPI, **kwargs)


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Saves a figure reproducibly, without dates in the file; the suffix selects the format."""
    target = Path(path)
    figure.savefig(target, metadata={"Software": None} if target.suffix == ".png" else None)
    return target


def _note_lines(width: float, text: str) -> list[str]:
    # Does not separate a sign from its operand.
    return textwrap.wrap(text.replace("± ", "±\N{NO-BREAK SPACE}"), int(_NOTE_CHARACTERS * width))


def note_height(width: float, text: str) -> float:
    """Returns the height in inches of a note at the bottom of a figure of the given width."""
    return _NOTE_MARGIN + _NOTE_LINE * len(_note_lines(width, text))


def add_note(figure: Figure, text: str) -> None:
    """Writes a small note at the bottom, wrapped to the width of the figure."""
    figure.text(
        0.5,
        _NOTE_MARGIN / figure.get_figheight(),
        "\n".join(_note_lines(figure.get_figwidth(), text)),
        fontsize=7,
        color="0.35",
        ha="center",
        va="bottom",
        parse_math=False,
    )


def add_legend(figure: Figure, handles: dict[str, Any], bottom: float) -> None:
    """Adds a legend below the plots, at most four entries per row; `bottom` is a share of the height."""
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="lower center",
        ncol=min(len(handles), 4),
        frameon=False,
        fontsize=8,
        bbox_to_anchor=(0.5, bottom),
    )


def tidy(axes: Any) -> None:
    """Removes the top and right spines of a plot and adds a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
