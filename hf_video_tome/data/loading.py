"""Loading of datasets by name, and their registry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .annotations import canonical_split

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class DatasetEntry:
    """Entry of the dataset registry.

    Attributes:
        name: Name of the dataset.
        builder: Module and class of its `datasets` builder, as in `"package.module:Class"`.
        homepage: Where to get it.
        license_note: Its terms in one sentence, as far as known here; the source is authoritative.
        evaluation_split: The split on which accuracy is usually measured.
        aliases: Other names.
        on_disk: Whether it must be in a `data_dir`; otherwise it is generated on demand.
    """

    name: str
    builder: str
    homepage: str
    license_note: str
    evaluation_split: str = "validation"
    aliases: tuple[str, ...] = ()
    on_disk: bool = True

    @property
    def builder_class(self) -> type[datasets.GeneratorBasedBuilder]:
        """The builder class; imports `datasets`."""
        module, _, name = self.builder.partition(":")
        return getattr(import_module(module), name)


DATASETS: Mapping[str, DatasetEntry] = MappingProxyType(
    {
        entry.name: entry
        for entry in (
            DatasetEntry(
                name="kinetics400",
                builder="hf_video_tome.data.builders.kinetics400:Kinetics400",
                homepage="https://github.com/cvdfoundation/kinetics-dataset",
                license_note="Annotations: CC BY 4.0. The videos belong to those who uploaded them to YouTube.",
                aliases=("kinetics-400", "k400"),
            ),
            DatasetEntry(
                name="something-something-v2",
                builder="hf_video_tome.data.builders.something_something_v2:SomethingSomethingV2",
                homepage="https://www.qualcomm.com/developer/software/something-something-v-2-dataset",
                license_note="Qualcomm's data licence agreement, which the download asks to accept.",
                aliases=("ssv2",),
            ),
            DatasetEntry(
                name="epic-kitchens-100",
                builder="hf_video_tome.data.builders.epic_kitchens_100:EpicKitchens100",
                homepage="https://epic-kitchens.github.io",
                license_note="CC BY-NC 4.0: no commercial use.",
                aliases=("epic-kitchens",),
            ),
            DatasetEntry(
                name="class-folders",
                builder="hf_video_tome.data.builders.class_folders:ClassFolders",
                homepage="",
                license_note="That of the videos.",
            ),
            DatasetEntry(
                name="moving-digits",
                builder="hf_video_tome.data.builders.moving_digits:MovingDigits",
                homepage="https://doi.org/10.24432/C50P49",
                license_note="CC BY 4.0 (the digits).",
                evaluation_split="test",
                on_disk=False,
            ),
        )
    }
)
"""Registered datasets by name."""


def canonical_name(name: str) -> str:
    """Returns the name of a dataset in `DATASETS`.

    Args:
        name: Its name or an alias, in any case, with `_` or `-`.

    Raises:
        ValueError: If the dataset is unknown; the message lists the names.

    Examples:
        >>> from hf_video_tome.data.loading import canonical_name
        >>> canonical_name("SSv2"), canonical_name("moving_digits")
        ('something-something-v2', 'moving-digits')
    """
    key = str(name).strip().lower().replace("_", "-")
    for entry in DATASETS.values():
        if key in (entry.name, *entry.aliases):
            return entry.name
    raise ValueError(f"name must be one of {', '.join(DATASETS)}, got {name!r}")


def load(
    name: str,
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    streaming: bool = False,
    annotations: str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict:
    """Loads a dataset by name.

    Nothing is downloaded. Rows are prepared once and cached by `datasets` under a key derived from the annotations and
    the files found, so that the next call sees any change. Videos are not decoded, and a missing video keeps its row.

    Args:
        name: A name or alias of `DATASETS`, in any case, with `_` or `-`.
        split: A split such as `"validation"` (also `"val"`), several (`"train+validation"`), a slice
            (`"validation[:100]"`, not with `streaming`), or None for a dictionary of all splits.
        data_dir: Folder of the dataset; `~` is the home folder.
        streaming: Generate rows as they are read, without a cache.
        annotations: The annotation file of the split, or a mapping from split to file; relative to `data_dir`. None
            looks for the usual names.
        cache_dir: Where `datasets` keeps the prepared rows; None uses its default cache.
        **kwargs: Further fields of the dataset's configuration, such as `labels="names.txt"` (Kinetics-400),
            `media="frames"` (EPIC-KITCHENS-100) or `num_test=120` and `config_name="vp9"` (Moving Digits).

    Returns:
        The rows: a `Dataset` or `IterableDataset` for a split, otherwise a dictionary of them.

    Raises:
        ValueError: If a name, an argument or a row of an annotation file is invalid; the message says which.
        FileNotFoundError: If the data folder or an annotation file is missing.

    Examples:
        >>> import tempfile
        >>> from hf_video_tome.data.loading import load
        >>> rows = load("moving-digits", "test", num_test=4, cache_dir=tempfile.mkdtemp())
        >>> rows[1]["video_id"], rows.features["label"].int2str(rows[1]["label"])
        ('test-000001-turn_ccw-7', 'turn_ccw 7')
    """
    entry = DATASETS[canonical_name(name)]
    options = dict(kwargs)
    if entry.on_disk:
        options["data_dir"] = data_dir if data_dir is None else os.fspath(data_dir)
        if not options["data_dir"]:
            raise ValueError(f"data_dir must be the folder of the dataset {entry.name!r}, got {data_dir!r}")
    elif data_dir is not None:
        raise ValueError(f"data_dir must be None for {entry.name!r}, which is made on demand, got {data_dir!r}")
    if annotations is not None:
        options["annotations"] = annotations
    if split is not None:
        split, names = _parse_split(str(split), streaming)
        if names is not None:
            options["splits"] = names
    builder_class = entry.builder_class
    _check_options(entry, builder_class, options)

    from datasets.exceptions import DatasetGenerationError

    builder = builder_class(cache_dir=None if cache_dir is None else os.fspath(cache_dir), **options)
    if streaming:
        return builder.as_streaming_dataset(split=split)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if error.__cause__ is None:
            raise
        # The actual reason, which `datasets` hides behind "an error occurred".
        raise error.__cause__ from None
    return builder.as_dataset(split=split)


def _parse_split(text: str, streaming: bool) -> tuple[str, tuple[str, ...] | None]:
    """Returns the split with canonical names, and these names (None for all)."""
    if text == "all":
        return text, None
    parts, names = [], []
    for part in text.split("+"):
        match = re.fullmatch(r"\s*(\w+)\s*(\[.*\](?:\(\w+\))?)?\s*", part)
        split = canonical_split(match[1]) if match else None
        if match is None or split is None:
            raise ValueError(
                f"split must be train, validation, test or a part of one such as validation[:100], got {text!r}"
            )
        if match[2] and streaming:
            raise ValueError(f"split must be whole with streaming=True, without {match[2]}, got {text!r}")
        parts.append(split + (match[2] or ""))
        names.append(split)
    return "+".join(parts), tuple(dict.fromkeys(names))


def _check_options(entry: DatasetEntry, builder_class: Any, options: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for an unknown option of a dataset."""
    from datasets import BuilderConfig

    base = {item.name for item in fields(BuilderConfig)}
    config_fields = {item.name for item in fields(builder_class.BUILDER_CONFIG_CLASS) if item.init}
    allowed = (config_fields - base) | {"data_dir"}
    if builder_class.BUILDER_CONFIGS:
        allowed.add("config_name")
    for name in options:
        if name not in allowed:
            listed = ", ".join(sorted(allowed - {"data_dir", "splits"})) or "none"
            raise ValueError(f"{name} is not an option of {entry.name!r}, which has {listed}")
