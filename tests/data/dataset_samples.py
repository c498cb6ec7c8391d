"""Small copies of the layouts that the datasets come in: real annotation formats, real video files."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from video_samples import encode, numbered_frame

from hf_video_tome.data.loading import load

NUM_FRAMES = 6
_CODECS = {
    ".mp4": ("libx264", {"preset": "ultrafast"}),
    ".mkv": ("libx264", {"preset": "ultrafast"}),
    ".avi": ("mpeg4", {}),
    ".webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


@lru_cache
def _video(suffix: str) -> bytes:
    codec, options = _CODECS[suffix]
    with tempfile.TemporaryDirectory() as folder:
        frames = [numbered_frame(number) for number in range(NUM_FRAMES)]
        return encode(Path(folder, f"clip{suffix}"), frames, codec, options=options).read_bytes()


def write_clip(path: Path) -> Path:
    """A real video of six numbered frames, in the container that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_video(path.suffix.lower()))
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]], bom: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# --- what is read of them
def load_validation(name: str, root: Path, **options: Any) -> datasets.Dataset:
    rows = load(name, "validation", root, cache_dir=root.parent / "cache", **options)
    assert isinstance(rows, datasets.Dataset)
    return rows


def paths(rows: datasets.Dataset) -> list[str]:
    return [video["path"] for video in rows["video"]]


# --- Kinetics-400
def kinetics_row(label: str | None, youtube_id: str, start: int, split: str) -> dict[str, Any]:
    row = {"label": label, "youtube_id": youtube_id, "time_start": start, "time_end": start + 10, "split": split}
    if label is None:
        del row["label"]
    return row


def kinetics_name(row: dict[str, Any]) -> str:
    return f"{row['youtube_id']}_{row['time_start']:06d}_{row['time_end']:06d}"


KINETICS_VALIDATION = [
    kinetics_row("petting animal (not cat)", "-0WLUFKEwHc", 3, "validate"),
    kinetics_row("air drumming", "--33Lscn6sk", 4, "validate"),
    kinetics_row("massaging person's head", "0wR5jVB-WPk", 417, "validate"),
    kinetics_row("air drumming", "NaN", 1200, "validate"),
]
KINETICS_TRAIN = [kinetics_row("abseiling", "_4YTwq0-73Y", 7, "train"), kinetics_row("air drumming", "a", 0, "train")]


# --- Something-Something v2
SOMETHING_LABELS = {
    "Holding something": "1",
    "Approaching something with your camera": "0",
    "Putting something on a surface": "2",
}
SOMETHING_VALIDATION = [
    {"id": "74225", "label": "holding a cup", "template": "Holding [something]", "placeholders": ["a cup"]},
    {
        "id": "78687",
        "label": "putting pen on a surface",
        "template": "Putting [something] on a surface",
        "placeholders": ["pen"],
    },
]
SOMETHING_TEST = [{"id": "1420"}, {"id": "3057"}]


# --- EPIC-KITCHENS-100
def epic_row(
    narration: str, start: str, stop: str, frames: tuple[int, int] | None, classes: tuple[int, int] | None
) -> dict[str, Any]:
    recording = narration.rsplit("_", 1)[0]
    row: dict[str, Any] = {
        "narration_id": narration,
        "participant_id": recording.split("_")[0],
        "video_id": recording,
        "narration_timestamp": start,
        "start_timestamp": start,
        "stop_timestamp": stop,
    }
    if frames is not None:
        row |= {"start_frame": frames[0], "stop_frame": frames[1]}
    row["narration"] = "open the door, gently"
    if classes is not None:
        row |= {"verb": "open", "verb_class": classes[0], "noun": "door", "noun_class": classes[1]}
    return row | {"all_nouns": "['door', 'cup']"}


# The times and frame numbers of the published files: 60 and 50 frames a second.
EPIC_VALIDATION = [
    epic_row("P01_11_0", "00:00:00.00", "00:00:01.89", (1, 113), (0, 2)),
    epic_row("P01_01_0", "00:00:00.14", "00:00:03.37", (8, 202), (3, 299)),
    epic_row("P02_101_7", "00:01:15.93", "00:01:18.21", (3796, 3910), (96, 0)),
]
EPIC_TEST = [
    epic_row("P01_101_1", "00:00:04.97", "00:00:05.75", (248, 287), None),
    epic_row("P01_101_7", "00:00:15.00", "00:00:16.12", (750, 806), None),
]


def without(rows: Sequence[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    return [{column: value for column, value in row.items() if column not in columns} for row in rows]


def write_pickle(path: Path, rows: Sequence[dict[str, Any]], text: Any = object, protocol: int = 4) -> Path:
    """A pickled table as the authors publish it: narration ids are the index, lists are lists."""
    import pandas as pd

    frame = pd.DataFrame(list(rows))
    columns = frame.select_dtypes(exclude="number").columns
    frame = frame.astype(dict.fromkeys(columns, text)).set_index("narration_id")
    frame["all_nouns"] = pd.Series([["door", "cup"]] * len(frame), index=frame.index, dtype=object)
    frame.to_pickle(path, protocol=protocol)
    return path


def write_frames(folder: Path, numbers: Sequence[int]) -> Path:
    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)).save(folder / f"frame_{number:010d}.jpg", quality=95)
    return folder
