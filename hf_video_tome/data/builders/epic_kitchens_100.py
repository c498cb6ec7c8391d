"""`datasets` builder for a local copy of EPIC-KITCHENS-100: segments of long videos or of frame folders."""

from __future__ import annotations

import importlib
import math
import pickle
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import datasets

from ..annotations import UNLABELLED, Row, check_columns, check_unique, first_existing, read_table
from ..label_names import read_label_names
from ..video_files import VideoFiles
from .video_builder import AnnotatedVideoConfig, VideoBuilder, VideoTable

if TYPE_CHECKING:
    from pathlib import Path

NUM_VERBS = 97
"""Number of verb classes."""

NUM_NOUNS = 300
"""Number of noun classes."""

MEDIA: tuple[str, ...] = ("auto", "frames", "videos")
"""Values of `EpicKitchens100Config.media`."""

_SEGMENT_COLUMNS = ("participant_id", "video_id", "start_timestamp", "stop_timestamp")
_CLASS_COLUMNS = ("verb_class", "noun_class")
_TIMESTAMP = re.compile(r"(\d+):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_VIDEO_ID = re.compile(r"P\d+_(\d+)")

# All names in the pickle of a table of numbers and text, in old and new versions of pandas; each only creates data. A
# pickle with any other name, such as a function of `os`, is rejected before it is even imported.
_PICKLE_NAMES = {
    "__builtin__": "bytearray object slice",
    "_codecs": "encode",
    "builtins": "bytearray object slice",
    "copy_reg": "_reconstructor",
    "copyreg": "_reconstructor",
    "functools": "partial",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy.core.numeric": "_frombuffer",
    "pandas": "Categorical CategoricalDtype CategoricalIndex DataFrame Index RangeIndex StringDtype",
    "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
    "pandas._libs.internals": "_unpickle_block",
    "pandas.arrays": "ArrowStringArray",
    "pandas.core.arrays.categorical": "Categorical",
    "pandas.core.arrays.string_": "StringArray StringDtype",
    "pandas.core.arrays.string_arrow": "ArrowStringArray ArrowStringArrayNumpySemantics",
    "pandas.core.dtypes.dtypes": "CategoricalDtype",
    "pandas.core.frame": "DataFrame",
    "pandas.core.indexes.base": "Index _new_Index",
    "pandas.core.indexes.category": "CategoricalIndex",
    "pandas.core.indexes.numeric": "Float64Index Int64Index UInt64Index",
    "pandas.core.indexes.range": "RangeIndex",
    "pandas.core.internals.blocks": "new_block",
    "pandas.core.internals.managers": "BlockManager",
    "pyarrow.lib": "_restore_array chunked_array py_buffer type_for_alias",
}


@dataclass(eq=False)
class EpicKitchens100Config(AnnotatedVideoConfig):
    """Configuration of `EpicKitchens100`.

    Attributes:
        data_dir: Folder of the dataset, with the participants' folders (`P01`, ...) in it or in its subfolder
            `EPIC-KITCHENS`; `~` is the home folder.
        splits: Splits to read; None reads all available ones.
        annotations: The annotation file of one split (`.csv` or `.pkl`), or a mapping from split to file. A relative
            path is looked up in `data_dir`, then in the working directory. None looks for `EPIC_100_{split}.csv`
            (test: `EPIC_100_test_timestamps.csv`), then `.pkl`, in `data_dir` and its subfolders `annotations` and
            `epic-kitchens-100-annotations`.
        media: `"videos"` (`P01/videos/P01_01.MP4`), `"frames"` (`P01/rgb_frames/P01_01/`), or `"auto"`: the frame
            folder if it exists, otherwise the video.
    """

    media: str = "auto"

    FOLDERS: ClassVar[tuple[str, ...]] = ("", "annotations", "epic-kitchens-100-annotations")

    def usual_names(self, split: str) -> list[str]:
        """Returns the usual names of a split's annotation file."""
        stem = "EPIC_100_test_timestamps" if split == "test" else f"EPIC_100_{split}"
        return [f"{stem}.csv", f"{stem}.pkl"]

    def read(self) -> VideoTable:
        """Reads the rows of the requested splits."""
        if self.media not in MEDIA:
            raise ValueError(f"media must be one of {', '.join(MEDIA)}, got {self.media!r}")
        media = _MediaLookup(self.root, self.media)
        files = self.wanted_files()
        return VideoTable(
            columns={
                "verb": self._classes("verb", NUM_VERBS),
                "noun": self._classes("noun", NUM_NOUNS),
                "narration_id": datasets.Value("string"),
                "participant_id": datasets.Value("string"),
                "start_seconds": datasets.Value("float64"),
                "stop_seconds": datasets.Value("float64"),
                "start_frame": datasets.Value("int64"),
                "stop_frame": datasets.Value("int64"),
                "frames_per_second": datasets.Value("float64"),
            },
            splits={split: _read_split(path, split, media) for split, path in files.items()},
        )

    def _classes(self, kind: str, number: int) -> datasets.ClassLabel:
        """Returns the verb or noun classes, with their names if the names file exists."""
        path = first_existing(self.folders(), [f"EPIC_100_{kind}_classes.csv", f"EPIC_100_{kind}_classes_v2.csv"])
        if path is None:
            return datasets.ClassLabel(num_classes=number)
        names = read_label_names(path)
        if len(names) != number:
            raise ValueError(f"{path}: must hold the {number} {kind} classes, got {len(names)}")
        return datasets.ClassLabel(names=names)


class EpicKitchens100(VideoBuilder):
    r"""`datasets` builder for a local copy of EPIC-KITCHENS-100.

    Each row is a segment with the columns `video_id` (the unique narration id), `video` (not decoded:
    `{"path": ..., "bytes": None}`, the untrimmed video or its frame folder; the expected path if it is missing),
    `verb` and `noun` (97 and 300 classes; -1 in the unlabelled test split), `narration_id`, `participant_id`,
    `start_seconds`, `stop_seconds`, and `start_frame`, `stop_frame`: the numbers in the names of the frame files, from
    1, the last one exclusive.

    Args:
        cache_dir: Where `datasets` keeps the prepared rows; None uses its default cache.
        data_dir: Folder of the dataset.
        **config_kwargs: Fields of `EpicKitchens100Config`.

    Raises:
        ValueError: If an argument or a row of an annotation file is invalid.
        FileNotFoundError: If the data folder or an annotation file is missing.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hf_video_tome.data.builders.epic_kitchens_100 import EpicKitchens100
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "EPIC_100_validation.csv").write_text(
        ...     "narration_id,participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n"
        ...     "P01_11_0,P01,P01_11,00:00:00.00,00:00:01.89,0,2\n"
        ... )
        >>> builder = EpicKitchens100(cache_dir=tempfile.mkdtemp(), data_dir=str(folder))
        >>> builder.download_and_prepare()
        >>> row = builder.as_dataset(split="validation")[0]
        >>> row["verb"], row["noun"], row["start_frame"], row["stop_frame"]
        (0, 2, 1, 113)
    """

    BUILDER_CONFIG_CLASS = EpicKitchens100Config
    DATASET = "epic-kitchens-100"
    DESCRIPTION = (
        "Actions in kitchens, filmed from the actor's view: segments with one of 97 verbs and one of 300 nouns."
    )
    CITATION = """@article{damen2022rescaling,
  title = {Rescaling Egocentric Vision: Collection, Pipeline and Challenges for EPIC-KITCHENS-100},
  author = {Damen, Dima and Doughty, Hazel and Farinella, Giovanni Maria and Furnari, Antonino and others},
  journal = {International Journal of Computer Vision},
  volume = {130},
  pages = {33--55},
  year = {2022},
}"""


class _MediaLookup:
    """Lookup of videos and frame folders."""

    def __init__(self, root: Path, media: str) -> None:
        self.root = root / "EPIC-KITCHENS" if (root / "EPIC-KITCHENS").is_dir() else root
        self.media = media
        self.files = VideoFiles()
        self.found: dict[tuple[str, str], Path] = {}

    def find(self, participant: str, recording: str) -> Path:
        """Returns the path of a video or of its frames, even if it does not exist."""
        key = participant, recording
        if key not in self.found:
            frames = self.root / participant / "rgb_frames" / recording
            videos = self.root / participant / "videos"
            if self.media == "frames" or (self.media == "auto" and frames.is_dir()):
                self.found[key] = frames
            else:
                name = f"{recording}.MP4"
                self.found[key] = self.files.find(videos, name) or videos / name
        return self.found[key]


def _table_unpickler() -> type[pickle.Unpickler]:
    """Returns an unpickler class that only accepts tables."""
    base: Any
    try:
        # Reads pickles of older pandas versions; not a public name.
        base = importlib.import_module("pandas.compat.pickle_compat").Unpickler
    except (ImportError, AttributeError):
        base = pickle.Unpickler

    class TableUnpickler(base):
        def find_class(self, module: str, name: str) -> Any:
            if name not in _PICKLE_NAMES.get(module, "").split():
                raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a table")
            return super().find_class(module, name)

    return TableUnpickler


def read_pickled_table(path: Path) -> list[Row]:
    """Reads a pickled pandas table of numbers and text, without executing code from the file.

    Args:
        path: The `.pkl` file.

    Returns:
        The rows, all cells as text; a named index is a column too.

    Raises:
        ValueError: If the file is not such a table, or contains names that do not belong to one.
    """
    try:
        with path.open("rb") as file:
            frame = _table_unpickler()(file).load()
        if type(frame).__name__ != "DataFrame":
            raise ValueError(f"it holds a {type(frame).__name__}")
        frame.columns = [str(column) for column in frame.columns]  # a categorical index accepts no new column
        if any(name is not None and name not in frame.columns for name in frame.index.names):
            frame = frame.reset_index()
        columns = [str(column) for column in frame.columns]
        records = list(frame.itertuples(index=False, name=None))
    except Exception as error:  # a broken or hostile pickle can raise anything
        raise ValueError(f"{path}: not the pickle of a pandas table ({error}); use the .csv file") from None
    if not records:
        raise ValueError(f"{path}: holds no row")
    return [
        Row(f"{path}, row {number}", {column: _as_text(cell) for column, cell in zip(columns, record, strict=True)})
        for number, record in enumerate(records)
    ]


def _as_text(cell: object) -> str:
    """Returns a cell as in a CSV file: empty for a missing value."""
    missing = cell is None or (isinstance(cell, float) and math.isnan(cell))
    return "" if missing else str(cell).strip()


def _read_split(path: Path, split: str, media: _MediaLookup) -> list[dict[str, Any]]:
    """Reads the annotations of a split."""
    required = ("narration_id", *_SEGMENT_COLUMNS, *(() if split == "test" else _CLASS_COLUMNS))
    if path.suffix.lower() in (".pkl", ".pickle"):
        table = read_pickled_table(path)
        check_columns(path, list(table[0].values), required)
    else:
        table = read_table(path, required)
    rows = []
    for row in table:
        narration, participant, recording = (row.text(name) for name in ("narration_id", *_SEGMENT_COLUMNS[:2]))
        start, stop = _seconds(row, "start_timestamp"), _seconds(row, "stop_timestamp")
        start_frame, stop_frame = _frame(row, "start_frame", start), _frame(row, "stop_frame", stop)
        for name, first, last in (("timestamp", start, stop), ("frame", start_frame, stop_frame)):
            if last <= first:
                raise ValueError(
                    f"{row.where}: stop_{name} must be greater than start_{name}, got {float(last):g} and "
                    f"{float(first):g}"
                )
        labelled = split != "test" or all(row.values.get(name) for name in _CLASS_COLUMNS)
        rows.append(
            {
                "video_id": narration,
                "video": str(media.find(participant, recording)),
                "verb": row.integer("verb_class", maximum=NUM_VERBS - 1) if labelled else UNLABELLED,
                "noun": row.integer("noun_class", maximum=NUM_NOUNS - 1) if labelled else UNLABELLED,
                "narration_id": narration,
                "participant_id": participant,
                "start_seconds": float(start),
                "stop_seconds": float(stop),
                "start_frame": start_frame,
                "stop_frame": stop_frame,
                "frames_per_second": _frame_rate(recording),
            }
        )
    check_unique((row.text("narration_id"), row.where) for row in table)
    return rows


def _seconds(row: Row, column: str) -> Fraction:
    """Returns a time stamp such as `00:01:02.34` in seconds."""
    text = row.text(column)
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise ValueError(f"{row.where}: {column} must be a time such as 00:01:02.34, got {text!r}")
    hours, minutes, seconds = match.groups()
    return (int(hours) * 60 + int(minutes)) * 60 + Fraction(seconds)


def _frame(row: Row, column: str, seconds: Fraction) -> int:
    """Returns a frame number: the row's own, or the one derived from its time."""
    if row.values.get(column):
        return row.integer(column, minimum=1)
    recording = row.text("video_id")
    rate = _frame_rate(recording)
    if rate is None:
        raise ValueError(
            f"{row.where}: video_id must be like P01_01 or P01_101, which implies the frame rate, because "
            f"{column} is not given; got {recording!r}"
        )
    return max(1, math.floor(seconds * int(rate)))


def _frame_rate(recording: str) -> float | None:
    """Returns the frame rate at which a recording's frames were extracted, by its name."""
    match = _VIDEO_ID.fullmatch(recording)
    # The extension of 2020 (three digits) has 50 frames per second, the videos of 2018 have 60.
    return None if match is None else 50.0 if len(match[1]) == 3 else 60.0
