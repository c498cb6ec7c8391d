"""A tiny classifier and videos for it, some of which cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from hf_video_tome.data.video.encoding import write_video

SIZE, FRAMES, LABELS = 32, 8, 5
NAMES = ["running", "walking", "jumping", "standing still", "waving hands"]
PROCESSOR = {
    "image_processor_type": "VideoMAEImageProcessor",
    "size": {"shortest_edge": SIZE},
    "crop_size": {"height": SIZE, "width": SIZE},
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.2, 0.2],
}
NUM_VIDEOS = 13
UNREADABLE = {2: "missing", 7: "empty", 8: "text"}


def make_model(**changes: Any) -> transformers.PreTrainedModel:
    """A tiny VideoMAE with random weights, large enough that the answers differ between clips."""
    torch.manual_seed(0)
    fields = {
        "id2label": dict(enumerate(NAMES)),
        "image_size": SIZE,
        "num_frames": FRAMES,
        "patch_size": 8,
        "tubelet_size": 2,
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 0.5,
        **changes,
    }
    return transformers.VideoMAEForVideoClassification(transformers.VideoMAEConfig(**fields))


def save_checkpoint(folder: Path, **changes: Any) -> Path:
    make_model(**changes).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder as plain transformers saves it."""
    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 videos in folders named like their classes: two of them cannot be read, one is not there."""
    root = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for number in range(NUM_VIDEOS):
        folder = root / "test" / NAMES[number % LABELS].replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        texture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        frames = np.stack([np.roll(texture, (number % 3) * shift, axis=1) for shift in range(20 + number)])
        path = folder / f"clip_{number:02d}.mp4"
        if UNREADABLE.get(number) == "empty":
            path.touch()
        elif UNREADABLE.get(number) == "text":
            path.write_text("not a video")
        elif UNREADABLE.get(number) != "missing":
            write_video(path, frames, 10)
    return root


@pytest.fixture
def readable(class_folders: Path, tmp_path: Path) -> Path:
    """The class folders without the files that cannot be read."""
    for source in class_folders.glob("test/*/*.mp4"):
        if source.stat().st_size > 100:
            folder = tmp_path / "data" / "test" / source.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / source.name).symlink_to(source)
    return tmp_path / "data"


@pytest.fixture(scope="session")
def rows(class_folders: Path) -> list[dict[str, Any]]:
    """The same videos as rows, by number."""
    rows = []
    for number in range(NUM_VIDEOS):
        path = class_folders / "test" / NAMES[number % LABELS].replace(" ", "_") / f"clip_{number:02d}.mp4"
        video = {"path": str(path), "bytes": None}
        rows.append({"video_id": path.stem, "video": video, "label": number % LABELS})
    return rows
