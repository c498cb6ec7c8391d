"""`datasets` builder for a local copy of Kinetics-400, from the official CSV files or plain lists."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from ..annotations import SPLIT_NAMES, UNLABELLED, Row, canonical_split, check_unique, read_table, read_text
from ..class_names import exact_spelling, without_punctuation
from ..label_names import read_label_names
from ..video_files import VideoFiles, subfolders, without_video_suffix
from .video_builder import AnnotatedVideoConfig, VideoBuilder, VideoTable

if TYPE_CHECKING:
    from pathlib import Path

_COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")
# The path is everything before the last separator: it may contain spaces and commas.
_LIST_LINE = re.compile(r"(?P<path>.*\S)\s*[\s,]\s*(?P<label>-?\d+)")


@dataclass(eq=False)
class Kinetics400Config(AnnotatedVideoConfig):
    """Configuration of `Kinetics400`.

    Attributes:
        data_dir: Folder of the dataset; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
        annotations: The annotation file of one split, or a mapping from split to file. A relative path is looked up
            in `data_dir`, then in the working directory. None looks for `train.csv`, `val.csv` (`validate.csv`),
            `test.csv` and the like in `data_dir` and its subfolders `annotations` and `kinetics400`.
        labels: A file with the class names in order: `.txt` (one per line), `.csv` (`id,name`) or `.json`. None uses
            the sorted labels of the official CSV files; a plain list then has class indices only.
    """

    labels: str | os.PathLike[str] | None = None

    FOLDERS: ClassVar[tuple[str, ...]] = ("", "annotations", "kinetics400")

    def usual_names(self, split: str) -> list[str]:
        """Returns the usual names of a split's annotation file."""
        prefixes = ("", "kinetics400_", "kinetics_400_", "kinetics-400_", "k400_")
        return [
            f"{prefix}{name}{suffix}"
            for suffix in (".csv", ".txt")
            for prefix in prefixes
            for name in SPLIT_NAMES[split]
        ]

    def read(self) -> VideoTable:
        """Reads the rows of the requested splits."""
        names = None if self.labels is None else read_label_names(self.file("labels", self.labels))
        clips: dict[str, list[_Clip]] = {}
        labels: set[str] = set()
        # All rows, even of splits not requested: together they determine the class indices.
        for split, path in self.annotation_files().items():
            read = _read_official(path, split) or _read_list(path, self.known_split(split, path), names)
            labels.update(clip.label for clip in read if isinstance(clip.label, str))
            kept = [clip for clip in read if split in (None, clip.split)]
            if not kept:
                raise ValueError(f"{path}: holds no row of the split {split}")
            for clip in kept:
                clips.setdefault(clip.split, []).append(clip)
        if names is None:
            names = sorted(labels) or None
        for split in self.wanted or ():
            if split not in clips:
                raise ValueError(f"split must be one of {', '.join(clips)} (in the annotations), got {split!r}")
        splits = {split: clips[split] for split in SPLIT_NAMES if split in (self.wanted or clips) and split in clips}
        indices = {name: index for index, name in enumerate(names or ())}
        files = VideoFiles()
        return VideoTable(
            columns={"label": datasets.ClassLabel(names=names) if names else datasets.Value("int64")},
            splits={split: _rows(found, self.root, split, indices, files) for split, found in splits.items()},
        )


class Kinetics400(VideoBuilder):
    r"""`datasets` builder for a local copy of Kinetics-400.

    Rows have the columns `video_id`, `video` (not decoded: `{"path": ..., "bytes": None}`; the expected path if the
    file is missing) and `label` (a `ClassLabel`, or a plain index if no names are known; -1 without a label).

    Videos are named `{youtube_id}_{start:06d}_{end:06d}` with any video suffix, in `{split}/` or `{split}/{label}/`;
    or they are listed in `path label_index` lines, relative to the data folder.

    Args:
        cache_dir: Where `datasets` keeps the prepared rows; None uses its default cache.
        data_dir: Folder of the dataset.
        **config_kwargs: Fields of `Kinetics400Config`.

    Raises:
        ValueError: If an argument or a row of an annotation file is invalid.
        FileNotFoundError: If the data folder or an annotation file is missing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hf_video_tome.data.builders.kinetics400 import Kinetics400
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "val.csv").write_text(
        ...     "label,youtube_id,time_start,time_end,split\nabseiling,0wR5jVB-WPk,417,427,validate\n"
        ... )
        >>> builder = Kinetics400(cache_dir=tempfile.mkdtemp(), data_dir=str(folder))
        >>> builder.download_and_prepare()
        >>> builder.as_dataset(split="validation")[0]["video_id"]
        '0wR5jVB-WPk_000417_000427'
    """

    BUILDER_CONFIG_CLASS = Kinetics400Config
    DATASET = "kinetics400"
    DESCRIPTION = "Clips of about 10 seconds from YouTube, each showing one of 400 human actions."
    CITATION = """@article{kay2017kinetics,
  title = {The Kinetics Human Action Video Dataset},
  author = {Kay, Will and Carreira, Joao and Simonyan, Karen and Zhang, Brian and Hillier, Chloe and others},
  journal = {arXiv preprint arXiv:1705.06950},
  year = {2017},
}"""


@dataclass(frozen=True)
class _Clip:
    """Line of an annotation file: class name or index, and the file's name or its path in the data folder."""

    where: str
    split: str
    label: str | int
    name: str
    listed: bool


def _read_official(path: Path, split: str | None) -> list[_Clip]:
    """Reads an official CSV file; returns an empty list for other formats."""
    lines = read_text(path).strip().splitlines()
    header = {cell.strip().strip('"') for cell in lines[0].split(",")} if lines else set()
    if len(header.intersection(_COLUMNS)) < 2:
        return []
    clips = []
    for row in read_table(path, ("youtube_id", "time_start", "time_end")):
        row_split = split if "split" not in row.values else canonical_split(row.text("split"))
        if row_split is None:
            if "split" not in row.values:
                raise ValueError(f"{path}: missing column split, and the split is not known otherwise")
            raise ValueError(
                f"{row.where}: split must be one of {', '.join(sum(SPLIT_NAMES.values(), ()))}, "
                f"got {row.values['split']!r}"
            )
        label: str | int = row.values.get("label", "")
        if not label:
            if row_split != "test":
                raise ValueError(f"{row.where}: label is empty; only the test split may lack labels")
            label = UNLABELLED
        clips.append(_Clip(row.where, row_split, label, _file_name(row), listed=False))
    return clips


def _file_name(row: Row) -> str:
    """Returns the file name of a clip, without suffix."""
    start, end = row.integer("time_start"), row.integer("time_end")
    if end <= start:
        raise ValueError(f"{row.where}: time_end must be greater than time_start, got {end} and {start}")
    return f"{row.text('youtube_id')}_{start:06d}_{end:06d}"


def _read_list(path: Path, split: str, names: list[str] | None) -> list[_Clip]:
    """Reads a plain list of `path label_index` lines."""
    clips = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        match = _LIST_LINE.fullmatch(line.strip())
        if match is not None:
            name, label = match["path"].rstrip(", \t").strip('"'), int(match["label"])
        elif split == "test" and without_video_suffix(line.strip()) is not None:
            name, label = line.strip().strip('"'), UNLABELLED
        else:
            raise ValueError(f"{where}: must be path label_index, separated by a space or a comma, got {line!r}")
        lowest = UNLABELLED if split == "test" else 0
        if label < lowest or (names is not None and label >= len(names)):
            allowed = f"of at least {lowest}" if names is None else f"in {lowest}..{len(names) - 1} (labels)"
            raise ValueError(f"{where}: the label index must be an integer {allowed}, got {label}")
        clips.append(_Clip(where, split, label, name, listed=True))
    if not clips:
        raise ValueError(f"{path}: holds no row")
    return clips


def _rows(
    clips: list[_Clip], root: Path, split: str, indices: dict[str, int], files: VideoFiles
) -> list[dict[str, Any]]:
    """Converts the clips of a split to rows."""
    check_unique((clip.name, clip.where) for clip in clips)
    folders = _SplitFolders(root, split, files)
    rows = []
    for clip in clips:
        if isinstance(clip.label, str) and clip.label not in indices:
            known = ", ".join(list(indices)[:3])
            raise ValueError(
                f"{clip.where}: unknown label {clip.label!r}; labels has {len(indices)} others, such as {known}"
            )
        label = indices[clip.label] if isinstance(clip.label, str) else clip.label
        if clip.listed:
            path = root / clip.name
            path = files.find(path.parent, path.name) or path
        else:
            path = folders.find(clip.name, clip.label if isinstance(clip.label, str) else None)
        rows.append({"video_id": clip.name, "video": str(path), "label": label})
    return rows


class _SplitFolders:
    """Lookup of a split's videos in `{split}/` or `{split}/{label}/`, with any spelling of the label."""

    def __init__(self, root: Path, split: str, files: VideoFiles) -> None:
        self.files = files
        self.folders = [root / name for name in SPLIT_NAMES[split] if (root / name).is_dir()]
        self.usual = self.folders[0] if self.folders else root / SPLIT_NAMES[split][0]
        self.by_label: dict[str, list[Path]] = {}
        for folder in self.folders:
            for subfolder in subfolders(folder):
                self.by_label.setdefault(self.key(subfolder.name), []).append(subfolder)

    @staticmethod
    def key(label: str) -> str:
        """Normalises a label: folders use underscores for spaces, and hyphens or nothing for brackets."""
        return re.sub("[ -]", "", without_punctuation(label))

    def find(self, name: str, label: str | None) -> Path:
        """Returns the path of a clip, even if it does not exist."""
        candidates = [] if label is None else self.by_label.get(self.key(label), [])
        candidates = sorted(candidates, key=lambda folder: exact_spelling(folder.name) != exact_spelling(label or ""))
        for folder in (*candidates, *self.folders):
            path = self.files.find(folder, name)
            if path is not None:
                return path
        if candidates:
            folder = candidates[0]
        else:
            folder = self.usual / label if self.by_label and label is not None else self.usual
        return folder / f"{name}.mp4"
