"""Confusion matrices without and with merging, and what merging changes in them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .drawing import add_note, new_figure, note_height, save

Counts = NDArray[np.int64]

FIRST, CHANGED = SELECTIONS = ("first", "changed")
"""Which classes are drawn: the first that occur, or those with the most changes."""
_LONGEST_NAME = 30  # characters of a class beside a matrix
# Inches: of a character of a class and of a heading, of the smallest and the largest cell, of all three matrices of a
# picture with few classes, and beside a matrix, for its colours.
_NAME_CHARACTER, _HEADING_CHARACTER = 0.056, 0.078
_SMALLEST_CELL, _LARGEST_CELL, _SMALLEST_PANEL, _BESIDE = 0.19, 0.4, 1.7, 0.75


@dataclass(frozen=True)
class ConfusionChange:
    """Two runs on the same videos.

    Attributes:
        before: (C, C) counts of the first run: row is the right class, column the answer.
        after: The same of the second.
        moves: From (right class, answer before, answer after) to the number of videos, for those whose answer changed.
    """

    before: Counts
    after: Counts
    moves: dict[tuple[int, int, int], int]

    @property
    def change(self) -> Counts:
        """(C, C): how many more answers each cell has in the second run; rows add up to zero."""
        return self.after - self.before

    @property
    def size_of_change(self) -> Counts:
        """(C,): wrong answers that come or go with each class as the right one or as the answer."""
        size = np.abs(self.change)
        np.fill_diagonal(size, 0)  # every lost or gained right answer is a wrong one elsewhere in its row
        return np.asarray(size.sum(0) + size.sum(1))

    def _moved(self, test: Callable[[int, int, int], bool]) -> int:
        return sum(count for move, count in self.moves.items() if test(*move))

    @property
    def lost(self) -> int:
        """Videos that were right before and are wrong after."""
        return self._moved(lambda label, before, after: before == label)

    @property
    def gained(self) -> int:
        """Videos that were wrong before and are right after."""
        return self._moved(lambda label, before, after: after == label)

    @property
    def still_wrong(self) -> int:
        """Videos that are wrong in both, in different ways."""
        return self._moved(lambda label, before, after: label not in (before, after))

    def summary(self) -> dict[str, int]:
        """The numbers of videos, JSON-safe."""
        return {
            "videos": int(self.before.sum()),
            "right_before": int(np.trace(self.before)),
            "right_after": int(np.trace(self.after)),
            "right_to_wrong": self.lost,
            "wrong_to_right": self.gained,
            "wrong_to_other_wrong": self.still_wrong,
        }

    def rows(self, names: Callable[[int], str] = str) -> list[dict[str, Any]]:
        """All cells in which a run has an answer, as rows of a table, JSON-safe."""
        cells = np.argwhere((self.before > 0) | (self.after > 0))
        return [
            {
                "class": int(label),
                "class_name": names(int(label)),
                "answer": int(answer),
                "answer_name": names(int(answer)),
                "before": int(self.before[label, answer]),
                "after": int(self.after[label, answer]),
                "change": int(self.change[label, answer]),
            }
            for label, answer in cells
        ]


def confusion_counts(labels: Sequence[int], answers: Sequence[int], num_classes: int) -> Counts:
    """Counts how often each class is answered with each.

    Args:
        labels: (n,) right classes, 0 to `num_classes` - 1.
        answers: (n,) answered classes.
        num_classes: Number of classes, C.

    Returns:
        (C, C) counts: row is the right class, column the answer.

    Examples:
        >>> confusion_counts([0, 0, 1], [0, 1, 1], num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    cells = np.asarray(labels, dtype=np.int64) * num_classes + np.asarray(answers, dtype=np.int64)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def compare_confusions(
    rows: Iterable[Mapping[str, Any]], before: int, after: int, num_classes: int, task: str = "label"
) -> ConfusionChange:
    """Compares two settings of an evaluation, on the videos that both have an answer for and that have a label.

    Args:
        rows: Those of `predictions.jsonl`: see `hf_video_tome.evaluation.read_predictions`.
        before: Number of the setting that is compared with.
        after: Number of the setting that is compared.
        num_classes: Classes of the task.
        task: The task.

    Returns:
        The comparison.

    Raises:
        ValueError: If no video has a label and both answers.

    Examples:
        >>> rows = [{"video_id": "a", "setting": 0, "label": 1, "label_top": [1, 0]},
        ...         {"video_id": "a", "setting": 1, "label": 1, "label_top": [0, 1]}]
        >>> compare_confusions(rows, 0, 1, num_classes=2).summary()["right_to_wrong"]
        1
    """
    labels: dict[str, int] = {}
    answers: dict[int, dict[str, int]] = {before: {}, after: {}}
    for row in rows:
        if row.get("setting") in answers and row.get(task) is not None:
            labels[row["video_id"]] = row[task]
            answers[row["setting"]][row["video_id"]] = row[f"{task}_top"][0]
    both = [video for video in labels if all(video in found for found in answers.values())]
    if not both:
        raise ValueError(f"no video has a {task} and an answer with both of the settings {before} and {after}")
    moves: dict[tuple[int, int, int], int] = {}
    for video in both:
        old, new = answers[before][video], answers[after][video]
        if old != new:
            move = (labels[video], old, new)
            moves[move] = moves.get(move, 0) + 1
    right = [labels[video] for video in both]

    def counts(setting: int) -> Counts:
        return confusion_counts(right, [answers[setting][video] for video in both], num_classes)

    return ConfusionChange(counts(before), counts(after), moves)


def choose_classes(change: ConfusionChange, count: int, select: str = CHANGED) -> list[int]:
    """Chooses classes to draw.

    Args:
        change: The comparison.
        count: How many at most.
        select: "first" for the first classes that occur, or "changed" for those that are the right class or the answer
            in the most wrong answers that come or go, in ascending order. Classes without any are left out; where
            there are no others, it is the first.

    Returns:
        The classes.

    Raises:
        ValueError: If the choice is unknown or the count is below 1.

    Examples:
        >>> rows = [{"video_id": str(n), "setting": s, "label": n, "label_top": [n if s == 0 else 3]}
        ...         for n in range(4) for s in range(2)]
        >>> choose_classes(compare_confusions(rows, 0, 1, num_classes=4), 2, "changed")
        [0, 3]
    """
    if select not in SELECTIONS:
        raise ValueError(f"select must be one of {', '.join(map(repr, SELECTIONS))}, got {select!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count!r}")
    size = change.size_of_change
    if select == FIRST or not size.any():
        occurs = np.flatnonzero(change.before.sum(1))
        return [int(label) for label in occurs[:count]]
    changed = np.flatnonzero(size)
    most = changed[np.argsort(-size[changed], kind="stable")][:count]
    return sorted(int(label) for label in most)


def describe_choice(change: ConfusionChange, classes: Sequence[int], select: str = CHANGED) -> str:
    """Says which classes were chosen.

    Args:
        change: The comparison.
        classes: The classes, from `choose_classes`.
        select: How they were chosen.

    Returns:
        A few words.

    Examples:
        >>> rows = [{"video_id": str(n), "setting": s, "label": n, "label_top": [n if s == 0 else 3]}
        ...         for n in range(4) for s in range(2)]
        >>> change = compare_confusions(rows, 0, 1, num_classes=6)
        >>> describe_choice(change, choose_classes(change, 9))
        'all 4 classes with changes, of 6'
    """
    drawn, changed, known = len(classes), int((change.size_of_change > 0).sum()), len(change.before)
    if select == CHANGED and drawn == changed:
        return f"all {drawn} classes with changes, of {known}"
    if select == CHANGED and changed:
        number = f"{drawn} classes" if drawn > 1 else "class"
        return f"the {number} with the most changes, of {changed} with any and {known} in all"
    nothing = "nothing changed between classes; " if select == CHANGED else ""
    return f"{nothing}the first {drawn} of {known} classes"


def draw_confusion(
    change: ConfusionChange,
    classes: Sequence[int],
    path: str | os.PathLike[str],
    *,
    names: Callable[[int], str] = str,
    title: str = "",
    note: str = "",
    headings: tuple[str, str] = ("unmerged", "merged"),
) -> Path:
    """Draws both matrices as shares of each class, and the difference of the counts.

    Args:
        change: The comparison.
        classes: Classes to draw; answers outside of them are one more column, "other".
        path: Output file; the suffix selects the format.
        names: What to call a class.
        title: Text above the plots.
        note: Text below the plots.
        headings: What to call the two runs.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    chosen = list(classes)

    def part(counts: Counts) -> Counts:
        inside = counts[np.ix_(chosen, chosen)]
        return np.concatenate((inside, counts[chosen].sum(1, keepdims=True) - inside.sum(1, keepdims=True)), axis=1)

    before, after = part(change.before), part(change.after)
    totals = np.maximum(before.sum(1, keepdims=True), 1)
    difference = after - before
    # More answers are better on the diagonal, and worse beside it.
    better = np.where(np.eye(len(chosen), len(chosen) + 1, dtype=bool), difference, -difference)
    ticks = [_short(names(label)) for label in chosen]
    # All in inches, so that nothing but the matrices grows with the number of classes.
    cell = min(max(_SMALLEST_PANEL / (len(chosen) + 1), _SMALLEST_CELL), _LARGEST_CELL)
    panel_width, panel_height = (len(chosen) + 1) * cell, len(chosen) * cell
    pitch = max(panel_width, _SMALLEST_PANEL) + _BESIDE
    titles = [textwrap.fill(heading, int((pitch - 0.1) / _HEADING_CHARACTER)) for heading in headings]
    label_length = 0.1 + _NAME_CHARACTER * max(map(len, [*ticks, "other"]))
    left = label_length + 0.3
    width = left + 3 * pitch
    bottom = note_height(width, note) + 0.3 + label_length
    height = bottom + panel_height + 0.5 + 0.15 * max(title.count("\n") + 1 for title in titles)
    figure = new_figure(width, height)
    most = max(1, int(np.abs(difference).max()))
    panels: tuple[tuple[str, NDArray[Any], dict[str, Any]], ...] = (
        (titles[0], before / totals, {"cmap": "Blues", "vmin": 0, "vmax": 1}),
        (titles[1], after / totals, {"cmap": "Blues", "vmin": 0, "vmax": 1}),
        ("change (videos); blue: better, red: worse", better, {"cmap": "RdBu", "vmin": -most, "vmax": most}),
    )
    for number, (heading, values, style) in enumerate(panels):
        start = left + number * pitch

        def place(x: float, inches: float) -> tuple[float, float, float, float]:
            return x / width, bottom / height, inches / width, panel_height / height

        axes = figure.add_axes(place(start, panel_width))
        image = axes.imshow(values, interpolation="nearest", **style)
        axes.set_title(heading, fontsize=9, parse_math=False)
        axes.set_xticks(range(len(ticks) + 1), [*ticks, "other"], rotation=90, fontsize=6.5, parse_math=False)
        axes.set_yticks(range(len(ticks)), ticks if number == 0 else [], fontsize=6.5, parse_math=False)
        axes.set_xlabel("answer", fontsize=8)
        axes.set_xticks(np.arange(-0.5, len(ticks) + 1), minor=True)
        axes.set_yticks(np.arange(-0.5, len(ticks)), minor=True)
        axes.grid(which="minor", color="0.92", linewidth=0.5)
        axes.tick_params(which="both", length=0)
        if number == 2:
            for row, column in np.argwhere(difference):
                shade = "white" if abs(difference[row, column]) > 0.6 * most else "black"
                axes.text(
                    column,
                    row,
                    f"{difference[row, column]:+d}",
                    ha="center",
                    va="center",
                    fontsize=7 if cell > 0.25 else 5.5,
                    color=shade,
                )
        colours = figure.add_axes(place(start + panel_width + 0.06, 0.08))
        bar = figure.colorbar(image, cax=colours, ticks=[-most, 0, most] if number == 2 else [0, 0.5, 1])
        bar.ax.tick_params(labelsize=6.5)
        if number == 2:
            bar.set_ticklabels([str(most), "0", str(most)])  # the colour says which way
    figure.axes[0].set_ylabel("class", fontsize=8)
    figure.suptitle(title, y=1 - 0.1 / height, va="top", fontsize=10, parse_math=False)
    add_note(figure, note)
    return save(figure, path)


def _short(name: str) -> str:
    """A name that leaves room for the matrix: those of Something-Something v2 are sentences."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
