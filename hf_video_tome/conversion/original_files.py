"""Reading of files that original training codes saved, without running anything in them."""

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
"""Where the weights lie in files that hold more than weights."""

_MAX_DEPTH = 8  # entries of entries; a pickle can hold a dictionary that holds itself

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
    """What a file of an original training holds.

    Attributes:
        state_dict: The weights by their original names.
        unused: From all else in the file to what it is.
        settings: Settings of the training, where the file has them as `args`.
    """

    state_dict: dict[str, Any]
    unused: dict[str, str]
    settings: dict[str, Any]


class _Ignored:
    """Stands in for a number or an array of numpy in a pickle: takes everything and keeps and does nothing."""

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
"""What a pickle may name beyond what torch allows with `weights_only=True`, and what is put there.

Nothing here runs any code. `argparse.Namespace` only holds values. Numbers and arrays of numpy (a best accuracy, as a
rule) are not read: they are replaced by an object that holds nothing, so that no code of numpy sees the file.
"""


@contextmanager
def _allowed_globals() -> Iterator[None]:
    with torch.serialization.safe_globals([(value, name) for name, value in ALLOWED_GLOBALS.items()]):
        yield


def load_original_checkpoint(path: str | Path, key: str | None = None) -> OriginalCheckpoint:
    """Reads a file with weights; never runs code from it.

    Args:
        path: A file of `torch.save` (.pth, .pyth, .pt, ...) or .safetensors.
        key: Which entry holds the weights, where the file has more than one; dots lead into entries of entries.

    Returns:
        The weights and what else there is.

    Raises:
        ConversionError: If the file cannot be read, holds more than data, or has no weights.
        OSError: If there is no such file.
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
    """Reads a file of `torch.save`; never runs code from it.

    Args:
        path: The file.

    Returns:
        What it holds, on the CPU.

    Raises:
        ConversionError: If it cannot be read, or holds more than data.
        OSError: If there is no such file.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked, size = sum(entry.file_size for entry in archive.infolist()), path.stat().st_size
        if unpacked > size:  # a file of torch.save is never compressed
            raise ConversionError(f"{path} is refused: its entries unpack to {unpacked} bytes, while it has {size}")
    with _allowed_globals(), path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what matters of them becomes an error below
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            # On bytes that are no pickle the unpickler can fail in any way.
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
    """Whether a file begins as a pickle, though not as one of old torch: these hold a number of their own first."""
    try:
        with path.open("rb") as file:
            operations = pickletools.genops(file)  # which reads, and runs nothing
            if next(operations)[0].name != "PROTO":
                return False
            first = next(operation for operation in operations if operation[0].name != "FRAME")
    except Exception:  # on bytes that are no pickle
        return False
    return first[1] != torch.serialization.MAGIC_NUMBER


def _forbidden_globals(path: Path, error: Exception) -> list[str]:
    """What a pickle that was refused names: all of it in a file of today, the first in one of old torch."""
    if not isinstance(error, UnpicklingError):
        return []
    found = re.search(r"GLOBAL (\S+)", str(error))
    if not found:
        return []
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)) or [found[1]]
    except Exception:  # of an old format, or with operations that the search does not know
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
