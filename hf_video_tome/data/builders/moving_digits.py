"""`datasets` builder for Moving Digits: splits of video files with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from ..moving_digits import ACTIONS, NOUNS, SPLITS, VARIANTS, VERBS, VERSION, write_clips

# Version of the rows, besides that of the rendering: `datasets` must not reuse rows with other columns.
_ROWS_VERSION = "1.1.0"

_DESCRIPTION = (
    "Synthetic motion of real handwritten digits: 12 verbs x 10 digits = 120 actions, 16 frames of 48 x 48 pixels. "
    "Five pairs of verbs are exact time reversals of each other, so no single frame distinguishes them."
)
_CITATION = """@misc{alpaydin1998optical,
  title = {Optical Recognition of Handwritten Digits},
  author = {Alpaydin, E. and Kaynak, C.},
  year = {1998},
  publisher = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49},
}"""


@dataclass
class MovingDigitsBuilderConfig(datasets.BuilderConfig):
    """Configuration of `MovingDigits`.

    Attributes:
        num_train: Number of training clips, >= 0. A split of 0 clips is omitted.
        num_validation: Number of validation clips, >= 0.
        num_test: Number of test clips, >= 0; a multiple of 120 contains every action equally often.
        seed: Seed of the clips, >= 0.
        splits: Splits to generate; None generates all of them.
    """

    num_train: int = 1200
    num_validation: int = 120
    num_test: int = 480
    seed: int = 0
    splits: Sequence[str] | None = None

    def validate(self) -> None:
        """Checks that all fields are in range; a `ValueError` names the field."""
        for name in ("num_train", "num_validation", "num_test", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
        for split in self.splits or ():
            if split not in SPLITS:
                raise ValueError(f"splits must be names of {', '.join(SPLITS)}, got {split!r}")
            if not self.num_clips(split):
                raise ValueError(f"num_{split} must be at least 1 if the split {split} is requested, got 0")

    def num_clips(self, split: str) -> int:
        """Returns the number of clips of a split."""
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]


class MovingDigits(datasets.GeneratorBasedBuilder):
    """`datasets` builder for Moving Digits.

    The video files are rendered and encoded into the cache directory, in about 10 ms per clip. Rows have the columns
    `video_id`, `video` (not decoded: `{"path": ..., "bytes": None}`, with the absolute path), `label` (the action, 120
    classes), `verb` (12 classes) and `noun` (10 classes).

    Args:
        cache_dir: Where the dataset and the video files are stored; None uses the default cache of `datasets`.
        config_name: A name from `moving_digits.VARIANTS`; `"standard"` by default.
        **config_kwargs: Fields of `MovingDigitsBuilderConfig`.

    Examples:
        >>> import tempfile
        >>> from hf_video_tome.data.builders.moving_digits import MovingDigits
        >>> builder = MovingDigits(cache_dir=tempfile.mkdtemp(), num_train=0, num_validation=0, num_test=4)
        >>> builder.download_and_prepare()
        >>> test = builder.as_dataset(split="test")
        >>> test.features["label"].int2str(test[1]["label"])
        'turn_ccw 7'
    """

    VERSION = datasets.Version(_ROWS_VERSION)
    BUILDER_CONFIG_CLASS = MovingDigitsBuilderConfig
    BUILDER_CONFIGS = [  # noqa: RUF012 - the base class declares it without ClassVar
        MovingDigitsBuilderConfig(name=name, version=datasets.Version(_ROWS_VERSION)) for name in VARIANTS
    ]
    DEFAULT_CONFIG_NAME = "standard"

    def _info(self) -> datasets.DatasetInfo:
        # Not in `__post_init__`: `datasets` sets the fields one by one on a copy of a named config.
        self.config.validate()
        return datasets.DatasetInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            license="CC BY 4.0 (the digits)",
            features=datasets.Features(
                {
                    "video_id": datasets.Value("string"),
                    "video": datasets.Video(decode=False),
                    "label": datasets.ClassLabel(names=list(ACTIONS)),
                    "verb": datasets.ClassLabel(names=list(VERBS)),
                    "noun": datasets.ClassLabel(names=list(NOUNS)),
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split, "num_clips": self.config.num_clips(split)})
            for split in SPLITS
            if self.config.num_clips(split) and (self.config.splits is None or split in self.config.splits)
        ]

    def _generate_examples(self, split: str, num_clips: int) -> Iterator[tuple[int, dict[str, Any]]]:
        # Not inside the builder's own folder: `datasets` prepares it under a temporary name and renames it at the end.
        folder = (
            Path(self._cache_dir_root)
            / "moving_digits_videos"
            / f"{self.config.name}-seed{self.config.seed}-{VERSION}"
        )
        config = VARIANTS[self.config.name]
        for index in range(num_clips):
            ((path, label),) = write_clips(folder / split, split, [index], config, self.config.seed)
            yield (
                index,
                {
                    "video_id": path.stem,
                    "video": str(path),
                    "label": label.action,
                    "verb": label.verb,
                    "noun": label.noun,
                },
            )
