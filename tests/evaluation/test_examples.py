from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from hf_video_tome.evaluation import Task, read_examples
from hf_video_tome.evaluation.examples import Example

TASK = (Task("label", 0, 5),)
TWO = (Task("verb", 0, 2), Task("noun", 2, 3))


def read(*arguments: Any, **options: Any) -> tuple[Example, ...]:
    return read_examples(*arguments, **options).videos


def row(**changes: Any) -> dict[str, Any]:
    return {"video_id": "a", "video": {"path": "a.mp4", "bytes": None}, "label": 3, **changes}


def test_rows_become_examples_without_touching_the_videos() -> None:
    (example,) = read([row()], TASK, {})
    assert (example.video_id, example.source, example.segment, example.labels) == ("a", "a.mp4", None, (3,))


def test_a_path_or_bytes_do_as_well(tmp_path: Path) -> None:
    examples = read([{"video": "a.mp4", "label": 0}, {"video": {"path": None, "bytes": b"12"}, "label": 1}], TASK, {})
    assert [(example.video_id, example.source) for example in examples] == [("a.mp4", "a.mp4"), ("00000001", b"12")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_need_no_dictionary(kind: type) -> None:
    examples = read_examples([{"video": kind(b"12"), "label": 1}, row(video=kind(b"34"))], TASK, {})
    assert [(example.video_id, example.source) for example in examples.videos] == [("00000000", b"12"), ("a", b"34")]
    assert examples.digest() != read_examples([{"video": b"13", "label": 1}, row(video=b"34")], TASK, {}).digest()


def test_the_address_of_a_video_keeps_its_slashes() -> None:
    (example,) = read([{"video": "https://example.com/a.mp4", "label": 1}], TASK, {})
    assert example.video_id == example.source == "https://example.com/a.mp4"


def test_classes_that_are_numbers_say_so() -> None:
    """Of class folders `0` to `11`, sorted as strings."""
    features = datasets.Features(
        {"video": datasets.Value("string"), "label": datasets.ClassLabel(names=["0", "1", "10", "2"])}
    )
    rows = datasets.Dataset.from_list([{"video": f"{name}.mp4", "label": name} for name in ("10", "2")], features)
    examples = read_examples(rows, [Task("label", 0, 12)], {index: f"LABEL_{index}" for index in range(12)})
    assert [example.labels for example in examples.videos] == [(10,), (2,)]
    assert examples.matched_by == {"label": "number"}
    named = read_examples(rows, [Task("label", 0, 4)], dict(enumerate(["10", "2", "1", "0"])))
    assert [example.labels for example in named.videos] == [(0,), (1,)]
    assert named.matched_by == {"label": "name"}


def test_a_stretch_of_an_untrimmed_video_is_a_segment() -> None:
    (example,) = read([row(start_seconds=1.5, stop_seconds=2)], TASK, {})
    assert (example.segment.start, example.segment.stop) == (1.5, 2.0)


def test_a_stretch_of_a_frame_folder_is_a_range_of_frames(tmp_path: Path) -> None:
    changes = {"start_seconds": 1.5, "stop_seconds": 2, "start_frame": 90, "stop_frame": 120}
    (example,) = read([row(video={"path": str(tmp_path), "bytes": None}, **changes)], TASK, {})
    assert example.segment is None
    assert (str(example.source.path), example.source.start, example.source.stop) == (str(tmp_path), 90, 120)
    (timed,) = read([row(video=str(tmp_path), frames_per_second=50.0, **changes)], TASK, {})
    assert timed.source.fps == 50


def test_two_tasks_have_two_columns() -> None:
    (example,) = read([row(verb=1, noun=2)], TWO, {})
    assert example.labels == (1, 2)


@pytest.mark.parametrize("label", [None, -1])
def test_unknown_answers_stay_unknown(label: int | None) -> None:
    assert read_examples([row(label=label)], TASK, {})[0].labels is None


def test_class_numbers_are_those_of_the_classifier_where_names_say_so() -> None:
    features = datasets.Features(
        {"video": datasets.Video(decode=False), "label": datasets.ClassLabel(names=["tap", "jar", "pan"])}
    )
    rows = datasets.Dataset.from_list(
        [{"video": {"path": f"{name}.mp4", "bytes": None}, "label": name} for name in ("tap", "jar", "pan")], features
    )
    names = {0: "pan", 1: "cup", 2: "jar", 3: "tap", 4: "lid"}
    assert [example.labels for example in read(rows, TASK, names)] == [(3,), (2,), (0,)]
    numbers = read(rows, TASK, names, by_name=False)
    assert [example.labels for example in numbers] == [(0,), (1,), (2,)]
    streamed = read(rows.to_iterable_dataset(), TASK, names)
    assert [example.labels for example in streamed] == [(3,), (2,), (0,)]


def test_a_column_that_decodes_videos_is_not_decoded() -> None:
    features = datasets.Features({"video": datasets.Video(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_list([{"video": {"path": "gone.mp4", "bytes": None}, "label": 1}]).cast(features)
    assert read_examples(rows, TASK, {})[0].source == "gone.mp4"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no rows"),
        ([{"label": 1}], "row 0 .* no column 'video'"),
        ([row(video=3)], "row 0 .* must be a path"),
        ([row(), row(label=2)], "row 1 .* video_id 'a', which an earlier row has"),
        ([row(label=5)], "'label' must be a class number from 0 to 4, got 5"),
        ([{"video": "a.mp4"}], "row 0 .* no column 'label'"),
        ([row(label=1.7)], "'label' must be a class number, an integer, got 1.7"),
        ([row(label=True)], "'label' must be a class number, an integer, got True"),
        ([row(label="tap")], "'label' must be a class number, an integer, got 'tap'"),
        ([row(start_seconds=1.0)], "both 'start_seconds' and 'stop_seconds' or neither"),
        ([row(start_seconds=2.0, stop_seconds=1.0)], "row 0 of the dataset: "),
    ],
)
def test_rows_that_make_no_sense_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_examples(rows, TASK, {})


def test_it_is_known_how_classes_were_matched() -> None:
    features = datasets.Features(
        {"video": datasets.Value("string"), "label": datasets.ClassLabel(names=["tap", "jar"])}
    )
    rows = datasets.Dataset.from_list([{"video": "a.mp4", "label": 0}], features)
    assert read_examples(rows, (Task("label", 0, 2),), {0: "jar", 1: "tap"}).matched_by == {"label": "name"}
    assert read_examples(rows, (Task("label", 0, 2),), {}).matched_by == {"label": "number"}


def test_the_fingerprint_is_that_of_what_is_looked_at(tmp_path: Path) -> None:
    frames = {"video": str(tmp_path), "start_seconds": 0.0, "stop_seconds": 1.0, "start_frame": 1}
    different = [
        [row()],
        [row(label=2)],
        [row(video_id="b")],
        [row(start_seconds=0.0, stop_seconds=1.0)],
        [row(**frames, stop_frame=30)],
        [row(**frames, stop_frame=31)],
        [row(video={"path": None, "bytes": b"1"})],
        [row(video={"path": None, "bytes": b"2"})],
    ]
    assert len({read_examples(rows, TASK, {}).digest() for rows in different}) == len(different)
    moved = [row(video="elsewhere/a.mp4")]
    assert read_examples(moved, TASK, {}).digest() == read_examples([row()], TASK, {}).digest()


def test_a_part_is_spread_over_the_data_set() -> None:
    examples = read_examples([row(video_id=str(number)) for number in range(10)], TASK, {})
    assert [example.video_id for example in examples.spread(4).videos] == ["0", "2", "5", "7"]
    assert examples.spread(None) is examples
    assert examples.spread(10) is examples
