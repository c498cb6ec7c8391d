from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pytest
from dataset_samples import (
    KINETICS_TRAIN,
    KINETICS_VALIDATION,
    NUM_FRAMES,
    kinetics_name,
    kinetics_row,
    load_validation,
    paths,
    without,
    write_clip,
    write_csv,
    write_json,
)
from video_samples import frame_number

from hf_video_tome.data.label_names import read_label_names
from hf_video_tome.data.loading import load
from hf_video_tome.data.video.decoding import read_frames

validation = partial(load_validation, "kinetics400")
NAMES = ["abseiling", "air drumming", "massaging person's head", "petting animal (not cat)"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The official annotations; no videos yet."""
    folder = tmp_path / "kinetics"
    write_csv(folder / "train.csv", KINETICS_TRAIN)
    write_csv(folder / "val.csv", KINETICS_VALIDATION)
    return folder


# --- the official files
@pytest.mark.parametrize("split_folder", ["val", "validate", "validation"])
@pytest.mark.parametrize("layout", ["flat", "labels", "underscores", "plain"])
def test_layouts(root: Path, split_folder: str, layout: str) -> None:
    expected = []
    for row in KINETICS_VALIDATION:
        label = {
            "flat": "",
            "labels": row["label"],
            "underscores": row["label"].replace(" ", "_"),
            "plain": row["label"].replace(" ", "_").replace("(", "-").replace(")", "-").replace("'", ""),
        }[layout]
        expected.append(write_clip(root / split_folder / label / f"{kinetics_name(row)}.mp4"))
    rows = validation(root)
    # Even "NaN" is an id, and one that begins with a dash is no option.
    assert rows["video_id"][:] == [kinetics_name(row) for row in KINETICS_VALIDATION]
    assert rows[1]["video_id"] == "--33Lscn6sk_000004_000014"
    assert paths(rows) == [str(path) for path in expected]
    assert rows[0]["video"]["bytes"] is None
    assert rows.features["label"] == datasets.ClassLabel(names=NAMES)
    assert [NAMES[label] for label in rows["label"]] == [row["label"] for row in KINETICS_VALIDATION]
    assert rows.features["video"] == datasets.Video(decode=False)
    last = read_frames(rows[3]["video"]["path"], [NUM_FRAMES - 1])[0]
    assert frame_number(last) == NUM_FRAMES - 1


def test_containers_of_real_downloads(root: Path) -> None:
    names = [kinetics_name(row) for row in KINETICS_VALIDATION]
    write_clip(root / "val" / f"{names[0]}.webm")
    write_clip(root / "val" / f"{names[1]}.mp4.mkv")
    write_clip(root / "val" / f"{names[2]}.MP4")
    (root / "val" / f"{names[3]}.mp4.part").write_bytes(b"half a download")
    found = [Path(path).name for path in paths(validation(root))]
    assert found == [f"{names[0]}.webm", f"{names[1]}.mp4.mkv", f"{names[2]}.MP4", f"{names[3]}.mp4"]


@pytest.mark.parametrize("layout", ["nothing", "flat", "labels"])
def test_missing_videos_keep_their_rows(root: Path, layout: str) -> None:
    first, second, *_ = KINETICS_VALIDATION
    folder = root / "val"
    if layout == "flat":
        write_clip(folder / f"{kinetics_name(first)}.mp4")
    elif layout == "labels":
        write_clip(folder / first["label"] / f"{kinetics_name(first)}.mp4")
    rows = validation(root)
    assert len(rows) == 4
    missing = folder / second["label"] if layout == "labels" else folder
    assert rows[1]["video"] == {"path": str(missing / f"{kinetics_name(second)}.mp4"), "bytes": None}
    assert rows[1]["label"] == NAMES.index("air drumming")


def test_all_splits_share_their_classes(root: Path, tmp_path: Path) -> None:
    write_csv(root / "test.csv", without([kinetics_row(None, "b", 5, "test")], "split"))
    splits = load("kinetics400", data_dir=root, cache_dir=tmp_path / "cache")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 2, "validation": 4, "test": 1}
    assert splits["test"]["label"][:] == [-1]
    assert splits["train"]["label"][:] == [NAMES.index("abseiling"), NAMES.index("air drumming")]
    assert splits["train"].features == splits["validation"].features == splits["test"].features
    assert splits["train"][0]["video"]["path"].endswith("train/_4YTwq0-73Y_000007_000017.mp4")


@pytest.mark.parametrize(
    "name", ["val.csv", "validate.csv", "annotations/kinetics400_val.csv", "kinetics400/validate.csv"]
)
def test_usual_file_names_with_byte_order_mark_and_extra_column(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path / name, [row | {"is_cc": 0} for row in KINETICS_VALIDATION], bom=True)
    assert validation(tmp_path)["label"][:] == [2, 0, 1, 0]


def test_one_file_for_all_splits(root: Path, tmp_path: Path) -> None:
    write_csv(root / "all.csv", KINETICS_TRAIN + KINETICS_VALIDATION)
    for given in ("all.csv", root / "all.csv", {"val": "all.csv"}):
        assert validation(root, annotations=given).to_list() == validation(root).to_list()
    splits = load("kinetics400", None, root, annotations="all.csv", cache_dir=tmp_path / "cache")
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 2, "validation": 4}


def test_labels_file_gives_the_numbers(root: Path) -> None:
    names = ["zumba", *reversed(NAMES)]
    (root / "labels.txt").write_text("\n".join(names) + "\n")
    write_json(root / "list.json", names)
    write_json(root / "index.json", {name: str(index) for index, name in enumerate(names)})
    write_json(root / "names.json", {str(index): name for index, name in enumerate(names)})
    write_csv(root / "labels.csv", [{"id": index, "name": name} for index, name in enumerate(names)])
    write_csv(root / "upper.csv", [{"ID": index, "Class_Name": name} for index, name in enumerate(names)])
    (root / "no_header.csv").write_text("".join(f"{index},{name},more\n" for index, name in enumerate(names)))
    for file in ("labels.txt", "list.json", "index.json", "names.json", "labels.csv", "upper.csv", "no_header.csv"):
        rows = validation(root, labels=file)
        assert rows.features["label"].names == names
        assert rows["label"][:] == [names.index(row["label"]) for row in KINETICS_VALIDATION]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"0": "10", "1": "7"}, ["10", "7"]),
        ({"10": "0", "7": "1"}, ["10", "7"]),
        ({"1": "0", "0": "1"}, ["1", "0"]),  # the same from either side
        ({"1": 0, "2": 1, "0": 2}, ["1", "2", "0"]),  # a name is text
    ],
)
def test_names_of_classes_may_be_numbers(tmp_path: Path, content: dict[str, object], names: list[str]) -> None:
    assert read_label_names(write_json(tmp_path / "names.json", content)) == names


def test_names_that_may_as_well_be_the_numbers_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "names.json", {"1": "0", "2": "1", "0": "2"})
    with pytest.raises(
        ValueError, match=r"names.json: both its keys and its values are 0 to 2, so that it is not clear"
    ):
        read_label_names(path)
    assert read_label_names(path, keys="index") == ["2", "0", "1"]


def test_class_folders_whose_names_differ_by_a_sign(tmp_path: Path) -> None:
    """The same file name in both: only the folder tells which is meant."""
    for label in ("C", "C++", "volume", "volume-", "\u0915\u093f\u0924\u093e\u092c", "\u0915\u0924\u092c"):
        write_clip(tmp_path / "val" / label / "x_000000_000010.mp4")
    for label in sorted(path.name for path in (tmp_path / "val").iterdir()):
        rows = [{"label": label, "youtube_id": "x", "time_start": "0", "time_end": "10", "split": "validate"}]
        write_csv(tmp_path / "val.csv", rows)
        assert paths(validation(tmp_path)) == [str(tmp_path / "val" / label / "x_000000_000010.mp4")]


# --- plain lists
@pytest.mark.parametrize("separator", [" ", ",", ", ", "\t"])
def test_plain_list(tmp_path: Path, separator: str) -> None:
    names = ["a.mp4", "my clips/b, 2 of 3.mp4", "c 7.webm", str(tmp_path / "elsewhere" / "d.mp4"), "no suffix 1"]
    write_clip(tmp_path / names[0])
    write_clip(tmp_path / "my clips" / "b, 2 of 3.mkv")  # another container than the list says
    (tmp_path / "val.csv").write_text(
        "".join(f"{name}{separator}{index}\n" for index, name in enumerate(names)) + "\n"
    )
    rows = validation(tmp_path)
    assert rows["video_id"][:] == names
    assert rows["label"][:] == [0, 1, 2, 3, 4]
    assert rows.features["label"] == datasets.Value("int64")
    found = paths(rows)
    assert found[:2] == [str(tmp_path / "a.mp4"), str(tmp_path / "my clips" / "b, 2 of 3.mkv")]
    assert found[2:4] == [str(tmp_path / "c 7.webm"), names[3]]


def test_plain_list_with_names_and_unlabelled_test_list(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("a.mp4 1\n")
    (tmp_path / "test.txt").write_text("b 3.mp4\nc.mp4 -1\n")
    (tmp_path / "names.txt").write_text("jump\nrun\n")
    splits = load("kinetics400", None, tmp_path, labels="names.txt", cache_dir=tmp_path / "cache")
    assert splits["validation"].features["label"].int2str(splits["validation"]["label"][:]) == ["run"]
    assert splits["test"]["video_id"][:] == ["b 3.mp4", "c.mp4"]
    assert splits["test"]["label"][:] == [-1, -1]


# --- what is wrong is said
def broken(column: str, value: object) -> list[dict[str, Any]]:
    rows = [dict(row) for row in KINETICS_VALIDATION]
    rows[1][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            without(KINETICS_VALIDATION, "youtube_id"),
            r"val.csv: missing column youtube_id; it has label, time_start",
        ),
        (without(KINETICS_VALIDATION, "time_end", "label"), r"val.csv: missing column time_end"),
        (broken("time_start", "soon"), r"val.csv, line 3: time_start must be an integer of at least 0, got 'soon'"),
        (broken("time_start", 14), r"val.csv, line 3: time_end must be greater than time_start, got 14 and 14"),
        (broken("youtube_id", ""), r"val.csv, line 3: youtube_id is empty"),
        (broken("label", ""), r"val.csv, line 3: label is empty; only the test split"),
        (broken("split", "holdout"), r"val.csv, line 3: split must be one of train, .*got 'holdout'"),
        (
            [*KINETICS_VALIDATION, KINETICS_VALIDATION[0]],
            r"val.csv, line 6: '-0WLUFKEwHc_000003_000013' is there already \(.*val.csv, line 2\)",
        ),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    write_csv(tmp_path / "val.csv", rows)
    with pytest.raises(ValueError, match=message):
        validation(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,youtube_id,time_start,time_end,split\na,b,1\n", "val.csv, line 2: has 3 cells, but the header has 5"),
        ("label,youtube_id,time_start,time_end,split\n", "val.csv: holds no row"),
        ("\n", "val.csv: holds no row"),
        ("a.mp4 0\nb.mp4\n", "val.csv, line 2: must be path label_index.*got 'b.mp4'"),
        ("a.mp4 0\n\na.mp4 1\n", "val.csv, line 3: 'a.mp4' is there already .*line 1"),
        ("a.mp4 -1\n", "val.csv, line 1: the label index must be an integer of at least 0, got -1"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "val.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        validation(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_bytes(b"label,youtube_id\n\xff\xfe,a\n")
    with pytest.raises(ValueError, match=r"val.csv: not a UTF-8 text file"):
        validation(tmp_path)


def test_labels_that_do_not_fit_are_named(root: Path) -> None:
    (root / "short.txt").write_text("abseiling\nair drumming\n")
    with pytest.raises(ValueError, match=r"val.csv, line 2: unknown label 'petting animal \(not cat\)'; labels has 2"):
        validation(root, labels="short.txt")
    (root / "list.txt").write_text("a.mp4 2\n")
    with pytest.raises(
        ValueError, match=r"list.txt, line 1: the label index must be an integer in 0..1 \(labels\), got 2"
    ):
        validation(root, labels="short.txt", annotations="list.txt")
    for name, content, message in (
        ("twice.json", ["a", "a"], "twice.json, class 1: 'a' is there already"),
        ("gap.json", {"a": 0, "b": 2}, "gap.json: the indices must be 0, 1, 2"),
        (
            "same.json",
            {"a": 0, "b": "0"},
            "gap.json|same.json: the index of 'b' must be an integer that no other class",
        ),
        ("number.json", 3, "number.json: must hold a list of names or a mapping, got int"),
    ):
        (root / name).write_text(json.dumps(content))
        with pytest.raises(ValueError, match=message):
            validation(root, labels=name)
    (root / "labels.csv").write_text("number,title\n0,a\n")
    with pytest.raises(ValueError, match=r"labels.csv: must have one of the columns id, .*it has number, title"):
        validation(root, labels="labels.csv")
    with pytest.raises(FileNotFoundError, match=r"labels: there is no file 'none.txt'"):
        validation(root, labels="none.txt")


def test_missing_annotations_say_what_was_looked_for(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"annotations: no annotation file in .*test: test.csv, testing.csv"):
        load("kinetics400", "test", root)
    shutil.rmtree(root)
    root.mkdir()
    with pytest.raises(FileNotFoundError, match=r"annotations.*train: train.csv.*validation: val.csv, validation.csv"):
        load("kinetics400", None, root)


def test_split_of_a_file_that_does_not_say_so(root: Path) -> None:
    (root / "mine.txt").write_text("a.mp4 0\n")
    with pytest.raises(ValueError, match=r"the split of .*mine.txt' is unknown.*\{'validation': 'mine.txt'\}"):
        load("kinetics400", None, root, annotations="mine.txt")
    assert len(load("kinetics400", "train", root, annotations="mine.txt", cache_dir=root.parent).features) == 3
    with pytest.raises(ValueError, match=r"train.csv: holds no row of the split validation"):
        validation(root, annotations="train.csv")
