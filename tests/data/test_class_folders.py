from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import datasets
import pytest
from dataset_samples import write_clip

from hf_video_tome.data.loading import load
from hf_video_tome.data.video.decoding import read_frames
from hf_video_tome.data.video.encoding import _replacing
from hf_video_tome.data.video.types import VideoDecodingError


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
    with pytest.raises(ValueError, match=r"data_dir: the class folder '.*run' holds no video file"):
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


# --- nested folders
def test_nested_videos_are_of_the_class_that_they_are_under(tmp_path: Path) -> None:
    """As UCF11 and UCF Sports have them: groups in class folders, beside videos or without."""
    root = make(tmp_path / "data", "run/a.mp4", "run/part2/b.mp4", "walk/s1/c.mp4", "walk/s1/deep/er/d.mkv")
    make(root, "walk/.thumbnails/e.mp4")
    rows = load_all(root)["validation"]
    assert rows["video_id"][:] == ["run/a.mp4", "run/part2/b.mp4", "walk/s1/c.mp4", "walk/s1/deep/er/d.mkv"]
    assert rows["label"][:] == [0, 0, 1, 1]
    assert [row["video"]["path"] for row in rows] == [str(root / name) for name in rows["video_id"][:]]


def test_nested_videos_of_splits(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "train/run/g1/a.mp4", "train/walk/b.mp4", "val/walk/g1/a.mp4", "val/walk/g2/a.mp4")
    splits = load_all(root)
    assert splits["train"]["video_id"][:] == ["run/g1/a.mp4", "walk/b.mp4"]
    assert splits["validation"]["video_id"][:] == ["walk/g1/a.mp4", "walk/g2/a.mp4"]
    assert splits["validation"]["label"][:] == [1, 1]


def test_a_folder_too_far_up_is_not_one_class(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "UCF-101/run/a.mp4", "UCF-101/walk/b.mp4")
    with pytest.raises(ValueError, match=r"the only class folder '.*UCF-101' holds nothing but folders"):
        load_all(root)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("run/a.mp4", "b.mp4", "c.gif"), r"data' holds 2 videos outside of its class folders, such as 'b.mp4'"),
        (("train/run/a.mp4", "train/b.vob"), r"train' holds 1 video outside of its class folders, such as 'b.vob'"),
        (("train/s1/a.mp4", "car/s1/a.mp4", "car/s2/a.mp4"), r"'car' beside them holds no class folder .*\(2 videos"),
    ],
)
def test_videos_that_are_in_no_class_are_counted(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    for name in names:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    with pytest.raises(ValueError, match=message):
        load_all(tmp_path / "data")


# --- suffixes
@pytest.mark.parametrize(
    "suffixes",
    [(".vob", ".asf", ".3g2", ".ogg"), (".GIF", ".m2v", ".mxf", ".f4v"), (".divx", ".h264", ".y4m", ".rm", ".dvr-ms")],
)
def test_the_suffix_of_every_container_counts(tmp_path: Path, suffixes: tuple[str, ...]) -> None:
    folder = make(tmp_path / "data", "run/a.mp4") / "run"
    for suffix in suffixes:
        (folder / f"a{suffix}").touch()
    for other in (".txt", ".jpg", ".wav", ".srt", ".json", ""):
        (folder / f"a{other}").touch()
    rows = load_all(tmp_path / "data")["validation"]
    assert rows["video_id"][:] == sorted(f"run/a{suffix}" for suffix in (".mp4", *suffixes))


# --- links
def test_links_that_lead_nowhere_are_videos_that_cannot_be_read(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "run/a.mp4", "walk/b.mp4")
    (root / "run" / "itself.mp4").symlink_to("itself.mp4")
    (root / "walk" / "gone.avi").symlink_to(tmp_path / "gone.avi")
    (root / "walk" / "part2").symlink_to(tmp_path / "not mounted")
    (root / "walk" / "notes.txt").symlink_to(tmp_path / "gone.txt")
    (root / "walk" / "loop").symlink_to("loop")
    rows = load_all(root)["validation"]
    assert rows["video_id"][:] == ["run/a.mp4", "run/itself.mp4", "walk/b.mp4", "walk/gone.avi", "walk/part2"]
    for name in ("run/itself.mp4", "walk/gone.avi", "walk/part2"):
        with pytest.raises(VideoDecodingError):
            read_frames(root / name, [0])


def test_links_to_what_holds_them_are_not_followed_round_and_round(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "run/a.mp4", "run/g1/b.mp4", "walk/c.mp4")
    (root / "run" / "again").symlink_to(".")
    (root / "run" / "g1" / "up").symlink_to("../..")
    (root / "all").symlink_to(root)
    (root / "loop").symlink_to("loop")
    assert load_all(root)["validation"]["video_id"][:] == ["run/a.mp4", "run/g1/b.mp4", "walk/c.mp4"]


def test_links_from_class_to_class_end(tmp_path: Path) -> None:
    root = make(tmp_path / "data", "run/a.mp4", "walk/b.mp4")
    (root / "run" / "x").symlink_to("../walk")
    (root / "walk" / "y").symlink_to("../run")
    ids = load_all(root)["validation"]["video_id"][:]
    assert ids == ["run/a.mp4", "run/x/b.mp4", "walk/b.mp4", "walk/y/a.mp4"]


def test_a_class_that_is_a_link_to_nowhere_is_not_left_out(tmp_path: Path) -> None:
    """It would change the numbers of all classes after it."""
    root = make(tmp_path / "data", "run/a.mp4", "walk/b.mp4")
    (root / "jump").symlink_to(tmp_path / "not mounted")
    with pytest.raises(ValueError, match=r"data/jump: is a link to '.*not mounted', which does not exist"):
        load_all(root)


# --- names
@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"\xff\xfe/a.mp4"])
def test_names_that_are_not_utf8(tmp_path: Path, name: bytes) -> None:
    root = make(tmp_path / "data", "run/a.mp4")
    path = root / "run" / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    shutil.copy(root / "run" / "a.mp4", path)
    shown = name.decode(errors="backslashreplace")
    with pytest.raises(ValueError, match=re.escape(f"run/{shown}: its name is not UTF-8")):
        load_all(root)
    rows = list(load("class-folders", "validation", root, streaming=True))
    assert len(rows) == 2
    assert read_frames(next(row["video"]["path"] for row in rows if row["video"]["path"] == str(path)), [0]).numel()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    with pytest.raises(ValueError, match="data_dir: no class folder in"):
        load_all(root)
    make(root, "run/a.mp4")
    (root / "sit").mkdir()
    (root / "sit" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"data_dir: the class folder '.*sit' holds no video file"):
        load_all(root)
    with pytest.raises(ValueError, match=r"split must be one of validation \(in .*\), got 'test'"):
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
