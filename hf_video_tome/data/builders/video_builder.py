"""Base classes of the builders for local datasets: configuration, cache id and rows.

A configuration reads and checks all annotations before `datasets` generates anything: errors stay plain, and the id of
the prepared dataset is derived from the rows themselves, so that a stale cache is never used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from ..annotations import SPLIT_NAMES, absolute, canonical_split, first_existing
from ..loading import DATASETS

if TYPE_CHECKING:
    from pathlib import Path

# Number of parts into which a stream can be divided among data loader workers.
_NUM_SHARDS = 64


@dataclass(frozen=True)
class VideoTable:
    """Rows of a dataset.

    Attributes:
        columns: Features of the columns after `video_id` and `video`.
        splits: Rows by split, each a mapping from column to value; `video` is an absolute path.
    """

    columns: dict[str, Any]
    splits: dict[str, list[dict[str, Any]]]

    def digest(self) -> str:
        """Returns a short digest of the table."""
        digest = hashlib.sha256(repr(self.columns).encode())
        for split, rows in sorted(self.splits.items()):
            digest.update(f"{split} {len(rows)}".encode())
            for row in rows:
                digest.update(json.dumps(row, sort_keys=True).encode())
        return digest.hexdigest()[:16]


@dataclass(eq=False)
class VideoConfig(datasets.BuilderConfig):
    """Configuration of a local dataset.

    Attributes:
        data_dir: Folder of the dataset; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
    """

    splits: Sequence[str] | None = None
    _table: VideoTable | None = field(default=None, init=False, repr=False)

    @property
    def root(self) -> Path:
        """The absolute path of the data folder."""
        if not isinstance(self.data_dir, (str, os.PathLike)) or not str(self.data_dir):
            raise ValueError(f"data_dir must be the folder of the dataset, got {self.data_dir!r}")
        root = absolute(self.data_dir)
        if not root.is_dir():
            # As it was given: a `Path` takes a slash out of a URL.
            raise FileNotFoundError(f"data_dir: there is no folder {os.fspath(self.data_dir)!r}")
        return root

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The canonical names of the splits to read; None for all."""
        if self.splits is None:
            return None
        names = [self.splits] if isinstance(self.splits, str) else list(self.splits)
        if not names:
            raise ValueError("splits must name at least one split, got none")
        return tuple(dict.fromkeys(self.split_name("split", name) for name in names))

    @staticmethod
    def split_name(argument: str, name: object) -> str:
        """Returns the canonical name of a split; a `ValueError` names the argument."""
        split = canonical_split(name)
        if split is None:
            raise ValueError(f"{argument} must be one of {', '.join(SPLIT_NAMES)}, got {name!r}")
        return split

    def table(self) -> VideoTable:
        """Returns the rows, read and checked on the first call."""
        if self._table is None:
            self._table = self.read()
        return self._table

    def read(self) -> VideoTable:
        """Reads the rows of the requested splits."""
        raise NotImplementedError

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: datasets.Features | None = None) -> str:
        """Returns the name of the cache folder, derived from the rows rather than from the arguments."""
        digest = self.table().digest()
        if custom_features is not None:
            digest = hashlib.sha256(f"{digest} {custom_features!r}".encode()).hexdigest()[:16]
        return f"{self.name}-{digest}"


@dataclass(eq=False)
class AnnotatedVideoConfig(VideoConfig):
    """Configuration of a local dataset with annotation files.

    Attributes:
        data_dir: Folder of the dataset; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
        annotations: The annotation file of one split, or a mapping from split to file. A relative path is looked up
            in `data_dir`, then in the working directory. None looks for the usual names.
    """

    annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | None = None

    # Usual subfolders for annotation files.
    FOLDERS: ClassVar[tuple[str, ...]] = ("", "annotations")

    def usual_names(self, split: str) -> list[str]:
        """Returns the usual names of a split's annotation file, in the order of precedence."""
        raise NotImplementedError

    def folders(self) -> list[Path]:
        """Returns the folders that may contain annotation files."""
        return [self.root / name for name in self.FOLDERS]

    def file(self, argument: str, path: object) -> Path:
        """Returns the absolute path of a file named by an argument."""
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"{argument} must be the path of a file, got {path!r}")
        expanded = os.path.expanduser(path)
        for candidate in (self.root / expanded, absolute(expanded)):
            if candidate.is_file():
                return candidate
        raise FileNotFoundError(f"{argument}: there is no file {os.fspath(path)!r}, neither in {str(self.root)!r}")

    def annotation_files(self) -> dict[str | None, Path]:
        """Returns the existing annotation files by split; the split is None for a single file of unknown split."""
        if self.annotations is None:
            found = {split: first_existing(self.folders(), self.usual_names(split)) for split in SPLIT_NAMES}
            files: dict[str | None, Path] = {split: path for split, path in found.items() if path is not None}
            missing = [split for split in self.wanted or () if split not in files] if files else list(SPLIT_NAMES)
            if missing:
                looked_for = "; ".join(f"{split}: {', '.join(self.usual_names(split))}" for split in missing)
                raise FileNotFoundError(
                    f"annotations: no annotation file in {str(self.root)!r} or its folders "
                    f"{', '.join(name for name in self.FOLDERS if name)}; looked for {looked_for}"
                )
            return files
        if isinstance(self.annotations, Mapping):
            if not self.annotations:
                raise ValueError("annotations must name at least one file, got an empty mapping")
            files = {
                self.split_name("annotations", split): self.file("annotations", path)
                for split, path in self.annotations.items()
            }
            for split in self.wanted or ():
                if split not in files:
                    raise ValueError(f"split must be one of {', '.join(map(str, files))}, got {split!r}")
            return files
        path = self.file("annotations", self.annotations)
        if self.wanted is not None and len(self.wanted) == 1:
            return {self.wanted[0]: path}
        words = path.stem.lower().replace("-", "_").replace(".", "_").split("_")
        guesses = {split for split in map(canonical_split, words) if split is not None}
        return {guesses.pop() if len(guesses) == 1 else None: path}

    def wanted_files(self) -> dict[str, Path]:
        """Returns the annotation files of the requested splits, for formats without a split column."""
        files = {self.known_split(split, path): path for split, path in self.annotation_files().items()}
        return {split: path for split, path in files.items() if self.wanted is None or split in self.wanted}

    @staticmethod
    def known_split(split: str | None, path: Path) -> str:
        """Returns the split; raises a `ValueError` for a file of unknown split."""
        if split is None:
            raise ValueError(
                f"annotations: the split of {str(path)!r} is unknown; request a single split, or give a mapping "
                f"such as {{'validation': {path.name!r}}}"
            )
        return split


class VideoBuilder(datasets.GeneratorBasedBuilder):
    """Base class of builders whose rows come from the configuration's table."""

    VERSION = datasets.Version("1.0.0")
    # The dataset's name in `loading.DATASETS`, its description and citation.
    DATASET: ClassVar[str]
    DESCRIPTION: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""

    def _info(self) -> datasets.DatasetInfo:
        entry = DATASETS[self.DATASET]
        return datasets.DatasetInfo(
            description=self.DESCRIPTION,
            citation=self.CITATION,
            homepage=entry.homepage,
            license=entry.license_note,
            features=datasets.Features(
                {
                    "video_id": datasets.Value("string"),
                    "video": datasets.Video(decode=False),
                    **self.config.table().columns,
                }
            ),
        )

    def download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        """Writes the rows to the cache.

        Raises:
            ValueError: If a file name is not UTF-8.
        """
        for rows in self.config.table().splits.values():
            for row in rows:
                try:
                    row["video"].encode()
                except UnicodeEncodeError:
                    shown = os.fsencode(row["video"]).decode(errors="backslashreplace")
                    raise ValueError(
                        f"{shown}: its name is not UTF-8, which the cache of datasets requires; rename it, or "
                        "load with streaming=True"
                    ) from None
        super().download_and_prepare(*args, **kwargs)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        generators = []
        for split, rows in self.config.table().splits.items():
            step = -(-len(rows) // _NUM_SHARDS)
            # `datasets` treats a list as shards.
            ranges = [(start, min(start + step, len(rows))) for start in range(0, len(rows), step)]
            generators.append(datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "ranges": ranges}))
        return generators

    def _generate_examples(self, split: str, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, dict[str, Any]]]:
        rows = self.config.table().splits[split]
        for start, stop in ranges:
            for index in range(start, stop):
                yield index, rows[index]
