"""Reads files of original training code, without running any code from them."""

from __future__ import annotations

import argparse
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from .state_dict import ConversionError

STATE_DICT_KEYS = ("model_state", "model", "module", "state_dict")
"""Entries with the weights in files that contain more than weights."""

_MAX_DEPTH = 8  # nested entries; a pickle may contain a dictionary that contains itself

_TRAINING_STATE = {
    "optimizer": "state of the optimizer",
    "optimizer_state": "state of the optimizer",
    "optimizer_state_dict": "state of the optimizer",
    "lr_scheduler": "state of the learning rate schedule",
    "scheduler": "state of the learning rate schedule",
    "scaler": "state of the loss scaling",
    "scaler_state": "state of the loss scaling",
    "args": "settings of the training",
    "cfg": "settings of the training",
    "config": "settings of the training",
    "epoch": "progress of the training",
}


@dataclass(frozen=True)
class OriginalCheckpoint:
    """Content of a file saved by original training code.

    Attributes:
        state_dict: The weights by their original names.
        unused: Description of every other entry, by name.
        settings: Settings of the training, if the file has them as `args`.
    """

    state_dict: dict[str, Any]
    unused: dict[str, str]
    settings: dict[str, Any]


class _Ignored:
    """Replaces a numpy number or array in a pickle: accepts any arguments and ignores them."""

    def __new__(cls, *_: Any) -> _Ignored:
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


ALLOWED_GLOBALS: dict[str, type] = {
    "argparse.Namespace": argparse.Namespace,
    **{
        f"numpy.{name}": _Ignored
        for name in (
            "dtype",
            "ndarray",
            *(f"{module}.multiarray.{name}" for module in ("core", "_core") for name in ("scalar", "_reconstruct")),
        )
    },
}
"""Names that a pickle may contain beyond those that torch allows with `weights_only=True`, and their replacements.

None of them runs any code. `argparse.Namespace` only holds values. Numbers and arrays of numpy (usually a best
accuracy) are replaced by an empty object, so that no numpy code processes the file.
"""


@contextmanager
def _allowed_globals() -> Iterator[None]:
    with torch.serialization.safe_globals([(value, name) for name, value in ALLOWED_GLOBALS.items()]):
        yield


def load_original_checkpoint(path: str | Path, key: str | None = None) -> OriginalCheckpoint:
    """Reads a file with weights; never runs code from it.

    Args:
        path: A file written by `torch.save` (.pth, .pyth, .pt, ...) or a .safetensors file.
        key: The entry with the weights if the file has several; dots separate nested entries.

    Returns:
        The weights and the other content.

    Raises:
        ConversionError: If the file cannot be read, contains more than data, or has no weights.
        OSError: If the file does not exist.
    """
    path = Path(path)
    if path.is_dir():
        raise ConversionError(f"{path} is a folder: a file is needed")
    content: Any = _load_safetensors(path) if path.suffix == ".safetensors" else load_torch_file(path)
    if not isinstance(content, Mapping):
        raise ConversionError(f"{path} holds a {type(content).__name__}: a dictionary with weights is needed")
    unused: dict[str, str] = {}
    settings: dict[str, Any] = {}
    steps = [] if key is None else key.split(".")
    prefix = ""
    for _ in range(_MAX_DEPTH):
        if not steps and _holds_weights(content) and not _weight_entries(content):
            return OriginalCheckpoint({str(name): value for name, value in content.items()}, unused, settings)
        step = steps.pop(0) if steps else _find_weights(path, content, prefix)
        if not isinstance(content.get(step), Mapping):
            raise ConversionError(
                f"key must be an entry with weights, got {prefix}{step}: {path} has none there; "
                f"{_describe(content, prefix)}"
            )
        for name, value in content.items():
            if name != step:
                unused[f"{prefix}{name}"] = _describe_rest(str(name), value)
        if isinstance(content.get("args"), argparse.Namespace):
            settings = dict(vars(content["args"]))
        content, prefix = content[step], f"{prefix}{step}."
    raise ConversionError(f"{path} has weights nowhere: {prefix}... goes on and on")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(2, "No such file", str(path))
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConversionError(f"{path} is no readable safetensors file: {error}") from error


def load_torch_file(path: Path) -> Any:
    """Reads a file written by `torch.save`; never runs code from it.

    Args:
        path: The file.

    Returns:
        The content, on the CPU.

    Raises:
        ConversionError: If the file cannot be read, or contains more than data.
        OSError: If the file does not exist.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if unpacked > size:  # torch.save never compresses
            raise ConversionError(f"{path} is refused: its entries unpack to {unpacked} bytes, while it has {size}")
    with _allowed_globals(), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # real problems raise an error below
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            # The unpickler can raise anything for bytes that are not a pickle.
            if _is_plain_pickle(path):
                raise ConversionError(
                    f"{path} is no file of torch.save but a plain pickle (pickle.dump), which can only be read by "
                    "running what it names. Nothing of it was run. If you trust its origin, load it where it was made "
                    "and save the weights alone: torch.save({name: torch.as_tensor(value) for name, value in "
                    'weights.items()}, "weights.pth")'
                ) from error
            forbidden = _forbidden_globals(path, error)
            if forbidden:
                raise ConversionError(
                    f"{path} is refused: its pickle names {', '.join(forbidden[:5])}, and running what a file names "
                    "can do anything. Allowed are tensors, plain values and containers, argparse.Namespace and numpy "
                    "numbers. Nothing of it was run. If you trust its origin, load it where it was made and save the "
                    'weights alone: torch.save(checkpoint["model"], "weights.pth")'
                ) from error
            reason = str(error).split(". ")[0] if str(error) else type(error).__name__
            raise ConversionError(
                f"{path} cannot be read as a file of torch.save; it may be cut off or of another kind ({reason})"
            ) from error


def _is_plain_pickle(path: Path) -> bool:
    """Returns whether a file begins like a pickle, but without the magic number of a legacy torch file."""
    try:
        with path.open("rb") as file:
            operations = pickletools.genops(file)  # reads without running anything
            if next(operations)[0].name != "PROTO":
                return False
            first = next(operation for operation in operations if operation[0].name != "FRAME")
    except Exception:  # on bytes that are no pickle
        return False
    return first[1] != torch.serialization.MAGIC_NUMBER


def _forbidden_globals(path: Path, error: Exception) -> list[str]:
    """Returns the forbidden names in a pickle: all of them in a current file, the first in a legacy one."""
    if not isinstance(error, UnpicklingError):
        return []
    found = re.search(r"GLOBAL (\S+)", str(error))
    if not found:
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or [found[1]]
    except Exception:  # legacy format, or operations that the search does not support
        return [found[1]]


def _holds_weights(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _weight_entries(content: Mapping[Any, Any]) -> list[str]:
    return [key for key in STATE_DICT_KEYS if isinstance(content.get(key), Mapping)]


def _find_weights(path: Path, content: Mapping[Any, Any], prefix: str) -> str:
    keys = _weight_entries(content)
    if len(keys) != 1:
        problem = f"has weights under {' and '.join(keys)}" if keys else f"has none of {', '.join(STATE_DICT_KEYS)}"
        raise ConversionError(
            f"key must be the entry with the weights: {path} {problem}; {_describe(content, prefix)}"
        )
    return keys[0]


def _describe(content: Mapping[Any, Any], prefix: str) -> str:
    entries = [f"{prefix}{name} ({type(value).__name__})" for name, value in content.items()]
    return f"it holds {', '.join(entries[:8]) or 'nothing'}{', ...' if len(entries) > 8 else ''}"


def _describe_rest(name: str, value: Any) -> str:
    if name in _TRAINING_STATE:
        return _TRAINING_STATE[name]
    if isinstance(value, Mapping) and _holds_weights(value):
        return "other weights"
    return f"no weights but a {'numpy value' if isinstance(value, _Ignored) else type(value).__name__}"
