"""What a classifier answers, and which of its outputs a data set's classes are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .data.class_names import SPELLINGS, class_numbers, match_names, positions_by_spelling

if TYPE_CHECKING:
    import torch

SINGLE_TASK = "label"
ACTION = "action"
"""What all tasks of a classifier together are called."""


@dataclass(frozen=True)
class Task:
    """One question that a classifier answers.

    Attributes:
        name: "label", or the name of a label group ("verb", "noun"); also the column of the data set with the answer.
        start: First of the classifier's outputs that belong to it.
        size: How many do.
    """

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """The output after the last one."""
        return self.start + self.size


def classifier_tasks(config: Any) -> tuple[Task, ...]:
    """Splits the outputs of a classifier into its tasks.

    A two-task head is one classifier whose outputs are divided by `label_groups` in its config, from first to one past
    the last: verb and noun of EPIC-KITCHENS-100 are `{"verb": [0, 97], "noun": [97, 397]}`. (Ranges, not sizes,
    because configs are saved with sorted keys.) All else is one task, "label".

    Args:
        config: Config of a video classifier.

    Returns:
        Its tasks, in the order of the outputs.

    Raises:
        ValueError: If `label_groups` is no mapping from names to ranges that divide the `num_labels` outputs.

    Examples:
        >>> from transformers import VideoMAEConfig
        >>> classifier_tasks(VideoMAEConfig(num_labels=5, label_groups={"verb": [0, 2], "noun": [2, 5]}))
        (Task(name='verb', start=0, size=2), Task(name='noun', start=2, size=3))
    """
    groups = getattr(config, "label_groups", None)
    if groups is None:
        return (Task(SINGLE_TASK, 0, config.num_labels),)

    def fail() -> NoReturn:
        raise ValueError(
            "label_groups must map the names of label groups to ranges that divide the num_labels = "
            f'{config.num_labels} outputs, as {{"verb": [0, 97], "noun": [97, 397]}} does for 397, got {groups!r}'
        )

    if not isinstance(groups, Mapping) or not groups:
        fail()
    tasks = []
    for name, limits in groups.items():
        named = isinstance(name, str) and name not in ("", SINGLE_TASK, ACTION)
        if not named or not isinstance(limits, (list, tuple)) or [type(limit) for limit in limits] != [int, int]:
            fail()
        tasks.append(Task(name, limits[0], limits[1] - limits[0]))
    tasks.sort(key=lambda task: task.start)
    ends = [0, *(task.stop for task in tasks)]
    if [task.start for task in tasks] != ends[:-1] or ends[-1] != config.num_labels or ends != sorted(set(ends)):
        fail()
    return tuple(tasks)


@dataclass(frozen=True)
class Prediction:
    """One class that a classifier holds for likely.

    Attributes:
        task: Name of the task that it answers: "label", or "verb" and "noun" of a two-task head.
        index: Class index, from 0 inside the task.
        label: Class name; the index where the classifier has none.
        probability: Its probability among the classes of the task, 0 to 1.
    """

    task: str
    index: int
    label: str
    probability: float


def predict_labels(logits: torch.Tensor, config: Any, top_k: int = 1) -> dict[str, list[Prediction]]:
    """The most likely classes of a clip, for each task of the classifier by itself.

    One softmax over all outputs of a two-task head would make a verb compete with the nouns.

    Args:
        logits: (num_labels,) of one clip.
        config: Config of the classifier.
        top_k: Classes of each task, at least 1.

    Returns:
        For each task, in the order of the outputs, its classes: the most likely first, fewer if it has no more.

    Raises:
        ValueError: If the logits are not those of one clip or not finite, `top_k` is less than 1, or `label_groups` is
            malformed.

    Examples:
        >>> import torch
        >>> from transformers import VideoMAEConfig
        >>> names = dict(enumerate(["cut", "wash", "knife", "pan", "hob"]))
        >>> config = VideoMAEConfig(id2label=names, label_groups={"verb": [0, 2], "noun": [2, 5]})
        >>> best = predict_labels(torch.tensor([1.0, 2.0, 7.0, 9.0, 8.0]), config)
        >>> best["verb"][0].label, best["noun"][0].label
        ('wash', 'pan')
    """
    if tuple(logits.shape) != (config.num_labels,):
        raise ValueError(
            f"logits must have the shape (num_labels,) = ({config.num_labels},) of one clip, got {tuple(logits.shape)}"
        )
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    check_finite(logits)
    predictions = {}
    for task in classifier_tasks(config):
        best = logits[task.start : task.stop].float().softmax(-1).topk(min(top_k, task.size))
        predictions[task.name] = [
            Prediction(task.name, index, output_name(config, task, index), probability)
            for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
    return predictions


def check_finite(logits: torch.Tensor, what: str = "the logits", where: str = "") -> None:
    """Refuses logits that are no answer; asked wherever logits become labels.

    Args:
        logits: Of any shape.
        what: What the message calls them.
        where: What it says after that.

    Raises:
        ValueError: If one is NaN or infinite.
    """
    if not logits.isfinite().all():
        raise ValueError(
            f"{what} are not finite{where}: the model may need a wider dtype, or its weights may be damaged"
        )


def output_name(config: Any, task: Task, index: int) -> str:
    """The name of an output.

    Args:
        config: Config of the classifier.
        task: The task that it belongs to.
        index: Its class index inside the task.

    Returns:
        The name; the index where the classifier has none.
    """
    return str(config.id2label.get(task.start + index, index))


def match_labels(
    names: Sequence[str] | None, task: Task, id2label: Mapping[int, str], by_name: bool | None = None
) -> list[int] | None:
    """Finds, for each class of a data set, the output of the classifier that means it.

    Checkpoints and data sets do not agree on the order of classes, nor quite on their spelling: see
    `hf_video_tome.data.class_names.match_names` for which names mean the same. Names that are integers, as those of
    folders `0` to `11`, are numbers of outputs where the outputs are not called so. All other names only have a place
    among each other, and one that comes from sorting them says nothing of the classifier.

    Args:
        names: The data set's names of its classes, or None where it has only numbers.
        task: The task that they answer.
        id2label: The classifier's names of its outputs.
        by_name: True to match names, False to take the data set's numbers (those that the names are, else their places
            in `names`), None for names where both sides have them, and for numbers where they can be trusted.

    Returns:
        For each class of the data set an output, 0 to `task.size` - 1, or None where numbers are taken as they are.

    Raises:
        ValueError: If it is not clear which output a class means, or two classes mean the same.

    Examples:
        >>> match_labels(["Riding_a bike", "abseiling"], Task("label", 0, 2), {0: "abseiling", 1: "riding a bike"})
        [1, 0]
        >>> match_labels(["0", "10", "2"], Task("label", 0, 12), {index: f"LABEL_{index}" for index in range(12)})
        [0, 10, 2]
    """
    if names is None:
        if by_name:
            raise ValueError(f"the data set has no names for its {task.name} classes to match those of the classifier")
        return None
    if by_name is False:
        return _by_number(names, task)
    outputs = [str(id2label.get(task.start + index, "")) for index in range(task.size)]
    found = match_names(names, outputs)
    order = [index for index in found if index is not None]
    if len(order) == len(names):
        return order
    if by_name is None and not order:
        named = [name for name in outputs if name and not re.fullmatch(r"LABEL_\d+", name)]
        if class_numbers(names) is not None and not any(class_numbers([name]) for name in named):
            return _by_number(names, task)
        if not named:
            _check_places(names, task)
            return None
    raise ValueError(_why_unmatched(names, outputs, found, task.name))


def _by_number(names: Sequence[str], task: Task) -> list[int] | None:
    """The numbers that the names are, else None for their places."""
    numbers = class_numbers(names)
    if numbers is None:
        if len(names) > task.size:
            raise ValueError(f"the data set has {len(names)} {task.name} classes, the classifier {task.size} outputs")
        return None
    if numbers == list(range(len(names))):
        return None  # as `ClassLabel(num_classes=...)` has them, of which a data set need not use all
    for position, number in enumerate(numbers):
        if number >= task.size:
            raise ValueError(
                f"the data set's {task.name} class {names[position]!r} is no number of the classifier's {task.size} "
                f"outputs, 0 to {task.size - 1}"
            )
        earlier = numbers.index(number)
        if earlier != position:
            raise ValueError(
                f"the data set's {task.name} classes {names[earlier]!r} and {names[position]!r} are the same number"
            )
    return numbers


def _check_places(names: Sequence[str], task: Task) -> None:
    """Refuses places as numbers, unless the data set has chosen them, and for all outputs."""
    if len(names) == task.size and list(names) != sorted(names):
        return
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    raise ValueError(
        f"the data set has {len(names)} {task.name} classes with names, the classifier {task.size} outputs without: "
        f"confirm that the place of a name ({shown}), from 0, is the number of its output (--labels number; "
        "match_labels_by_name=False), or give the names to the classifier (id2label)"
    )


def _why_unmatched(names: Sequence[str], outputs: Sequence[str], found: Sequence[int | None], task: str) -> str:
    """Says what keeps names from being matched."""
    spelling = SPELLINGS[-1]
    same, called = positions_by_spelling(names, spelling), positions_by_spelling(outputs, spelling)
    unmatched = [name for name, index in zip(names, found, strict=True) if index is None]
    unknown = [name for name in unmatched if not name or spelling(name) not in called]
    if unknown:
        shown = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        return (
            f"{len(unknown)} of the data set's {len(names)} {task} classes are no outputs of the classifier "
            f"({shown}; its own are {', '.join(map(repr, outputs[:3]))}, ...)"
        )
    text = spelling(unmatched[0])
    if len(called[text]) > 1:
        one, other = (outputs[index] for index in called[text][:2])
        which = (
            f"called {one!r}" if one == other else f"that the class {unmatched[0]!r} could mean, {one!r} and {other!r}"
        )
        return f"the classifier has two {task} outputs {which}, so classes cannot be matched by name"
    one, other = (names[index] for index in same[text][:2])
    return f"the data set's {task} classes {one!r} and {other!r} both mean the output {outputs[called[text][0]]!r}"


def names_digest(id2label: Mapping[int, str]) -> str:
    """Fingerprint of the names of all outputs in their order.

    Args:
        id2label: The classifier's names.

    Returns:
        16 hexadecimal digits.
    """
    names = [str(id2label[index]) for index in sorted(id2label)]
    return hashlib.sha256(repr(names).encode(errors="replace")).hexdigest()[:16]
