"""Conversion of original training checkpoints: name tables, heads, and checks."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ..models.embedding_limit import check_embeddings

CONVERTERS = ("motionformer", "timesformer", "videomae")
"""Model types whose original checkpoints can be converted: each has a module of this package."""

PREFIXES = ("module.", "model.", "backbone.", "encoder.")
"""Prefixes that wrappers such as DataParallel add to names; all of them are removed."""

HEADS_OF_TASKS = ("head_{task}", "head.{task}", "head{task}", "{task}_head")
"""Names of the heads of a multi-task classifier; the task is verb, noun, or a number counted from 0."""

EPIC_KITCHENS_100 = {"verb": 97, "noun": 300}

UNKNOWN = "the model has no place for it"
"""Reason for unused weights that are unknown; a conversion with such weights may be wrong."""


class ConversionError(ValueError):
    """Checkpoint that cannot be converted; the message says what was found and what was expected."""


def convertible_architectures() -> list[str]:
    """Returns the model types for which original checkpoints can be converted.

    Each has a module of that name with a name table, `NAMES`; patterns of names that only its checkpoints have,
    `SIGNS`; and a function `convert_original_state_dict`, which converts weights with one head called `head` and names
    without prefixes to a `ConvertedCheckpoint`. Its other arguments are options that do not follow from the weights.

    Examples:
        >>> convertible_architectures()
        ['motionformer', 'timesformer', 'videomae']
    """
    return list(CONVERTERS)


def _converter(model_type: str) -> Any:
    return import_module(f".{model_type}", __package__)


# --- input and output of a conversion
@dataclass(frozen=True)
class ConvertedCheckpoint:
    """Original checkpoint in the layout of transformers.

    Attributes:
        state_dict: Weights by their names in transformers, complete for a classifier with this config.
        config: Config of the architecture.
        used: New names of the values by original name.
        unused: Reason by original name for weights that are not used; `UNKNOWN` if there is none.
        assumed: Origin of each config field that does not follow from the weights.
    """

    state_dict: dict[str, Tensor]
    config: Any
    used: dict[str, str]
    unused: dict[str, str]
    assumed: dict[str, str] = field(default_factory=dict)

    @property
    def unknown(self) -> list[str]:
        """Original names that are unknown."""
        return [name for name, reason in self.unused.items() if reason == UNKNOWN]


@dataclass(frozen=True)
class NameTable:
    """Name table from an original implementation to ours.

    In names, `{layer}` stands for the number of a layer, `{parameter}` for "weight" or "bias", and `*` for anything.

    Attributes:
        used: Our names by original name. Several names are equal parts along the first axis, in this order.
        unused: Reason by original name for weights that a classifier does not need.
        refused: Description by original name of weights of features that transformers does not support.
    """

    used: Mapping[str, str | tuple[str, ...]]
    unused: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def targets(self, name: str) -> tuple[str, ...]:
        """Returns the names in transformers for an original name; empty if the table does not have it.

        Examples:
            >>> NameTable({"blocks.{layer}.norm1.{parameter}": "layers.{layer}.before.{parameter}"}).targets(
            ...     "blocks.3.norm1.bias"
            ... )
            ('layers.3.before.bias',)
        """
        for pattern, ours in self.used.items():
            found = _name_pattern(pattern).fullmatch(name)
            if found:
                return tuple(one.format(**found.groupdict()) for one in ([ours] if isinstance(ours, str) else ours))
        return ()

    def source(self, ours: str) -> str | None:
        """Returns the original name for one of ours; None if the table does not have it."""
        for original, targets in self.used.items():
            for target in [targets] if isinstance(targets, str) else targets:
                found = _name_pattern(target).fullmatch(ours)
                if found:
                    return original.format(**found.groupdict())
        return None

    def reason(self, name: str) -> str:
        """Returns why the weight of an original name without a target is not needed.

        Raises:
            ConversionError: If it is needed.
        """
        for pattern, what in self.refused.items():
            if _name_pattern(pattern).fullmatch(name):
                raise ConversionError(f"the checkpoint has {name}: {what}")
        return next((why for pattern, why in self.unused.items() if _name_pattern(pattern).fullmatch(name)), UNKNOWN)


@cache
def _name_pattern(pattern: str) -> re.Pattern[str]:
    text = re.escape(pattern).replace(r"\*", ".*")
    text = text.replace(r"\{layer\}", r"(?P<layer>\d+)").replace(r"\{parameter\}", r"(?P<parameter>weight|bias)")
    return re.compile(text)


@dataclass(frozen=True)
class OriginalWeights:
    """State dict with names without prefixes.

    Attributes:
        tensors: Tensors by name without prefixes.
        names: Names in the file by name without prefixes.
        unused: Reason by name in the file for entries that are not weights.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    unused: dict[str, str]

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> OriginalWeights:
        """Removes the prefixes.

        Raises:
            ConversionError: If two names are the same without prefixes.

        Examples:
            >>> OriginalWeights.from_state_dict({"module.model.cls_token": torch.zeros(1)}).names
            {'cls_token': 'module.model.cls_token'}
        """
        prefixes = re.compile(rf"(?:{'|'.join(map(re.escape, PREFIXES))})*")
        tensors: dict[str, Tensor] = {}
        names: dict[str, str] = {}
        unused: dict[str, str] = {}
        for name, value in state_dict.items():
            if not isinstance(value, Tensor):
                unused[name] = f"no tensor but a {type(value).__name__}"
                continue
            plain = prefixes.sub("", name, count=1)
            if plain in names:
                raise ConversionError(
                    f"the checkpoint has {names[plain]} and {name}, which are both called {plain} without their "
                    "prefixes: it holds more than one model"
                )
            tensors[plain], names[plain] = value, name
        return cls(tensors, names, unused)

    def shape(self, name: str, *axes: str) -> tuple[int, ...]:
        """Returns the shape of a required tensor.

        Args:
            name: Its name.
            *axes: Names of its axes.

        Raises:
            ConversionError: If it is missing or has another number of axes.
        """
        if name not in self.tensors:
            shown = ", ".join(list(self.names.values())[:3])
            raise ConversionError(f"the checkpoint has no {name} (it has {len(self.names)} tensors: {shown}, ...)")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != len(axes):
            raise ConversionError(f"{self.names[name]} must have the shape ({', '.join(axes)}), got {shape}")
        return shape

    @property
    def num_layers(self) -> int:
        """Number of layers, from the highest number in a name."""
        numbers = {int(found[1]) for name in self.tensors if (found := re.match(r"blocks\.(\d{1,6})\.", name))}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            # Checked before a broken name leads to building too many layers.
            raise ConversionError(f"weights of blocks.{missing} are missing: there are some of blocks.{max(numbers)}")
        return len(numbers)

    def has(self, pattern: str) -> bool:
        """Returns whether any name matches a pattern of a `NameTable`."""
        return any(_name_pattern(pattern).fullmatch(name) for name in self.tensors)


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Checks that tensors are dense and do not repeat values.

    A view with repeated values (`expand`) only takes a few bytes in a file, but its full size once it is copied.

    Args:
        tensors: The tensors by name. Two of them may share their values, as tied weights do.

    Raises:
        ConversionError: If a tensor is not.

    Examples:
        >>> check_values({"head.bias": torch.zeros(1).expand(1000)})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        hf_video_tome.conversion.state_dict.ConversionError: head.bias must have values of its own, got ...
    """
    stored = {}
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or 0 in tensor.shape:
            raise ConversionError(f"{name} must be a dense tensor with values, got {_describe(tensor)}")
        storage = tensor.untyped_storage()
        if tensor.nbytes > storage.nbytes():
            raise ConversionError(
                f"{name} must have values of its own, got {_describe(tensor)} with {storage.nbytes()} bytes of "
                f"{tensor.nbytes}"
            )
        stored[storage.data_ptr()] = storage.nbytes()
    total, there = sum(tensor.nbytes for tensor in tensors.values()), sum(stored.values())
    if total > 2 * there:
        raise ConversionError(
            f"{len(tensors)} tensors of {total} bytes must have values of their own, got {there} bytes"
        )


def check_architecture(weights: OriginalWeights, model_type: str) -> None:
    """Checks that weights are not clearly those of another architecture.

    Args:
        weights: The weights in the file.
        model_type: The expected model type.

    Raises:
        ConversionError: If they are; the message names the other architecture.
    """
    for candidate in convertible_architectures():
        found = [pattern for pattern in _converter(candidate).SIGNS if weights.has(pattern)]
        if found and candidate != model_type:
            raise ConversionError(
                f"these are not the weights of a {model_type}: {found[0]} is there, as in a {candidate}"
            )
        if found:
            return
    if any(name.startswith(("videomae.", "timesformer.", "motionformer.")) for name in weights.names.values()):
        raise ConversionError("these weights are in the layout of transformers already: nothing is to be converted")


def attention_heads(width: int, given: int | None) -> int:
    """Returns the number of attention heads, which does not follow from the weights: as published, else width / 64.

    Args:
        width: Hidden size.
        given: Number given by the user, or None.

    Raises:
        ConversionError: If it does not divide the width.

    Examples:
        >>> attention_heads(768, None), attention_heads(1280, None)
        (12, 16)
    """
    published = {1280: 16, 1408: 16}  # ViT-huge and ViT-giant, with heads of 80 and 88 channels
    heads = given if given is not None else published.get(width, width // 64)
    if heads < 1 or width % heads:
        how = "got" if given is not None else "and would be taken for"
        raise ConversionError(
            f"num_attention_heads must divide the width of the model, {width}, {how} {heads}; it cannot be read off "
            "the weights"
        )
    return heads


def positive_int(settings: Mapping[str, Any], *names: str) -> int | None:
    """Returns the product of settings, or None if one is missing or not a positive int.

    Examples:
        >>> positive_int({"num_frames": 16, "num_segments": 1}, "num_frames", "num_segments")
        16
    """
    values: Sequence[Any] = [settings.get(name) for name in names]
    return math.prod(values) if all(type(value) is int and value > 0 for value in values) else None


def square_side(num_places: int, what: str) -> int:
    """Returns the side length of a square grid.

    Raises:
        ConversionError: If the number of patch positions is not a square.
    """
    side = math.isqrt(num_places)
    if side * side != num_places:
        raise ConversionError(f"{what} has {num_places} patch positions, which do not form a square grid")
    return side


# --- heads
@dataclass(frozen=True)
class Heads:
    """Heads of a classifier and their ranges of outputs.

    Attributes:
        parts: Half-open range of outputs by name of the head.
        label_groups: For the config: ranges of outputs by task, or None for a single task.
        assumed: Why the outputs were divided, if neither the weights nor the user said so; otherwise None.
    """

    parts: dict[str, tuple[int, int]]
    label_groups: dict[str, list[int]] | None
    assumed: str | None = None


def find_heads(weights: OriginalWeights, label_groups: Mapping[str, int] | None = None) -> Heads:
    """Finds the heads of a classifier: one, or one per task (see `HEADS_OF_TASKS`).

    Args:
        weights: The weights in the file.
        label_groups: Tasks and their numbers of outputs, in order. If None, verb and noun if there are two heads, or
            one head with as many outputs as EPIC-KITCHENS-100 has verbs and nouns. If empty, a single task.

    Raises:
        ConversionError: If there is no head, or the heads do not match `label_groups`.
    """
    found: dict[str, str] = {}
    for name in weights.tensors:
        for pattern in HEADS_OF_TASKS:
            match = re.fullmatch(re.escape(pattern).replace(r"\{task\}", r"(verb|noun|\d+)") + r"\.weight", name)
            if match:
                found[match[1]] = name.removesuffix(".weight")
    if "head.weight" in weights.tensors:
        found[""] = "head"
    if not found:
        raise ConversionError(
            "the checkpoint has no classifier (head.weight, or one for each task such as head_verb.weight): "
            + (
                "it is one of pre-training; only fine-tuned checkpoints can classify"
                if weights.has("decoder.*") or weights.has("mask_token")
                else "only fine-tuned checkpoints can classify"
            )
        )
    sizes = {task: weights.shape(f"{head}.weight", "labels", "width")[0] for task, head in found.items()}
    if len(found) == 1:
        ((task, head),) = found.items()
        return _one_head(head, sizes[task], label_groups)
    return _several_heads(found, sizes, label_groups)


def _one_head(head: str, num_labels: int, given: Mapping[str, int] | None) -> Heads:
    assumed = None
    if given is None and num_labels == sum(EPIC_KITCHENS_100.values()):
        given, assumed = EPIC_KITCHENS_100, f"the {num_labels} outputs: 97 verbs and 300 nouns of EPIC-KITCHENS-100"
    if not given:
        return Heads({head: (0, num_labels)}, None)
    if sum(given.values()) != num_labels:
        raise ConversionError(
            f"label_groups must have as many outputs as the head of the checkpoint, {num_labels}, got "
            f"{_shown(given)} = {sum(given.values())}"
        )
    return Heads({head: (0, num_labels)}, _ranges(given), assumed)


def _several_heads(found: dict[str, str], sizes: dict[str, int], given: Mapping[str, int] | None) -> Heads:
    listed = ", ".join(f"{head} ({sizes[task]} outputs)" for task, head in found.items())
    numbered = sorted(found) == [str(index) for index in range(len(found))]
    if not numbered and sorted(found) != sorted(EPIC_KITCHENS_100):
        raise ConversionError(f"the heads must be one, or verb and noun, or counted from 0, got {listed}")
    if given is not None and len(given) != len(found):
        raise ConversionError(f"label_groups must name a task for each head, {listed}, got {_shown(given) or 'none'}")
    if given is None:
        if len(found) != len(EPIC_KITCHENS_100):
            raise ConversionError(f"label_groups must say what the heads are for: {listed}")
        if numbered and sizes["0"] > sizes["1"]:
            # Numbered heads start with verbs, but here the number of outputs suggests otherwise.
            raise ConversionError(
                f"label_groups must say which head is for verbs and which for nouns: {listed}, while of the data "
                "sets with both there are fewer verbs"
            )
    tasks = list(EPIC_KITCHENS_100 if given is None else given)
    if numbered:
        found = {task: found[str(index)] for index, task in enumerate(tasks)}
        sizes = {task: sizes[str(index)] for index, task in enumerate(tasks)}
    elif sorted(tasks) != sorted(found):
        raise ConversionError(f"label_groups must name the tasks of the heads, {listed}, got {_shown(given or {})}")
    for task, size in (given or {}).items():
        if sizes[task] != size:
            raise ConversionError(f"label_groups must be as the heads are, {listed}, got {_shown(given or {})}")
    ranges = _ranges({task: sizes[task] for task in tasks})
    return Heads({found[task]: (start, stop) for task, (start, stop) in ranges.items()}, ranges)


def _ranges(sizes: Mapping[str, int]) -> dict[str, list[int]]:
    ranges, start = {}, 0
    for task, size in sizes.items():
        ranges[task] = [start, start + size]
        start += size
    return ranges


def _shown(sizes: Mapping[str, int]) -> str:
    return ",".join(f"{task}={size}" for task, size in sizes.items())


# --- the conversion
def convert_original_state_dict(
    model_type: str,
    state_dict: Mapping[str, Any],
    *,
    label_groups: Mapping[str, int] | None = None,
    **options: Any,
) -> ConvertedCheckpoint:
    """Converts weights with the names of an original implementation.

    Args:
        model_type: One of `convertible_architectures()`.
        state_dict: The weights, with or without prefixes such as `module.`, with one head or one per task.
        label_groups: Tasks and their numbers of labels; see `find_heads`.
        **options: Values that may not follow from the weights: `num_frames`, `image_size`, `num_attention_heads`, and
            the `settings` of the training, which may include some of these. Values that do follow are compared. None
            is ignored.

    Returns:
        The converted checkpoint; for several tasks, its config has their ranges of outputs as `label_groups`.

    Raises:
        ConversionError: If the weights are of another architecture, incomplete, or cannot be converted.
    """
    known = convertible_architectures()
    if model_type not in known:
        raise ConversionError(f"the architecture must be one of {', '.join(known)}, got {model_type!r}")
    convert = _converter(model_type).convert_original_state_dict
    weights = OriginalWeights.from_state_dict(state_dict)
    check_values(weights.tensors)
    check_architecture(weights, model_type)
    heads = find_heads(weights, label_groups)
    given = {name: value for name, value in options.items() if value is not None}
    taken = {name: value for name, value in given.items() if name in inspect.signature(convert).parameters}
    converted = convert(_join_heads(weights, heads), **taken)
    config = converted.config
    for name, value in given.items():
        if name not in taken and name != "settings" and getattr(config, name) != value:
            raise ConversionError(f"{name} must be {getattr(config, name)}, as the weights say, got {value}")
    if heads.label_groups is not None:
        config.label_groups = heads.label_groups
    assumed = dict(converted.assumed)
    if "num_attention_heads" not in given:
        assumed["num_attention_heads"] = "the width"
    if heads.assumed is not None:
        assumed["label_groups"] = heads.assumed
    return replace(
        converted,
        used=_names_in_file(converted.used, weights, heads),
        unused={**_names_in_file(converted.unused, weights, heads), **weights.unused},
        assumed=assumed,
    )


def _join_heads(weights: OriginalWeights, heads: Heads) -> dict[str, Tensor]:
    """Returns the weights with all heads joined to one, `head`."""
    tensors = dict(weights.tensors)
    joined = {}
    for parameter in ("weight", "bias"):
        parts = []
        for head, (start, stop) in heads.parts.items():
            name = f"{head}.{parameter}"
            if name not in tensors or tensors[name].shape[:1] != (stop - start,):
                found = f"got shape {tuple(tensors[name].shape)}" if name in tensors else "it is missing"
                raise ConversionError(f"the checkpoint must have {name} with {stop - start} outputs, {found}")
            parts.append(tensors.pop(name))
        if len({part.shape[1:] for part in parts}) > 1:
            raise ConversionError(f"the heads {', '.join(heads.parts)} must be of one width")
        joined[f"head.{parameter}"] = torch.cat(parts)
    return tensors | joined


def _names_in_file(names: Mapping[str, str], weights: OriginalWeights, heads: Heads) -> dict[str, str]:
    """Restores the prefixes and the names of heads in a report."""
    restored = {}
    for name, text in names.items():
        module, _, parameter = name.rpartition(".")
        if module != "head":
            restored[weights.names[name]] = text
            continue
        for head, (start, stop) in heads.parts.items():
            rows = "" if len(heads.parts) == 1 else f"[{start}:{stop}]"
            restored[weights.names[f"{head}.{parameter}"]] = text + rows
    return restored


def rename_weights(
    weights: OriginalWeights, table: NameTable, config: Any, head_class: Callable[[Any], nn.Module]
) -> ConvertedCheckpoint:
    """Renames and splits weights, and checks that they fit a classifier with this config.

    Args:
        weights: The original weights, with one head.
        table: The name table.
        config: Config of the architecture.
        head_class: Classifier of the architecture.

    Returns:
        The converted checkpoint.

    Raises:
        ConversionError: If a weight is missing, has another shape, or is needed but not supported.
    """
    try:
        check_embeddings(config)
    except ValueError as error:
        raise ConversionError(f"num_frames and image_size are too large: {error}") from error
    converted: dict[str, Tensor] = {}
    used, unused = {}, {}
    for name, tensor in weights.tensors.items():
        targets = table.targets(name)
        if not targets:
            unused[name] = table.reason(name)
            continue
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            values = "with NaN or infinity" if tensor.is_floating_point() else f"of {tensor.dtype}"
            raise ConversionError(f"{name} must hold finite floating point numbers, got a tensor {values}")
        if tensor.ndim == 0 or tensor.shape[0] % len(targets):
            raise ConversionError(f"{name} must divide into {len(targets)} parts, got shape {tuple(tensor.shape)}")
        for target, part in zip(targets, tensor.chunk(len(targets)), strict=True):
            # Copies, because safetensors does not save tensors that share memory.
            converted[target] = part.detach().clone(memory_format=torch.contiguous_format)
        used[name] = ", ".join(targets)
    _check_complete(converted, table, config, head_class)
    return ConvertedCheckpoint(converted, config, used, unused)


def _describe(tensor: Tensor) -> str:
    kind = str(tensor.layout).removeprefix("torch.")
    return f"a {kind} tensor of {tensor.dtype} and shape {tuple(tensor.shape)} on {tensor.device}"


def _check_complete(
    converted: Mapping[str, Tensor], table: NameTable, config: Any, head_class: Callable[[Any], nn.Module]
) -> None:
    with torch.device("meta"):  # names and shapes only
        expected = head_class(config).state_dict()
    missing = list(dict.fromkeys(table.source(name) or name for name in expected if name not in converted))
    if missing:
        raise ConversionError(
            f"weights of a {config.model_type} like this are missing: {', '.join(missing[:5])}"
            + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        )
    for name, tensor in converted.items():
        original = table.source(name) or name
        if name not in expected:
            raise ConversionError(f"{original} has no place beside the other weights")
        if tensor.shape != expected[name].shape:
            raise ConversionError(
                f"{original} does not fit the other weights: as {name} it must have the shape "
                f"{tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            )
