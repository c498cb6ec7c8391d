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
"""What wrappers such as DataParallel put before names; taken off, as many as there are."""

HEADS_OF_TASKS = ("head_{task}", "head.{task}", "head{task}", "{task}_head")
"""Names of the heads of a classifier with several; the task is verb, noun, or a number counted from 0."""

EPIC_KITCHENS_100 = {"verb": 97, "noun": 300}

UNKNOWN = "the model has no place for it"
"""Why a weight is unused that nothing is known about; a conversion with such is not to be trusted."""


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; the message says what was found and what was expected.

    Arguments stand in backticks.
    """


def convertible_architectures() -> list[str]:
    """Model types whose original checkpoints can be converted.

    The module of each, named after it, has a table, `NAMES`; patterns of names that only checkpoints of this
    architecture have, `SIGNS`; and a function `convert_original_state_dict`, from weights with one head called `head`
    and names without prefixes to a `ConvertedCheckpoint`. Its other arguments are those options that the weights do
    not tell.

    Examples:
        >>> convertible_architectures()
        ['motionformer', 'timesformer', 'videomae']
    """
    return list(CONVERTERS)


def _converter(model_type: str) -> Any:
    return import_module(f".{model_type}", __package__)


# --- what a conversion makes and needs
@dataclass(frozen=True)
class ConvertedCheckpoint:
    """An original checkpoint in the layout of transformers.

    Attributes:
        state_dict: Weights by their names in transformers, complete for a classifier with this config.
        config: Config of the architecture.
        used: From each original name to the names that its values have now.
        unused: From each original name that was left out to the reason; `UNKNOWN` where there is none.
        assumed: From each field of the config that the weights do not tell to where its value is from.
    """

    state_dict: dict[str, Tensor]
    config: Any
    used: dict[str, str]
    unused: dict[str, str]
    assumed: dict[str, str] = field(default_factory=dict)

    @property
    def unknown(self) -> list[str]:
        """Original names that nothing is known about."""
        return [name for name, reason in self.unused.items() if reason == UNKNOWN]


@dataclass(frozen=True)
class NameTable:
    """Where the weights of an original implementation go.

    In a name, `{layer}` stands for the number of a layer, `{parameter}` for "weight" or "bias", and `*` for anything.

    Attributes:
        used: From original names to ours. Several are equal parts along the first axis, in this order.
        unused: From original names that a classifier does not need to the reason.
        refused: From original names that change what a model computes, in a way that transformers' does not have, to
            what they are.
    """

    used: Mapping[str, str | tuple[str, ...]]
    unused: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def targets(self, name: str) -> tuple[str, ...]:
        """The names that an original one has in transformers; none if the table does not have it.

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
        """The original name of one of ours; None if the table does not have it."""
        for original, targets in self.used.items():
            for target in [targets] if isinstance(targets, str) else targets:
                found = _name_pattern(target).fullmatch(ours)
                if found:
                    return original.format(**found.groupdict())
        return None

    def reason(self, name: str) -> str:
        """Why an original name that has no target is not needed.

        Raises:
            ConversionError: If it may not be left out.
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
    """A state dict whose names are free of prefixes.

    Attributes:
        tensors: By the names without prefixes.
        names: From these to the names in the file.
        unused: From names in the file of what is no weight to the reason.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str]
    unused: dict[str, str]

    @classmethod
    def from_state_dict(cls, state_dict: Mapping[str, Any]) -> OriginalWeights:
        """Takes the prefixes off.

        Raises:
            ConversionError: If that makes two names the same.

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
        """The shape of a tensor that must be there.

        Args:
            name: Its name.
            *axes: What its axes are.

        Raises:
            ConversionError: If it is not there or has another number of axes.
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
        """Layers, by the highest number in a name."""
        numbers = {int(found[1]) for name in self.tensors if (found := re.match(r"blocks\.(\d{1,6})\.", name))}
        missing = min(set(range(len(numbers))) - numbers, default=None)
        if missing is not None:
            # Before anybody builds as many layers as a broken name asks for.
            raise ConversionError(f"weights of blocks.{missing} are missing: there are some of blocks.{max(numbers)}")
        return len(numbers)

    def has(self, pattern: str) -> bool:
        """Whether any name is as in a `NameTable`."""
        return any(_name_pattern(pattern).fullmatch(name) for name in self.tensors)


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Refuses tensors that are not dense, or that stand for more values than are there.

    A view that repeats values (`expand`) is a few bytes in a file, and takes all of its size as soon as it is copied.

    Args:
        tensors: The tensors by their names. Two of them may share their values, as tied weights do.

    Raises:
        ConversionError: Naming the first such tensor.

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
    """Refuses weights that are clearly those of another architecture.

    Args:
        weights: What the file holds.
        model_type: What it is said to be.

    Raises:
        ConversionError: Naming what they look like.
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
    """Attention heads, which no weight tells: as published for the width, else one for 64 channels.

    Args:
        width: Hidden size.
        given: What the user says.

    Raises:
        ConversionError: If the width is no multiple of it.

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
    """The product of settings that are numbers, or None if one is not there or is none.

    Examples:
        >>> positive_int({"num_frames": 16, "num_segments": 1}, "num_frames", "num_segments")
        16
    """
    values: Sequence[Any] = [settings.get(name) for name in names]
    return math.prod(values) if all(type(value) is int and value > 0 for value in values) else None


def square_side(num_places: int, what: str) -> int:
    """Side of the square grid that so many places make.

    Raises:
        ConversionError: If they make none.
    """
    side = math.isqrt(num_places)
    if side * side != num_places:
        raise ConversionError(f"{what} has {num_places} places, which make no square grid")
    return side


# --- heads
@dataclass(frozen=True)
class Heads:
    """The heads of a classifier and where their outputs go.

    Attributes:
        parts: From the name of each head to its first output and one past its last.
        label_groups: For the config: ranges of outputs by task, or None where there is one task.
        assumed: Why the outputs were divided though neither the weights nor the user said so; None if they did.
    """

    parts: dict[str, tuple[int, int]]
    label_groups: dict[str, list[int]] | None
    assumed: str | None = None


def find_heads(weights: OriginalWeights, label_groups: Mapping[str, int] | None = None) -> Heads:
    """Finds the heads of a classifier: one, or one for each task (see `HEADS_OF_TASKS`).

    Args:
        weights: What the file holds.
        label_groups: Tasks and their numbers of outputs, in order. None: verb and noun where there are two heads, or
            one with as many outputs as EPIC-KITCHENS-100 has verbs and nouns. Empty: one task.

    Raises:
        ConversionError: If there is none, or they are not what `label_groups` says.
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
            # Verbs come first wherever heads are counted; here the counts say otherwise.
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
    """Converts weights that have the names of an original implementation.

    Args:
        model_type: One of `convertible_architectures()`.
        state_dict: The weights, with or without prefixes such as `module.`, with one head or one for each task.
        label_groups: Tasks and their numbers of labels; see `find_heads`.
        **options: What the weights may not tell: `num_frames`, `image_size`, `num_attention_heads`, and `settings` of
            the training, which may tell some of these. What the weights do tell is compared. None is left out.

    Returns:
        The converted checkpoint; with several tasks its config has their ranges of outputs as `label_groups`.

    Raises:
        ConversionError: If the weights are others, incomplete, or cannot be converted.
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
    """The weights with one head, `head`."""
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
    """Gives the names of a report their prefixes back, and heads their own names."""
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
    """Renames and divides weights, and checks that they are those of a classifier with this config.

    Args:
        weights: The original weights, with one head.
        table: Where they go.
        config: Config of the architecture.
        head_class: Classifier of the architecture.

    Returns:
        The converted checkpoint.

    Raises:
        ConversionError: If anything is missing, has another shape, or may not be left out.
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
            # A copy: safetensors does not save tensors that share memory.
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
    with torch.device("meta"):  # names and shapes alone
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
