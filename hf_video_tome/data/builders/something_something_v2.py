"""`datasets` builder for a local copy of Something-Something v2."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from ..annotations import UNLABELLED, check_unique, first_existing, read_json
from ..label_names import read_label_names
from ..video_files import VideoFiles
from .video_builder import AnnotatedVideoConfig, VideoBuilder, VideoTable

if TYPE_CHECKING:
    from pathlib import Path

_VIDEO_FOLDERS = ("20bn-something-something-v2", "videos", "")
_PREFIX = "something-something-v2-"


@dataclass(eq=False)
class SomethingSomethingV2Config(AnnotatedVideoConfig):
    """Configuration of `SomethingSomethingV2`.

    Attributes:
        data_dir: Folder of the dataset; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
        annotations: The annotation file of one split, or a mapping from split to file. A relative path is looked up
            in `data_dir`, then in the working directory. None looks for `something-something-v2-{split}.json` and
            `{split}.json` in `data_dir` and its subfolders `labels` and `annotations`.
        labels: The class file, `{template: "index"}`, with or without brackets. None looks for
            `something-something-v2-labels.json` and `labels.json` in the same folders.
    """

    labels: str | os.PathLike[str] | None = None

    FOLDERS: ClassVar[tuple[str, ...]] = ("", "labels", "annotations")

    def usual_names(self, split: str) -> list[str]:
        """Returns the usual names of a split's annotation file."""
        return [f"{_PREFIX}{split}.json", f"{split}.json"]

    def read(self) -> VideoTable:
        """Reads the rows of the requested splits."""
        files = self.wanted_files()
        if self.labels is not None:
            labels: Path | None = self.file("labels", self.labels)
        else:
            labels = first_existing(self.folders(), self.usual_names("labels"))
        if labels is None:
            raise FileNotFoundError(
                f"labels: no {' or '.join(self.usual_names('labels'))} in {str(self.root)!r} or its folders "
                f"{', '.join(name for name in self.FOLDERS if name)}"
            )
        # The templates in the labels file may have brackets too.
        names = [_without_brackets(name) for name in read_label_names(labels, keys="name")]
        check_unique((name, f"{labels}, class {index}") for index, name in enumerate(names))
        indices = {name: index for index, name in enumerate(names)}
        videos = _VideoLookup(self.root)
        return VideoTable(
            columns={"label": datasets.ClassLabel(names=names)},
            splits={split: _read_split(path, split, indices, labels, videos) for split, path in files.items()},
        )


class SomethingSomethingV2(VideoBuilder):
    """`datasets` builder for a local copy of Something-Something v2.

    Rows have the columns `video_id`, `video` (not decoded: `{"path": ..., "bytes": None}`; the expected path if the
    file is missing) and `label` (174 classes, the templates without brackets; -1 in the unlabelled test split).

    Args:
        cache_dir: Where `datasets` keeps the prepared rows; None uses its default cache.
        data_dir: Folder of the dataset.
        **config_kwargs: Fields of `SomethingSomethingV2Config`.

    Raises:
        ValueError: If an argument or an entry of an annotation file is invalid.
        FileNotFoundError: If the data folder or an annotation file is missing.

    Examples:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from hf_video_tome.data.builders.something_something_v2 import SomethingSomethingV2
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "labels.json").write_text(json.dumps({"Folding something": "0", "Holding something": "1"}))
        >>> entry = {"id": "74225", "label": "holding a cup", "template": "Holding [something]"}
        >>> _ = (folder / "validation.json").write_text(json.dumps([{**entry, "placeholders": ["a cup"]}]))
        >>> builder = SomethingSomethingV2(cache_dir=tempfile.mkdtemp(), data_dir=str(folder))
        >>> builder.download_and_prepare()
        >>> rows = builder.as_dataset(split="validation")
        >>> rows[0]["video_id"], rows.features["label"].int2str(rows[0]["label"])
        ('74225', 'Holding something')
    """

    BUILDER_CONFIG_CLASS = SomethingSomethingV2Config
    DATASET = "something-something-v2"
    DESCRIPTION = "Short clips of people handling everyday objects: 174 classes that need temporal information."
    CITATION = """@inproceedings{goyal2017something,
  title = {The "something something" video database for learning and evaluating visual common sense},
  author = {Goyal, Raghav and Ebrahimi Kahou, Samira and Michalski, Vincent and Materzynska, Joanna and others},
  booktitle = {ICCV},
  year = {2017},
}"""


class _VideoLookup:
    """Lookup of videos: `{id}.webm` in one of the usual folders, or another suffix after a conversion."""

    def __init__(self, root: Path) -> None:
        self.files = VideoFiles()
        self.folders = [root / name for name in _VIDEO_FOLDERS]
        self.usual = next((folder for folder in self.folders[:-1] if folder.is_dir()), self.folders[0])

    def find(self, identifier: str) -> Path:
        """Returns the path of a video, even if it does not exist."""
        name = f"{identifier}.webm"
        found = (self.files.find(folder, name) for folder in self.folders)
        return next((path for path in found if path is not None), self.usual / name)


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "").strip()


def _read_split(
    path: Path, split: str, indices: dict[str, int], labels: Path, videos: _VideoLookup
) -> list[dict[str, Any]]:
    """Reads the annotations of a split."""
    entries = read_json(path)
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path}: must hold a list of entries such as {{'id': ..., 'template': ...}}, none given")
    rows = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not str(entry.get("id") or "").strip():
            raise ValueError(f"{where}: must have an id, got {entry!r}")
        identifier, template = str(entry["id"]).strip(), entry.get("template")
        if template is None and split == "test":
            label = UNLABELLED
        elif not isinstance(template, str):
            raise ValueError(f"{where} (id {identifier}): template must be text, got {template!r}")
        else:
            name = _without_brackets(template)
            if name not in indices:
                raise ValueError(
                    f"{where} (id {identifier}): unknown template {template!r}; {labels} has {len(indices)} others"
                )
            label = indices[name]
        rows.append({"video_id": identifier, "video": str(videos.find(identifier)), "label": label})
    check_unique((str(row["video_id"]), f"{path}, entry {number}") for number, row in enumerate(rows, start=1))
    return rows
