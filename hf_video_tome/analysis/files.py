"""Output files of an analysis: its data as CSV and JSON, with the conditions of the run."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from ..evaluation.journal import write_atomically
from ..version import __version__

RUN_FIELDS = (
    "model",
    "model_type",
    "dataset",
    "split",
    "num_videos",
    "videos",
    "weights",
    "sampling",
    "transform",
    "batch_size",
    "dtype",
    "mixed_precision",
    "device",
    "seed",
)
"""Fields of an evaluation's `run.json` that are conditions of its results."""


def versions() -> dict[str, str]:
    """Returns the versions of the packages that affect the results."""
    return {
        "hf-video-tome": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def model_name(name: str) -> str:
    """Returns the name of a model for files and figures: the last part of a folder's path, else the name unchanged.

    Examples:
        >>> model_name("./checkpoints/mine"), model_name("google/vivit-b-16x2-kinetics400")
        ('mine', 'google/vivit-b-16x2-kinetics400')
    """
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or name.startswith(".") or path.is_dir() else name


def conditions_of_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the conditions of an evaluation from its `run.json`, without paths."""
    known = {name: run[name] for name in RUN_FIELDS if name in run}
    if "model" in known:
        known["model"] = model_name(str(known["model"]))
    return known


def write_csv(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Writes a table.

    Args:
        path: Output file.
        rows: The rows, with the columns of the first. None is an empty cell, fractions have six digits.

    Returns:
        The path.
    """
    target, text = Path(path), io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
    write_atomically(target, text.getvalue())
    return target


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Writes an object as JSON; numbers that are not finite raise an error.

    Args:
        path: Output file.
        content: The object.

    Returns:
        The path.
    """
    target = Path(path)
    write_atomically(target, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return target
