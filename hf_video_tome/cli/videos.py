"""Videos of commands that need no labels: a folder of video files, or a dataset."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..merging.settings import SETTINGS
from .common import Dtype, InputError, input_errors, option_name
from .evaluation import ClipOptions, DataOptions, EvaluationRequest, VideoOptions, find_dataset, read_rows

if TYPE_CHECKING:
    from ..evaluation import Examples

VideosOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Folder with video files, also in subfolders.")
]


def videos_request(
    model: str,
    videos: Path | None,
    dataset: str | None,
    data: VideoOptions,
    sampling: ClipOptions,
    batch_size: int,
    workers: int,
    dtype: Dtype,
    seed: int,
) -> EvaluationRequest:
    """Returns the checked request for the videos; a folder of videos is sampled as class folders."""
    if (videos is None) == (dataset is None):
        raise InputError("either --videos or --dataset must be given")
    if videos is not None:
        for name, value in asdict(data).items():
            if value:
                raise InputError(f"{option_name(name)} has no effect with --videos")
        if not videos.is_dir():
            raise InputError(f"--videos {videos}: no such folder")
    request = EvaluationRequest(
        model=model,
        dataset=dataset or "class-folders",
        data=DataOptions(**asdict(data)),
        sampling=asdict(sampling),
        batch_size=batch_size,
        workers=workers,
        dtype=dtype,
        seed=seed,
    )
    if dataset is not None:
        find_dataset(request)
    return request


def find_videos(request: EvaluationRequest, videos: Path | None, limit: int) -> tuple[Examples, str]:
    """Returns the videos, and the option that names them."""
    from ..data.video_files import VideoFiles
    from ..evaluation import read_examples

    if videos is None:
        name, split = find_dataset(request)
        source = f"--dataset {name}, {split}"
        with input_errors(ValueError, OSError, ImportError, at=f"--dataset {name}"):
            return read_examples(read_rows(request.data, name, split), (), {}).spread(limit), source
    names = VideoFiles().tree(videos)
    if not names:
        raise InputError(f"--videos {videos}: no video file in it or its subfolders")
    rows = [{"video_id": name, "video": str(videos / name)} for name in names]
    return read_examples(rows, (), {}).spread(limit), f"--videos {videos}"


def settings_as_options(settings: Mapping[str, Any]) -> str:
    """Returns settings as options of the other commands.

    Examples:
        >>> settings_as_options({"r": [8, 4], "mode_options": {"window": 1}, "proportional_attention": False})
        '--r 8,4 --mode-options window=1 --no-proportional-attention'
    """
    words = []
    for name, value in settings.items():
        if value is None or not SETTINGS[name].is_option:
            continue
        if isinstance(value, bool):
            words.append(option_name(name) if value else f"--no-{option_name(name).removeprefix('--')}")
            continue
        if isinstance(value, Mapping):
            text = ",".join(f"{key}={it if isinstance(it, str) else json.dumps(it)}" for key, it in value.items())
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words.append(f"{option_name(name)} {shlex.quote(text)}")
    return " ".join(words)
