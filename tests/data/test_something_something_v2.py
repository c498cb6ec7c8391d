from __future__ import annotations

from functools import partial
from pathlib import Path

import datasets
import pytest
from dataset_samples import (
    SOMETHING_LABELS,
    SOMETHING_TEST,
    SOMETHING_VALIDATION,
    load_validation,
    write_clip,
    write_json,
)

from hf_video_tome.data.loading import load
from hf_video_tome.data.video.decoding import read_frames

validation = partial(load_validation, "ssv2")
NAMES = ["Approaching something with your camera", "Holding something", "Putting something on a surface"]
OFFICIAL = "something-something-v2-"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ssv2"
    write_json(folder / "labels.json", SOMETHING_LABELS)
    write_json(folder / "validation.json", SOMETHING_VALIDATION)
    write_json(folder / "test.json", SOMETHING_TEST)
    return folder


@pytest.mark.parametrize("names", [OFFICIAL, "", f"labels/{OFFICIAL}", "labels/", "annotations/"])
@pytest.mark.parametrize("videos", ["20bn-something-something-v2", "videos", "."])
def test_layouts(tmp_path: Path, names: str, videos: str) -> None:
    write_json(tmp_path / f"{names}labels.json", SOMETHING_LABELS)
    write_json(tmp_path / f"{names}validation.json", SOMETHING_VALIDATION)
    path = write_clip(tmp_path / videos / "74225.webm")
    rows = validation(tmp_path)
    assert rows.features["label"] == datasets.ClassLabel(names=NAMES)
    assert rows["video_id"][:] == ["74225", "78687"]
    assert rows["label"][:] == [1, 2]
    assert rows[0]["video"] == {"path": str(path), "bytes": None}
    assert read_frames(rows[0]["video"]["path"], [0, 5]).shape == (2, 3, 64, 96)
    # The other one is missing, and keeps its row.
    usual = tmp_path / ("20bn-something-something-v2" if videos == "." else videos)
    assert rows[1]["video"] == {"path": str(usual / "78687.webm"), "bytes": None}


def test_converted_videos_and_numeric_ids(root: Path) -> None:
    path = write_clip(root / "videos" / "74225.mp4")
    write_json(root / "validation.json", [entry | {"id": int(entry["id"])} for entry in SOMETHING_VALIDATION])
    rows = validation(root)
    assert rows[0]["video"]["path"] == str(path)
    assert rows["video_id"][:] == ["74225", "78687"]


def test_test_split_has_no_labels(root: Path, tmp_path: Path) -> None:
    splits = load("something_something_v2", None, root, cache_dir=tmp_path / "cache")
    assert sorted(splits) == ["test", "validation"]
    assert splits["test"]["video_id"][:] == ["1420", "3057"]
    assert splits["test"]["label"][:] == [-1, -1]
    assert splits["test"].features["label"].names == NAMES


def test_named_files(root: Path) -> None:
    write_json(root / "other" / "part.json", SOMETHING_VALIDATION[:1])
    write_json(root / "other" / "classes.json", {**SOMETHING_LABELS, "Zooming": 3})
    rows = validation(root, annotations="other/part.json", labels=root / "other" / "classes.json")
    assert rows["video_id"][:] == ["74225"]
    assert rows.features["label"].names == [*NAMES, "Zooming"]


def test_labels_with_brackets_as_the_entries_have_them(root: Path) -> None:
    """As in id2label of V-JEPA 2 checkpoints."""
    bracketed = {name.replace("something", "[something]"): index for name, index in SOMETHING_LABELS.items()}
    assert list(bracketed) != list(SOMETHING_LABELS)
    write_json(root / "labels.json", bracketed)
    rows = validation(root)
    assert rows.features["label"].names == NAMES
    assert rows["label"][:] == [1, 2]
    write_json(root / "labels.json", {**SOMETHING_LABELS, "Holding [something]": 3})
    with pytest.raises(ValueError, match=r"labels.json, class 3: 'Holding something' is there already"):
        validation(root)


@pytest.mark.parametrize("labels", [{"10": "0", "7": "1"}, {"1": "0", "2": "1", "0": "2"}, {"1": 1, "0": 2, "2": 0}])
def test_labels_that_are_called_by_numbers(root: Path, labels: dict[str, str]) -> None:
    """The file maps from template to index, whatever the templates are."""
    write_json(root / "labels.json", labels)
    entries = [{"id": str(index), "template": template} for index, template in enumerate(labels)]
    write_json(root / "validation.json", entries)
    rows = validation(root)
    assert rows["label"][:] == [int(index) for index in labels.values()]
    assert rows.features["label"].int2str(rows["label"][:]) == list(labels)


def test_byte_order_mark(root: Path) -> None:
    for name in ("labels.json", "validation.json"):
        text = (root / name).read_text()
        (root / name).write_text(text, encoding="utf-8-sig")
    assert validation(root)["label"][:] == [1, 2]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"id": "1"}, "validation.json: must hold a list of entries"),
        ([], "validation.json: must hold a list of entries"),
        ([SOMETHING_VALIDATION[0], {"template": "x"}], "validation.json, entry 2: must have an id"),
        ([SOMETHING_VALIDATION[0], "x"], "validation.json, entry 2: must have an id, got 'x'"),
        ([SOMETHING_VALIDATION[0], {"id": "2"}], r"entry 2 \(id 2\): template must be text, got None"),
        (
            [SOMETHING_VALIDATION[0], {"id": "2", "template": "Eating [something]"}],
            r"entry 2 \(id 2\): unknown template 'Eating \[something\]'; .*labels.json has 3 others",
        ),
        ([SOMETHING_VALIDATION[0]] * 2, r"validation.json, entry 2: '74225' is there already \(.*entry 1\)"),
    ],
)
def test_bad_entries_are_named(root: Path, entries: object, message: str) -> None:
    write_json(root / "validation.json", entries)
    with pytest.raises(ValueError, match=message):
        validation(root)


def test_missing_or_broken_files_are_named(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"looked for train: {OFFICIAL}train.json, train.json"):
        load("ssv2", "train", root)
    (root / "validation.json").write_text('[\n{"id": 1,]\n')
    with pytest.raises(ValueError, match=r"validation.json, line 2: not JSON"):
        validation(root)
    (root / "labels.json").unlink()
    with pytest.raises(FileNotFoundError, match=f"labels: no {OFFICIAL}labels.json or labels.json in"):
        validation(root)
