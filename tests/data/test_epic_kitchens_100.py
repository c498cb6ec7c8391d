from __future__ import annotations

import copyreg
import io
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from dataset_samples import (
    EPIC_TEST,
    EPIC_VALIDATION,
    epic_row,
    load_validation,
    paths,
    without,
    write_clip,
    write_csv,
    write_frames,
    write_pickle,
)

from hf_video_tome.data.builders.epic_kitchens_100 import read_pickled_table
from hf_video_tome.data.loading import load
from hf_video_tome.data.video.decoding import read_frames

validation = partial(load_validation, "epic-kitchens")
FRAMES = [(1, 113), (8, 202), (3796, 3910)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "epic"
    write_csv(folder / "EPIC_100_validation.csv", EPIC_VALIDATION)
    return folder


def frames(rows: datasets.Dataset) -> list[tuple[int, int]]:
    return list(zip(rows["start_frame"], rows["stop_frame"], strict=True))


def test_rows(root: Path) -> None:
    path = write_clip(root / "P01" / "videos" / "P01_11.MP4")
    rows = validation(root)
    assert rows["video_id"][:] == rows["narration_id"][:] == ["P01_11_0", "P01_01_0", "P02_101_7"]
    assert rows["participant_id"][:] == ["P01", "P01", "P02"]
    assert (rows["verb"][:], rows["noun"][:]) == ([0, 3, 96], [2, 299, 0])
    assert rows["start_seconds"][:] == [0.0, 0.14, 75.93]
    assert rows["stop_seconds"][:] == [1.89, 3.37, 78.21]
    assert frames(rows) == FRAMES
    assert rows.features["start_seconds"] == datasets.Value("float64")
    assert rows.features["verb"].num_classes == 97
    assert rows.features["noun"].num_classes == 300
    # Missing videos keep their rows.
    assert paths(rows) == [
        str(path),
        str(root / "P01" / "videos" / "P01_01.MP4"),
        str(root / "P02" / "videos" / "P02_101.MP4"),
    ]
    assert read_frames(paths(rows)[0], [5]).shape == (1, 3, 64, 96)


@pytest.mark.parametrize("parent", ["", "EPIC-KITCHENS"])
def test_videos_and_frames(root: Path, parent: str) -> None:
    video = write_clip(root / parent / "P01" / "videos" / "P01_11.mp4")
    folder = write_frames(root / parent / "P01" / "rgb_frames" / "P01_11", range(1, 4))
    other = write_frames(root / parent / "P02" / "rgb_frames" / "P02_101", [3796])
    missing = root / parent / "P01"
    assert sorted(path.name for path in folder.iterdir())[0] == "frame_0000000001.jpg"
    assert paths(validation(root)) == [str(folder), str(missing / "videos" / "P01_01.MP4"), str(other)]
    assert paths(validation(root, media="videos"))[0] == str(video)
    assert paths(validation(root, media="frames")) == [
        str(folder),
        str(missing / "rgb_frames" / "P01_01"),
        str(other),
    ]


@pytest.mark.parametrize("folder", ["annotations", "epic-kitchens-100-annotations"])
@pytest.mark.parametrize("suffix", ["", "_v2"])
def test_class_names(tmp_path: Path, folder: str, suffix: str) -> None:
    write_csv(tmp_path / folder / "EPIC_100_validation.csv", EPIC_VALIDATION, bom=True)
    for kind, number in (("verb", 97), ("noun", 300)):
        write_csv(
            tmp_path / folder / f"EPIC_100_{kind}_classes{suffix}.csv",
            [
                {"id": index, "key": f"{kind}-{index}", "instances": f"['{kind}', 'a']", "category": "leave"}
                for index in reversed(range(number))
            ],
        )
    rows = validation(tmp_path)
    assert rows.features["verb"].int2str(rows["verb"][:]) == ["verb-0", "verb-3", "verb-96"]
    assert rows.features["noun"].int2str(rows["noun"][:]) == ["noun-2", "noun-299", "noun-0"]
    write_csv(tmp_path / folder / f"EPIC_100_verb_classes{suffix}.csv", [{"id": 0, "key": "take"}])
    with pytest.raises(ValueError, match=r"EPIC_100_verb_classes.*: must hold the 97 verb classes, got 1"):
        validation(tmp_path)


def test_frames_follow_from_times_where_they_are_not_given(root: Path) -> None:
    write_csv(root / "EPIC_100_validation.csv", without(EPIC_VALIDATION, "start_frame", "stop_frame"))
    assert frames(validation(root)) == FRAMES
    rows = [EPIC_VALIDATION[0], EPIC_VALIDATION[1] | {"start_frame": ""}, EPIC_VALIDATION[2] | {"stop_frame": None}]
    write_csv(root / "EPIC_100_validation.csv", rows)
    assert frames(validation(root)) == FRAMES
    # Exact: 1.15 * 60 is 68.99999999999999 in floating point.
    rows = without([epic_row("P01_01_5", "00:00:01.15", "01:00:02.05", None, (0, 0))], "narration_timestamp")
    write_csv(root / "EPIC_100_validation.csv", rows)
    assert frames(validation(root)) == [(69, 216123)]


def test_test_split_has_no_labels(root: Path, tmp_path: Path) -> None:
    write_csv(root / "EPIC_100_test_timestamps.csv", EPIC_TEST)
    splits = load("epic-kitchens-100", None, root, cache_dir=tmp_path / "cache")
    assert sorted(splits) == ["test", "validation"]
    assert (splits["test"]["verb"][:], splits["test"]["noun"][:]) == ([-1, -1], [-1, -1])
    assert frames(splits["test"]) == [(248, 287), (750, 806)]


# --- pickles
@pytest.mark.parametrize("text", [object, "str"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickle_gives_the_rows_of_the_csv(root: Path, text: object, protocol: int) -> None:
    from_csv = validation(root)
    (root / "EPIC_100_validation.csv").unlink()
    write_pickle(root / "EPIC_100_validation.pkl", EPIC_VALIDATION, text, protocol)
    from_pickle = validation(root)
    assert from_pickle.to_list() == from_csv.to_list()
    assert from_pickle.features == from_csv.features


def test_csv_is_preferred(root: Path) -> None:
    (root / "EPIC_100_validation.pkl").write_bytes(b"not even read")
    assert len(validation(root)) == 3
    with pytest.raises(ValueError, match=r"EPIC_100_validation.pkl: not the pickle of a pandas table"):
        validation(root, annotations="EPIC_100_validation.pkl")


def test_missing_values_in_a_pickle(root: Path) -> None:
    rows = [dict(row) for row in EPIC_VALIDATION]
    rows[1]["start_frame"] = None  # makes the column one of floats
    write_pickle(root / "rows.pkl", rows)
    assert frames(validation(root, annotations="rows.pkl")) == FRAMES
    write_pickle(root / "rows.pkl", without(EPIC_VALIDATION, "verb_class"))
    with pytest.raises(ValueError, match=r"rows.pkl: missing column verb_class; it has narration_id, "):
        validation(root, annotations="rows.pkl")
    rows[1]["verb_class"] = 97
    write_pickle(root / "rows.pkl", rows)
    with pytest.raises(ValueError, match=r"rows.pkl, row 1: verb_class must be an integer in 0..96, got '97'"):
        validation(root, annotations="rows.pkl")


class Hostile:
    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch {}",)),
        (eval, ("open({!r}, 'w')",)),
        (getattr, (os, "system")),
        (os.mkdir, ("{}",)),
        (pickle.loads, (pickle.dumps(3),)),
    ],
)
def test_pickles_cannot_run_code(tmp_path: Path, function: Any, arguments: tuple[Any, ...], protocol: int) -> None:
    trace = tmp_path / "trace"
    given = [argument.format(str(trace)) if isinstance(argument, str) else argument for argument in arguments]
    if function is getattr:
        given = ["a", "upper"]
    path = tmp_path / "hostile.pkl"
    for content in (Hostile(function, *given), {"frame": [Hostile(function, *given)]}):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(
            ValueError, match=r"hostile.pkl: not the pickle of a pandas table \(it names .*use the .csv"
        ):
            read_pickled_table(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", pickle.dumps([1, 2]), pickle.dumps({"narration_id": "a"})])
def test_other_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"other.pkl: not the pickle of a pandas table"):
        read_pickled_table(tmp_path / "other.pkl")


class OldTable:
    """Stands for an object of pandas that is pickled as versions before 1.3 did."""

    def __init__(self, table: type, state: object) -> None:
        self.__dict__.update(table=table, state=state)

    __class__ = property(lambda self: self.__dict__["table"])  # type: ignore[assignment]


class OldPickler(pickle._Pickler):  # type: ignore[name-defined]
    def reducer_override(self, obj: Any) -> Any:
        import pandas as pd
        from pandas.core.indexes.base import _new_Index

        if type(obj) is OldTable:
            return copyreg.__newobj__, (obj.table,), obj.state  # type: ignore[attr-defined]
        if isinstance(obj, pd.Index):
            return _new_Index, (pd.Index, {"data": np.array(list(obj), dtype=object), "name": obj.name})
        return NotImplemented


def test_pickle_of_an_old_pandas(tmp_path: Path) -> None:
    """In the form that the published files have, under the module names of that time, with the authors' metadata."""
    import pandas as pd
    from pandas.core.internals.managers import BlockManager

    columns = pd.Index(["video_id", "start_frame"], dtype=object)
    index = pd.Index(["P01_01_0", "P01_01_1"], dtype=object, name="narration_id")
    values = [np.array([["P01_01", "P01_01"]], dtype=object), np.array([[8, 262]])]
    blocks = [{"values": array, "mgr_locs": slice(number, number + 1, 1)} for number, array in enumerate(values)]
    axes = [columns, index]
    manager = (axes, values, [columns[:1], columns[1:]], {"0.14.1": {"axes": axes, "blocks": blocks}})
    state = {
        "_data": OldTable(BlockManager, manager),
        "_typ": "dataframe",
        "_metadata": {"commit_hash": "0946b2c", "version_number": "1.0.0"},
    }
    file = io.BytesIO()
    OldPickler(file, protocol=2).dump(OldTable(pd.DataFrame, state))
    content = file.getvalue().replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert b"cnumpy.core.multiarray" in content
    (tmp_path / "old.pkl").write_bytes(content)
    assert [row.values for row in read_pickled_table(tmp_path / "old.pkl")] == [
        {"narration_id": "P01_01_0", "video_id": "P01_01", "start_frame": "8"},
        {"narration_id": "P01_01_1", "video_id": "P01_01", "start_frame": "262"},
    ]


@pytest.mark.parametrize("form", ["index", "columns", "cells"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_categories_are_text_too(tmp_path: Path, form: str, protocol: int) -> None:
    """Published tables of the domain adaptation challenge have a CategoricalIndex."""
    import pandas as pd

    frame = pd.DataFrame({"narration_id": ["a", "b"], "video_id": ["P01_01", "P01_01"], "start_frame": [8, 262]})
    if form == "cells":
        frame = frame.astype({"video_id": "category"})
    frame = frame.set_index("narration_id")
    if form == "index":
        frame.index = pd.CategoricalIndex(frame.index)
    if form == "columns":
        frame.columns = pd.CategoricalIndex(frame.columns)
    frame.to_pickle(tmp_path / "categories.pkl", protocol=protocol)
    assert [row.values for row in read_pickled_table(tmp_path / "categories.pkl")] == [
        {"narration_id": "a", "video_id": "P01_01", "start_frame": "8"},
        {"narration_id": "b", "video_id": "P01_01", "start_frame": "262"},
    ]


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "pickles").glob("*.pkl")), ids=lambda path: path.stem)
def test_pickles_that_old_versions_of_pandas_wrote(path: Path) -> None:
    """`DataFrame.to_pickle` of pandas 1.1.5 and 1.3.5, with a categorical index, column names or cells."""
    assert [row.values for row in read_pickled_table(path)] == [
        {"narration_id": "a", "participant_id": "P01", "video_id": "x", "n": "1"},
        {"narration_id": "b", "participant_id": "P01", "video_id": "x", "n": "2"},
    ]


# --- what is wrong is said
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"verb_class": 97}, r"EPIC_100_validation.csv, line 3: verb_class must be an integer in 0..96, got '97'"),
        ({"noun_class": "door"}, r"line 3: noun_class must be an integer in 0..299, got 'door'"),
        ({"noun_class": ""}, r"line 3: noun_class must be an integer"),
        ({"start_timestamp": "3.2"}, r"line 3: start_timestamp must be a time such as 00:01:02.34, got '3.2'"),
        ({"stop_timestamp": "00:00:00.14"}, r"line 3: stop_timestamp must be greater than .*, got 0.14 and 0.14"),
        ({"stop_frame": 8}, r"line 3: stop_frame must be greater than start_frame, got 8 and 8"),
        ({"start_frame": 0}, r"line 3: start_frame must be an integer of at least 1, got '0'"),
        ({"video_id": "kitchen", "start_frame": ""}, r"line 3: video_id must be like P01_01 .*got 'kitchen'"),
        ({"narration_id": "P01_11_0"}, r"line 3: 'P01_11_0' is there already \(.*line 2\)"),
        ({"participant_id": ""}, r"line 3: participant_id is empty"),
    ],
)
def test_bad_rows_are_named(root: Path, changes: dict[str, Any], message: str) -> None:
    rows = [EPIC_VALIDATION[0], EPIC_VALIDATION[1] | changes]
    write_csv(root / "EPIC_100_validation.csv", rows)
    with pytest.raises(ValueError, match=message):
        validation(root)


def test_missing_columns_files_and_bad_options_are_named(root: Path) -> None:
    with pytest.raises(ValueError, match="media must be one of auto, frames, videos, got 'flow'"):
        validation(root, media="flow")
    with pytest.raises(FileNotFoundError, match=r"looked for train: EPIC_100_train.csv, EPIC_100_train.pkl"):
        load("epic-kitchens-100", "train", root)
    write_csv(root / "EPIC_100_validation.csv", without(EPIC_VALIDATION, "noun_class"))
    with pytest.raises(ValueError, match=r"EPIC_100_validation.csv: missing column noun_class; it has narration_id"):
        validation(root)
