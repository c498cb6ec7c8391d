from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pytest
from dataset_samples import write_clip

from hf_video_tome.data.decoding import read_frames
from hf_video_tome.data.encoding import _replacing
from hf_video_tome.data.loading import load


def make(root: Path, *names: str) -> Path:
    for name in names:
        write_clip(root / name)
    return root


def load_all(root: Path) -> datasets.DatasetDict:
    splits = load("class-folders", None, root, cache_dir=root.parent / "cache")
    assert isinstance(splits, datasets.DatasetDict)
    return splits


def test_class_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "run/b.mp4", "run/a.webm", "jump high/a.MKV", "jump high/c.avi")
    (root / "run" / "notes.txt").write_text("no video")
    make(root, "run/.hidden.mp4", ".cache/x/y.mp4")
    splits = load_all(root)
    assert list(splits) == ["validation"]
    rows = splits["validation"]
    assert rows.features["label"] == datasets.ClassLabel(names=["jump high", "run"])
    assert rows["video_id"][:] == ["jump high/a.MKV", "jump high/c.avi", "run/a.webm", "run/b.mp4"]
    assert rows["label"][:] == [0, 0, 1, 1]
    for row in rows:
        assert row["video"] == {"path": str(root / row["video_id"]), "bytes": None}
        assert read_frames(row["video"]["path"], [5]).shape == (1, 3, 64, 96)


def test_what_a_killed_writer_leaves_behind_is_no_video(tmp_path: Path) -> None:
    """A video takes its name when it is finished; until then it lies beside it under a hidden one."""
    root = make(tmp_path / "data", "run/a.mp4")
    killed = _replacing(root / "run" / "b.mp4")  # it never gets to its end
    shutil.copy(root / "run" / "a.mp4", killed.__enter__())
    assert len(list((root / "run").iterdir())) == 2
    assert load_all(root)["validation"]["video_id"][:] == ["run/a.mp4"]


def test_a_folder_of_hidden_files_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`data_dir`: the class folder '.*run' holds no video file"):
        load_all(make(tmp_path / "data", "run/.a.mp4"))


@pytest.mark.parametrize("validation", ["val", "validation", "Valid"])
def test_split_folders_share_their_classes(tmp_path: Path, validation: str) -> None:
    root = make(tmp_path / "data", "train/run/a.mp4", "train/sit/b.mp4", f"{validation}/jump/a.mp4", "test/sit/c.mp4")
    (root / "annotations").mkdir()
    splits = load_all(root)
    assert list(splits) == ["train", "validation", "test"]
    for rows in splits.values():
        assert rows.features["label"].names == ["jump", "run", "sit"]
    assert [rows["label"][:] for rows in splits.values()] == [[1, 2], [0], [2]]
    only = load("class-folders", "val", root, cache_dir=tmp_path / "cache")
    assert only.features["label"].names == ["jump", "run", "sit"]
    assert only["video_id"][:] == ["jump/a.mp4"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "car/a.mp4", "train/a.mp4")
    assert load_all(root)["validation"].features["label"].names == ["car", "train"]


def test_linked_folders_and_files(tmp_path: Path) -> None:
    store = make(tmp_path / "store", "a.mp4")
    root = tmp_path / "data"
    (root / "run").mkdir(parents=True)
    (root / "run" / "x.mp4").symlink_to(store / "a.mp4")
    (root / "sit").symlink_to(store, target_is_directory=True)
    assert load_all(root)["validation"]["video_id"][:] == ["run/x.mp4", "sit/a.mp4"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(ValueError, match="`data_dir`: there is no class folder in"):
        load_all(root)
    make(root, "run/a.mp4")
    (root / "sit").mkdir()
    (root / "sit" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"`data_dir`: the class folder '.*sit' holds no video file"):
        load_all(root)
    with pytest.raises(ValueError, match=r"`split` must be one of validation \(in .*\), got 'test'"):
        load("class-folders", "test", root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train/run/a.mp4", "sit/a.mp4"),
            r"has split folders \(train\), but 'sit' beside them holds no class folder",
        ),
        (("train/run/a.mp4", "val/a.mp4"), r"has split folders \(train\), but 'val' beside them"),
        (("val/run/a.mp4", "validation/run/a.mp4"), "are both the split validation"),
    ],
)
def test_ambiguous_folders_are_refused(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_all(make(tmp_path / "data", *names))
