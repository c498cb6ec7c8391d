"""Confusion matrices and what merging changes in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hf_video_tome.analysis import choose_classes, compare_confusions, confusion_counts, draw_confusion
from hf_video_tome.analysis.confusion import describe_choice
from hf_video_tome.analysis.drawing import DPI

# (class, answer before, answer after) of each video
VIDEOS = [(0, 0, 0), (0, 0, 1), (0, 2, 0), (1, 1, 1), (1, 2, 0), (2, 2, 2), (2, 2, 1)]


def rows(videos: list[tuple[int, int, int]] = VIDEOS, task: str = "label") -> list[dict[str, Any]]:
    return [
        {"video_id": f"video {number}", "setting": setting, task: label, f"{task}_top": [answers[setting], 9]}
        for number, (label, *answers) in enumerate(videos)
        for setting in range(2)
    ]


def test_rows_are_classes_and_columns_are_answers() -> None:
    assert confusion_counts([0, 0, 2], [1, 1, 0], 3).tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]


def test_both_runs_and_their_change_are_counted() -> None:
    change = compare_confusions(rows(), 0, 1, num_classes=3)
    assert change.before.tolist() == [[2, 0, 1], [0, 1, 1], [0, 0, 2]]
    assert change.after.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert change.change.tolist() == [[0, 1, -1], [1, 0, -1], [0, 1, -1]]
    assert change.change.sum(axis=1).tolist() == [0, 0, 0]


def test_answers_that_change_are_counted_even_where_the_matrix_stays() -> None:
    """Class 0 has one right answer lost and one gained: its diagonal does not show it."""
    assert compare_confusions(rows(), 0, 1, num_classes=3).summary() == {
        "videos": 7,
        "right_before": 5,
        "right_after": 4,
        "right_to_wrong": 2,
        "wrong_to_right": 1,
        "wrong_to_other_wrong": 1,
    }


def test_the_order_of_the_settings_is_that_of_the_arguments() -> None:
    there, back = compare_confusions(rows(), 0, 1, 3), compare_confusions(rows(), 1, 0, 3)
    assert np.array_equal(there.change, -back.change)
    assert (there.lost, there.gained) == (back.gained, back.lost)


def test_videos_that_were_not_read_or_have_no_label_are_left_out() -> None:
    table = rows()
    table = [row for row in table if (row["video_id"], row["setting"]) != ("video 0", 1)]
    for row in table:
        if row["video_id"] == "video 1":
            row["label"] = None
    table.append({"video_id": "video 9", "error": "empty"})
    assert compare_confusions(table, 0, 1, 3).before.sum() == 5


def test_a_task_of_several_can_be_chosen() -> None:
    assert compare_confusions(rows(task="noun"), 0, 1, 3, task="noun").before.sum() == 7
    with pytest.raises(ValueError, match="no video has a verb and an answer with both of the settings 0 and 1"):
        compare_confusions(rows(task="noun"), 0, 1, 3, task="verb")


def test_classes_are_chosen_by_number_or_by_change() -> None:
    videos = [(0, 0, 0), (2, 2, 2), (3, 3, 4), (3, 3, 4), (4, 4, 4), (5, 5, 3)]
    change = compare_confusions(rows(videos), 0, 1, num_classes=6)
    assert choose_classes(change, 3, "first") == [0, 2, 3]
    assert choose_classes(change, 2, "changed") == [3, 4]
    assert choose_classes(change, 9, "first") == [0, 2, 3, 4, 5]
    assert choose_classes(change, 9, "changed") == [3, 4, 5]  # only those where something changed
    with pytest.raises(ValueError, match="select must be one of 'first', 'changed', got 'last'"):
        choose_classes(change, 2, "last")
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        choose_classes(change, 0)


def test_what_is_said_of_the_chosen_classes_is_true() -> None:
    def said(videos: list[tuple[int, int, int]], count: int, select: str) -> str:
        change = compare_confusions(rows(videos), 0, 1, num_classes=9)
        return describe_choice(change, choose_classes(change, count, select), select)

    videos = [(0, 0, 0), (1, 1, 2), (3, 3, 2), (4, 4, 4)]
    assert said(videos, 20, "changed") == "all 3 classes with changes, of 9"
    assert said(videos, 2, "changed") == "the 2 classes with the most changes, of 3 with any and 9 in all"
    assert said(videos, 1, "changed") == "the class with the most changes, of 3 with any and 9 in all"
    assert said(videos, 2, "first") == "the first 2 of 9 classes"
    same = [(0, 0, 0), (4, 3, 3)]
    assert said(same, 20, "changed") == "nothing changed between classes; the first 2 of 9 classes"


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_picture_is_about_as_large_as_what_is_in_it(count: int, tmp_path: Path) -> None:
    """No more than a band of white around matrices, names and note, however few or many classes there are."""
    change = compare_confusions(rows([(label, label, (label + 1) % count) for label in range(count)]), 0, 1, count)
    note = "all classes with changes; in all: 11 right answers lost, 1 gained. Left and middle: share of the class"
    path = draw_confusion(
        change, list(range(count)), tmp_path / "a.png", names="class {}".format, title="t", note=note
    )
    with Image.open(path) as picture:
        inked = (np.asarray(picture.convert("L")) < 250).any(axis=1)
    rows_of_white = [len(run) for run in "".join("x" if ink else " " for ink in inked).split("x")]
    assert max(rows_of_white) < 0.4 * DPI


def test_long_names_leave_the_note_alone(tmp_path: Path) -> None:
    """Classes of Something-Something v2 are sentences; the height must not depend on how long they are."""
    change = compare_confusions(rows(), 0, 1, 3)
    heights = []
    for length in (40, 400):
        path = draw_confusion(change, [0, 2], tmp_path / "a.png", names=lambda label, n=length: "m" * n)
        with Image.open(path) as picture:
            heights.append(picture.height)
    assert heights[0] == heights[1]


def test_the_table_has_all_cells_with_an_answer() -> None:
    table = compare_confusions(rows(), 0, 1, 3).rows(names="abc".__getitem__)
    assert len(table) == 8
    assert table[1] == {
        "class": 0,
        "class_name": "a",
        "answer": 1,
        "answer_name": "b",
        "before": 0,
        "after": 1,
        "change": 1,
    }


def test_a_picture_is_saved(tmp_path: Path) -> None:
    change = compare_confusions(rows(), 0, 1, 3)
    assert draw_confusion(change, [0, 2], tmp_path / "confusion.png", names="abc".__getitem__).stat().st_size > 1000
