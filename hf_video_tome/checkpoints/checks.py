"""Checks of checkpoint files before a model is built from them.

Checkpoints are untrusted. Errors name the file and the field, and no single number in a file determines how much
memory is allocated.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AttentionInterface
from transformers.activations import ACT2FN

from ..conversion.original_files import load_torch_file
from ..conversion.state_dict import ConversionError, check_values
from ..merging.values import shown
from ..models import ARCHITECTURES
from ..models.embedding_limit import check_embeddings
from ..saved_files import find_saved_files, read_json_object

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weight files of a checkpoint, in the order in which transformers prefers them."""

MAX_LABELS = 2**20
"""Largest number of labels; transformers creates a name for each of them."""

_NUMBER = re.compile(r"\d+")
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


class FileError(ValueError):
    """Invalid file of a checkpoint; the message begins with its name."""


# --- config.json
def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_number_of_labels(value: Any) -> bool:
    return _is_int(value) and 1 <= value <= MAX_LABELS


def _are_names(value: Any) -> bool:
    if not isinstance(value, dict) or not 1 <= len(value) <= MAX_LABELS:
        return False
    numbers = {str(number) for number in range(len(value))}
    return numbers == {*value} and not any(isinstance(name, list | dict) for name in value.values())


def _is_dtype(value: object) -> bool:
    return isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)


def _is_file_name(value: object) -> bool:
    return isinstance(value, str) and value == Path(value).name


def _attention_implementations() -> list[str]:
    # transformers would download code from a repository for any other name.
    return ["eager", *(name for name in AttentionInterface().valid_keys() if "|" not in name)]


def _is_attention_implementation(value: object) -> bool:
    return value in _attention_implementations()


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "num_labels": (f"an int from 1 to {MAX_LABELS}", _is_number_of_labels),
    "id2label": ("an object with a name for each number, from 0 on", _are_names),
    "label2id": ("an object", _is_object),
    "auto_map": ("an object", _is_object),
    "quantization_config": ("an object", _is_object),
    "fusion_config": ("an object", _is_object),
    "transformers_weights": ("the name of a file beside it", _is_file_name),
    "dtype": ("the name of a torch dtype", _is_dtype),
    "torch_dtype": ("the name of a torch dtype", _is_dtype),
    "output_hidden_states": ("true or false", _is_bool),
    "output_attentions": ("true or false", _is_bool),
    "return_dict": ("true or false", _is_bool),
    "attn_implementation": ("an attention implementation of transformers", _is_attention_implementation),
    "_attn_implementation": ("an attention implementation of transformers", _is_attention_implementation),
}
"""Fields that transformers does not check, with their allowed values and checks. All but the first may be null."""


def check_config_content(content: object) -> dict[str, Any]:
    """Checks the content of config.json before transformers builds a config from it.

    Args:
        content: Content of config.json.

    Returns:
        The same.

    Raises:
        FileError: If it is invalid.
    """
    if not isinstance(content, dict):
        raise FileError(f"{CONFIG_FILE}: must hold a JSON object, got {shown(content)}")
    model_type = content.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise FileError(
            f"{CONFIG_FILE}: model_type {shown(model_type)} is not supported; supported are {', '.join(ARCHITECTURES)}"
        )
    config_class = ARCHITECTURES[model_type].config_class
    for name, value in content.items():
        # Every field becomes an attribute of the config and must not replace a method.
        if name.startswith("__") or callable(getattr(config_class, name, None)):
            raise FileError(f"{CONFIG_FILE}: {name} is not a field of a config, got {shown(value)}")
        allowed, is_allowed = _FIELDS.get(name, ("", None))
        if is_allowed is not None and not is_allowed(value) and (value is not None or name == "num_labels"):
            raise FileError(f"{CONFIG_FILE}: {name} must be {allowed}, got {shown(value)}")
    return content


def check_config(config: Any) -> None:
    """Checks the values of a config with fields of the right types.

    Args:
        config: The config.

    Raises:
        ValueError: If a value is not allowed.
    """
    for name, value in vars(config).items():
        if name.endswith("_act") and value not in ACT2FN:
            raise FileError(f"{CONFIG_FILE}: {name} must be one of {', '.join(ACT2FN)}, got {shown(value)}")
        if isinstance(value, float) and not math.isfinite(value):
            raise FileError(f"{CONFIG_FILE}: {name} must be a finite number, got {value}")
        sizes = value if isinstance(value, list | tuple) else [value]
        if _is_size(name) and any(_is_int(size) and size < 1 for size in sizes):
            raise FileError(f"{CONFIG_FILE}: {name} must be at least 1, got {shown(value)}")
    check_embeddings(config)


def _is_size(name: str, *others: str) -> bool:
    return name.endswith(("_size", "_heads", "_frames", "_channels", "_chans", "_per_clip", *others))


# --- weights
@dataclass(frozen=True)
class SavedWeights:
    """Weights of a checkpoint before loading.

    Attributes:
        names: Names of the files.
        size: Total size of the files in bytes.
        dtypes: Dtype of each tensor by name, as named by safetensors.
        quantized: Whether the config has a quantization.
    """

    names: list[str]
    size: int
    dtypes: dict[str, str]
    quantized: bool


def find_weights(location: str, content: Mapping[str, Any]) -> SavedWeights:
    """Finds the weights of a checkpoint and inspects them.

    Args:
        location: A folder or a Hub id.
        content: Content of config.json.

    Returns:
        The weights.

    Raises:
        FileError: If there are none, or a file cannot be read or contains more than tensors.
        OSError: If the Hub cannot be reached or denies access.
    """
    if any(find_saved_files(location, [ADAPTER_FILE])):
        raise FileError(
            f"{ADAPTER_FILE}: cannot load a peft adapter, because most of its weights are elsewhere; load it with "
            "peft, merge it into its base model (merge_and_unload) and save that"
        )
    named = content.get("transformers_weights")
    names = WEIGHT_FILES if named is None else (named,)
    first = next(find_saved_files(location, names), None)
    if first is None:
        raise FileError(f"no weights: none of {', '.join(names)} is there")
    files = list(_shards(location, first)) if first.name.endswith(".index.json") else [first]
    dtypes: dict[str, str] = {}
    for file in files:
        dtypes |= _safetensors_dtypes(file) if file.suffix == ".safetensors" else _torch_dtypes(file)
    quantized = content.get("quantization_config") is not None
    return SavedWeights([file.name for file in files], sum(file.stat().st_size for file in files), dtypes, quantized)


def _shards(location: str, index: Path) -> Iterator[Path]:
    try:
        content = read_json_object(index)
    except ValueError as error:
        raise FileError(str(error).removeprefix(f"{index.parent}/")) from error
    weight_map = content.get("weight_map")
    if not isinstance(content.get("metadata"), dict):
        raise FileError(f"{index.name}: metadata must be an object, got {shown(content.get('metadata'))}")
    if not isinstance(weight_map, dict) or not weight_map or not all(map(_is_file_name, weight_map.values())):
        raise FileError(f"{index.name}: weight_map must name the file of each weight, got {shown(weight_map)}")
    for name in sorted(set(weight_map.values())):
        file = next(find_saved_files(location, [name]), None)
        if file is None:
            raise FileError(f"{index.name}: weight_map names {name}, which is not there")
        yield file


def _safetensors_dtypes(file: Path) -> dict[str, str]:
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise FileError(f"{file.name}: no readable safetensors file ({error})") from error


def _torch_dtypes(file: Path) -> dict[str, str]:
    try:
        tensors = load_torch_file(file)
        if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
            raise FileError(f"{file.name}: must hold tensors by their names")
        for name, value in tensors.items():
            if not isinstance(value, torch.Tensor):
                raise FileError(f"{file.name}: must hold tensors alone, got {name}, a {type(value).__name__}")
        check_values(tensors)
    except ConversionError as error:
        raise FileError(f"{file.name}: {str(error).removeprefix(str(file)).strip()}") from error
    return {name: "F32" if tensor.is_floating_point() else str(tensor.dtype) for name, tensor in tensors.items()}


def check_weights(config: Any, weights: SavedWeights) -> None:
    """Checks that the model of a config is not too large for the weights, before it is built.

    Args:
        config: The config.
        weights: The weights of the checkpoint.

    Raises:
        FileError: If it is too large.
    """
    smallest = copy.deepcopy(config)
    # For clips of one token: position embeddings have their own limit, see `check_embeddings`.
    (frames_field, _, pixels_field), (frames, height, width) = config.clip_fields, config.tubelet_shape
    setattr(smallest, frames_field, frames)
    setattr(smallest, pixels_field, height if height == width else [height, width])
    with torch.device("meta"):
        model = ARCHITECTURES[config.model_type].head_class(smallest)
    wanted = sum(parameter.numel() for parameter in model.parameters())
    # A weight takes at least one byte, or one bit if quantized.
    if wanted > weights.size * (8 if weights.quantized else 1):
        sizes = ", ".join(
            f"{name} = {shown(value)}" for name, value in vars(config).items() if _is_size(name, "_layers")
        )
        raise FileError(
            f"{CONFIG_FILE}: such a model has at least {wanted} weights ({sizes}), while "
            f"{', '.join(weights.names[:3])} has {weights.size} bytes"
        )


def check_loaded(model: Any, weights: SavedWeights, report: Mapping[str, Any]) -> None:
    """Checks that the loaded weights fit the config.

    Args:
        model: The model with the weights.
        weights: The weights of the checkpoint.
        report: Loading info from transformers.

    Raises:
        FileError: If a weight is missing, has another shape, belongs to a layer that the config does not have, or is
            not of a floating point dtype.
    """
    for key, found, expected in sorted(report["mismatched_keys"]):
        raise FileError(
            f"its weights do not fit its {CONFIG_FILE}: {key} has shape {tuple(found)}, expected {tuple(expected)}"
        )
    if report["missing_keys"]:
        missing, config = sorted(report["missing_keys"]), model.config
        raise FileError(
            f"{len(missing)} of the weights of a {config.model_type} video classifier are missing "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); its config says it is a "
            f"{', '.join(map(str, config.architectures or ['?']))}"
        )
    layers = {_NUMBER.sub("N", name) for name in model.state_dict()}
    for name in sorted(report["unexpected_keys"]):
        if _NUMBER.sub("N", name) in layers:
            raise FileError(
                f"its weights do not fit its {CONFIG_FILE}: there is {name}, of a layer that it does not have"
            )
    for name, dtype in weights.dtypes.items():
        if dtype not in _FLOATS and name not in report["unexpected_keys"] and not weights.quantized:
            raise FileError(f"{', '.join(weights.names[:3])}: {name} must hold floating point numbers, got {dtype}")
