"""`datasets` builder for a folder of class folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import datasets

from ..annotations import SPLIT_NAMES, canonical_split
from ..groups import Groups, split_by_group
from ..video_files import VideoFiles, check_links, subfolders
from .video_builder import VideoBuilder, VideoConfig, VideoTable

if TYPE_CHECKING:
    from pathlib import Path

# Merging needs no training: plain class folders are meant for evaluation.
_ONLY_SPLIT = "validation"


@dataclass(eq=False)
class ClassFoldersConfig(VideoConfig):
    """Configuration of `ClassFolders`.

    Attributes:
        data_dir: Folder with class folders, or with split folders of class folders; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
        group_by: Regular expression for the group of a video, such as the person in it, in its `video_id`
            (`{class}/{file}`); the videos are then split by group. Split folders are joined first.
        validation_groups: Groups of the validation split: names (a list, or comma-separated), or a share.
        test_groups: Groups of the test split, likewise.
        group_seed: Seed for drawing shares.
    """

    group_by: str | None = None
    validation_groups: Groups = None
    test_groups: Groups = None
    group_seed: int = 0

    def read(self) -> VideoTable:
        """Lists the videos of the requested splits."""
        files = VideoFiles()
        found = _split_folders(self.root, files)
        if self.group_by is None:
            for field in ("validation_groups", "test_groups"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} needs group_by, got {getattr(self, field)!r} without it")
            self._check_wanted(found)
        # From all splits, even those not requested: together they determine the class indices.
        names = sorted({path.name for classes in found.values() for path in classes})
        indices = {name: index for index, name in enumerate(names)}
        splits: dict[str, list[dict[str, object]]] = {}
        for split in found if self.group_by is not None else self.wanted or found:
            rows = splits.setdefault(split, [])
            for folder in found[split]:
                videos = files.tree(folder)
                if not videos:
                    raise ValueError(f"data_dir: the class folder {str(folder)!r} holds no video file")
                if len(names) == 1 and not files.names(folder) and len(subfolders(folder)) > 1:
                    raise ValueError(
                        f"data_dir: the only class folder {str(folder)!r} holds nothing but folders; if these are "
                        "the classes, pass that folder"
                    )
                rows.extend(
                    {
                        "video_id": f"{folder.name}/{name}",
                        "video": str(folder / name),
                        "label": indices[folder.name],
                    }
                    for name in videos
                )
        if self.group_by is not None:
            rows = _joined(splits)
            splits = split_by_group(rows, self.group_by, self.validation_groups, self.test_groups, self.group_seed)
            self._check_wanted(splits)
            splits = {split: splits[split] for split in self.wanted or splits}
        return VideoTable(columns={"label": datasets.ClassLabel(names=names)}, splits=splits)

    def _check_wanted(self, found: Iterable[str]) -> None:
        for split in self.wanted or ():
            if split not in found:
                raise ValueError(f"split must be one of {', '.join(found)} (in {str(self.root)!r}), got {split!r}")


def _joined(splits: Mapping[str, list[dict[str, object]]]) -> list[dict[str, object]]:
    """Returns the rows of all splits; a `video_id` that occurs in several is prefixed with the split."""
    counts = Counter(row["video_id"] for part in splits.values() for row in part)
    return [
        {**row, "video_id": f"{split}/{row['video_id']}"} if counts[row["video_id"]] > 1 else row
        for split, part in splits.items()
        for row in part
    ]


class ClassFolders(VideoBuilder):
    """`datasets` builder for videos in the form `{class}/{file}` or `{split}/{class}/{file}`.

    Rows have the columns `video_id` (`{class}/{file}`), `video` (not decoded: `{"path": ..., "bytes": None}`) and
    `label`: the classes are the sorted names of the class folders of all splits. Without split folders there is one
    split, `validation`. Videos in subfolders of a class folder belong to that class, with a `video_id` such as
    `{class}/{group}/{file}`. Hidden files and files without a video suffix are skipped; a broken link with a video
    suffix counts as an unreadable video.

    Args:
        cache_dir: Where `datasets` keeps the prepared rows; None uses its default cache.
        data_dir: The folder.
        **config_kwargs: Fields of `ClassFoldersConfig`.

    Raises:
        ValueError: If there is no class folder, an empty one, or a video outside of class folders.
        FileNotFoundError: If the folder is missing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hf_video_tome.data.builders.class_folders import ClassFolders
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("jump", "run"):
        ...     (folder / name).mkdir()
        ...     _ = write_video(folder / name / "0.mp4", np.zeros((4, 32, 32, 3), dtype=np.uint8), fps=8)
        >>> builder = ClassFolders(cache_dir=tempfile.mkdtemp(), data_dir=str(folder))
        >>> builder.download_and_prepare()
        >>> builder.as_dataset(split="validation")["video_id"][:]
        ['jump/0.mp4', 'run/0.mp4']
    """

    BUILDER_CONFIG_CLASS = ClassFoldersConfig
    DATASET = "class-folders"
    DESCRIPTION = "Video files in class folders."


def _split_folders(root: Path, files: VideoFiles) -> dict[str, list[Path]]:
    """Returns the class folders of each split."""
    folders = subfolders(root)
    # A class may be called "train" (the vehicle): only a folder of folders is a split.
    splits = {path: classes for path in folders if canonical_split(path.name) and (classes := subfolders(path))}
    for parent in (root, *splits):
        check_links(parent)
        if stray := files.names(parent):
            raise ValueError(
                f"data_dir: {str(parent)!r} holds {len(stray)} video{'s' if len(stray) > 1 else ''} outside of its "
                f"class folders, such as {stray[0]!r}"
            )
    if not splits:
        if not folders:
            raise ValueError(f"data_dir: no class folder in {str(root)!r}")
        return {_ONLY_SPLIT: folders}
    for path in folders:
        if path in splits:
            continue
        videos = files.tree(path)
        if videos or canonical_split(path.name):
            raise ValueError(
                f"data_dir: {str(root)!r} has split folders ({', '.join(split.name for split in splits)}), but "
                f"{path.name!r} beside them holds no class folder of a split ({len(videos)} "
                f"video{'' if len(videos) == 1 else 's'} in it)"
            )
    found: dict[str, list[Path]] = {}
    for split in SPLIT_NAMES:
        same = [path for path in splits if canonical_split(path.name) == split]
        if len(same) > 1:
            raise ValueError(f"data_dir: {str(same[0])!r} and {str(same[1])!r} are both the split {split}")
        if same:
            found[split] = splits[same[0]]
    return found
