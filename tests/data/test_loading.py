from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import datasets
import pytest
from dataset_samples import (
    EPIC_VALIDATION,
    KINETICS_TRAIN,
    KINETICS_VALIDATION,
    SOMETHING_LABELS,
    SOMETHING_TEST,
    SOMETHING_VALIDATION,
    kinetics_name,
    write_clip,
    write_csv,
    write_json,
)

from hf_video_tome.data import moving_digits
from hf_video_tome.data.loading import DATASETS, canonical_name, load


def kinetics(root: Path) -> None:
    write_csv(root / "train.csv", KINETICS_TRAIN)
    write_csv(root / "val.csv", KINETICS_VALIDATION)
    write_clip(root / "val" / f"{kinetics_name(KINETICS_VALIDATION[0])}.mp4")


def something(root: Path) -> None:
    write_json(root / "labels.json", SOMETHING_LABELS)
    write_json(root / "validation.json", SOMETHING_VALIDATION)
    write_json(root / "test.json", SOMETHING_TEST)


def epic(root: Path) -> None:
    write_csv(root / "EPIC_100_train.csv", EPIC_VALIDATION)
    write_csv(root / "EPIC_100_validation.csv", EPIC_VALIDATION)


def folders(root: Path) -> None:
    for name in ("train/run/a.mp4", "train/sit/b.mp4", "val/sit/c.mp4"):
        write_clip(root / name)


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "kinetics400": kinetics,
    "something-something-v2": something,
    "epic-kitchens-100": epic,
    "class-folders": folders,
}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(params=LAYOUTS)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """The name of each dataset, and the folder of a small copy."""
    root = tmp_path / "data"
    root.mkdir()
    LAYOUTS[request.param](root)
    return request.param, root


# --- the registry
def test_names() -> None:
    for name in ("kinetics400", "KINETICS400", "Kinetics_400", "kinetics-400"):
        assert canonical_name(name) == "kinetics400"
    assert canonical_name("SSv2") == canonical_name("something_something_v2") == "something-something-v2"
    assert canonical_name("epic_kitchens") == canonical_name("EPIC-KITCHENS-100") == "epic-kitchens-100"
    assert canonical_name("Class_Folders") == "class-folders"
    with pytest.raises(ValueError, match=r"name must be one of kinetics400, .*, moving-digits, got 'imagenet'"):
        load("imagenet", "validation", "data")


def test_entries() -> None:
    assert list(DATASETS) == [*LAYOUTS, "moving-digits"]
    for name, entry in DATASETS.items():
        assert entry.name == name
        assert issubclass(entry.builder_class, datasets.GeneratorBasedBuilder)
        assert entry.license_note
        assert entry.evaluation_split == ("test" if name == "moving-digits" else "validation")
    with pytest.raises(FrozenInstanceError):
        DATASETS["kinetics400"].homepage = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        DATASETS["mine"] = DATASETS["kinetics400"]  # type: ignore[index]


# --- the same for all
def test_rows_follow_the_contract(dataset: tuple[str, Path], cache: Path) -> None:
    name, root = dataset
    splits = load(name, None, root, cache_dir=cache)
    assert isinstance(splits, datasets.DatasetDict)
    for split, rows in splits.items():
        assert rows.features["video_id"] == datasets.Value("string")
        assert rows.features["video"] == datasets.Video(decode=False)
        assert len(set(rows["video_id"])) == len(rows) > 0
        for row in rows:
            assert row["video"]["bytes"] is None
            assert Path(row["video"]["path"]).is_absolute()
            assert root in Path(row["video"]["path"]).parents
        alone = load(name, split, root, cache_dir=cache)
        assert isinstance(alone, datasets.Dataset)
        assert (alone.features, alone.to_list()) == (rows.features, rows.to_list())
        assert alone.info.license == DATASETS[name].license_note


def test_streaming_gives_the_same_and_prepares_nothing(dataset: tuple[str, Path], cache: Path) -> None:
    name, root = dataset
    streams = load(name, None, root, streaming=True, cache_dir=cache)
    assert isinstance(streams, datasets.IterableDatasetDict)
    streamed = {split: list(rows) for split, rows in streams.items()}
    one = load(name, "val", root, streaming=True, cache_dir=cache)
    assert isinstance(one, datasets.IterableDataset)
    assert list(one) == streamed["validation"]
    assert not list(cache.glob("**/*.arrow"))
    prepared = load(name, None, root, cache_dir=cache)
    assert {split: rows.to_list() for split, rows in prepared.items()} == streamed
    assert one.features == prepared["validation"].features


def test_rows_are_prepared_once(dataset: tuple[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, root = dataset
    first = load(name, "validation", root, cache_dir=cache)
    times = {path: path.stat().st_mtime_ns for path in cache.glob("**/*.arrow")}
    # The same folder, told in another way.
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    for data_dir in ("data", "~/data", f"{root}/", root / ".." / "data"):
        assert load(name, "validation", data_dir, cache_dir=cache).to_list() == first.to_list()
    assert {path: path.stat().st_mtime_ns for path in cache.glob("**/*.arrow")} == times


def test_other_data_folder_is_another_data_set(dataset: tuple[str, Path], cache: Path, tmp_path: Path) -> None:
    name, root = dataset
    load(name, "validation", root, cache_dir=cache)
    moved = root.rename(tmp_path / "moved")
    rows = load(name, "validation", moved, cache_dir=cache)
    assert all(moved in Path(video["path"]).parents for video in rows["video"])


def test_splits(dataset: tuple[str, Path], cache: Path) -> None:
    name, root = dataset
    rows = load(name, "validation", root, cache_dir=cache)
    assert load(name, " val[:1] ", root, cache_dir=cache).to_list() == rows.to_list()[:1]
    others = sorted(load(name, None, root, cache_dir=cache))
    both = load(name, "+".join(others), root, cache_dir=cache)
    assert len(both) == len(load(name, "all", root, cache_dir=cache)) > len(rows)
    streamed = load(name, "+".join(others), root, cache_dir=cache, streaming=True)
    assert [row["video_id"] for row in streamed] == both["video_id"][:]


def test_bad_arguments_are_named(dataset: tuple[str, Path], cache: Path, tmp_path: Path) -> None:
    name, root = dataset
    with pytest.raises(ValueError, match=f"data_dir must be the folder of the dataset '{name}', got None"):
        load(name, "validation")
    with pytest.raises(FileNotFoundError, match=r"data_dir: there is no folder '.*nowhere'"):
        load(name, "validation", tmp_path / "nowhere")
    for split in ("dev", "", "validation[", "validation,test"):
        with pytest.raises(ValueError, match=r"split must be train, validation, test or a part of one"):
            load(name, split, root, cache_dir=cache)
    with pytest.raises(ValueError, match=r"split must be whole with streaming=True, without \[:1\]"):
        load(name, "validation[:1]", root, streaming=True)
    with pytest.raises(ValueError, match=f"colour is not an option of '{name}', which has "):
        load(name, "validation", root, colour="red")
    with pytest.raises(ValueError, match="data_files is not an option"):
        load(name, "validation", root, data_files="x")


# --- stale caches
def test_edited_annotations_are_read_again(tmp_path: Path, cache: Path) -> None:
    kinetics(tmp_path)
    assert len(load("kinetics400", "validation", tmp_path, cache_dir=cache)) == 4
    write_csv(tmp_path / "val.csv", KINETICS_VALIDATION[:3])
    assert len(load("kinetics400", "validation", tmp_path, cache_dir=cache)) == 3
    # Another file than the one of the split: it holds a class more, which renumbers the others.
    write_csv(tmp_path / "train.csv", [KINETICS_TRAIN[0] | {"label": "aaa"}, *KINETICS_TRAIN])
    rows = load("kinetics400", "validation", tmp_path, cache_dir=cache)
    assert rows.features["label"].names[0] == "aaa"
    assert rows["label"][:] == [4, 2, 3]


def test_changed_labels_file_is_read_again(tmp_path: Path, cache: Path) -> None:
    something(tmp_path)
    assert load("ssv2", "validation", tmp_path, cache_dir=cache)["label"][:] == [1, 2]
    swapped = {name: str(2 - int(index)) for name, index in SOMETHING_LABELS.items()}
    write_json(tmp_path / "labels.json", swapped)
    assert load("ssv2", "validation", tmp_path, cache_dir=cache)["label"][:] == [1, 0]


def test_videos_that_arrive_later_are_found(tmp_path: Path, cache: Path) -> None:
    something(tmp_path)
    path = load("ssv2", "validation", tmp_path, cache_dir=cache)[0]["video"]["path"]
    assert path == str(tmp_path / "20bn-something-something-v2" / "74225.webm")
    write_clip(tmp_path / "videos" / "74225.mp4")
    path = load("ssv2", "validation", tmp_path, cache_dir=cache)[0]["video"]["path"]
    assert path == str(tmp_path / "videos" / "74225.mp4")


def test_class_folders_are_listed_again(tmp_path: Path, cache: Path) -> None:
    root = tmp_path / "data"
    folders(root)
    for change, expected in (
        (lambda: write_clip(root / "val" / "sit" / "d.mp4"), ["sit/c.mp4", "sit/d.mp4"]),
        (lambda: (root / "val" / "sit" / "c.mp4").unlink(), ["sit/d.mp4"]),
        (lambda: (root / "val" / "sit").rename(root / "val" / "stand"), ["stand/d.mp4"]),
    ):
        load("class-folders", "validation", root, cache_dir=cache)
        change()
        assert load("class-folders", "validation", root, cache_dir=cache)["video_id"][:] == expected


def test_fingerprints_follow_the_rows(tmp_path: Path, cache: Path) -> None:
    kinetics(tmp_path)
    first = load("kinetics400", "validation", tmp_path, cache_dir=cache)
    mapped = first.map(lambda row: {"copy": row["video_id"]})
    write_csv(tmp_path / "val.csv", KINETICS_VALIDATION[1:])
    second = load("kinetics400", "validation", tmp_path, cache_dir=cache)
    assert first._fingerprint != second._fingerprint
    assert second.map(lambda row: {"copy": row["video_id"]})["copy"][:] == mapped["copy"][1:]


# --- annotations=
def test_annotation_files_by_argument(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "elsewhere" / "some.csv", KINETICS_VALIDATION[:1])
    root = tmp_path / "data"
    kinetics(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for given in ("elsewhere/some.csv", "~/elsewhere/some.csv", {"validate": Path("elsewhere/some.csv")}):
        rows = load("kinetics400", "validation", root, annotations=given, cache_dir=cache)
        assert rows["video_id"][:] == [kinetics_name(KINETICS_VALIDATION[0])]
    for given, error, message in (
        ("none.csv", FileNotFoundError, "annotations: there is no file 'none.csv', neither in .*data"),
        ({"dev": "val.csv"}, ValueError, "annotations must be one of train, validation, test, got 'dev'"),
        ({}, ValueError, "annotations must name at least one file"),
        ({"train": "train.csv"}, ValueError, "split must be one of train, got 'validation'"),
        ({"validation": 3}, ValueError, "annotations must be the path of a file, got 3"),
    ):
        with pytest.raises(error, match=message):
            load("kinetics400", "validation", root, annotations=given, cache_dir=cache)
    with pytest.raises(ValueError, match="annotations is not an option of 'class-folders'"):
        load("class-folders", "validation", root, annotations="val.csv")


def test_stream_is_divided_among_workers(tmp_path: Path, cache: Path) -> None:
    from torch.utils.data import DataLoader

    root = tmp_path / "data"
    lines = [f"{number}.mp4 {number % 3}\n" for number in range(150)]
    root.mkdir()
    (root / "val.txt").write_text("".join(lines))
    rows = load("kinetics400", "validation", root, streaming=True, cache_dir=cache)
    assert rows.num_shards == 50
    loader = DataLoader(rows, num_workers=2, batch_size=None)
    assert sorted(row["video_id"] for row in loader) == sorted(line.split()[0] for line in lines)


# --- Moving Digits
def test_moving_digits(cache: Path) -> None:
    options: dict[str, Any] = {"num_train": 2, "num_validation": 1, "num_test": 3, "cache_dir": cache}
    rows = load("moving_digits", "test", **options)
    assert rows.column_names == ["video_id", "video", "label", "verb", "noun"]
    assert rows["video_id"][:] == ["test-000000-left-0", "test-000001-turn_ccw-7", "test-000002-down-4"]
    # The clips of the splits that were not asked for are not rendered.
    assert {path.parent.name for path in cache.glob("**/*.mp4")} == {"test"}
    splits = load("moving-digits", **options)
    assert {split: len(part) for split, part in splits.items()} == {"train": 2, "validation": 1, "test": 3}
    assert splits["test"].to_list() == rows.to_list()
    streamed = load("moving-digits", "test", streaming=True, **options)
    assert list(streamed) == rows.to_list()
    vp9 = load("moving-digits", "test", config_name="vp9", num_test=1, cache_dir=cache)
    assert vp9[0]["video"]["path"].endswith(".webm")


def test_moving_digits_errors_are_plain(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options, message in (
        ({"data_dir": "data"}, "data_dir must be None for 'moving-digits', which is made on demand, got 'data'"),
        (
            {"annotations": "a.csv"},
            "annotations is not an option of 'moving-digits', which has config_name, num_test",
        ),
        ({"num_test": -1}, "num_test must be an integer of at least 0, got -1"),
        ({"num_test": 0}, "num_test must be at least 1 if the split test is requested, got 0"),
        ({"config_name": "easy"}, "'easy' not found"),
    ):
        with pytest.raises(ValueError, match=message):
            load("moving-digits", "test", cache_dir=cache, **options)
    moving_digits._digit_images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install \"hf-video-tome\[demo\]\""):
        load("moving-digits", "test", num_test=1, cache_dir=cache)
