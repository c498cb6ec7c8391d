"""Tasks and predictions of a classifier, and the match of its outputs with the classes of a dataset."""

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
"""Name for all tasks of a classifier together."""


@dataclass(frozen=True)
class Task:
    """Task of a classifier: a range of its outputs.

    Attributes:
        name: "label", or the name of a label group ("verb", "noun"); also the label column of the dataset.
        start: First output of the task.
        size: Number of outputs.
    """

    name: str
    start: int
    size: int

    @property
    def stop(self) -> int:
        """End of the range of outputs, exclusive."""
        return self.start + self.size


def classifier_tasks(config: Any) -> tuple[Task, ...]:
    """Splits the outputs of a classifier into its tasks.

    A two-task head is one classifier with outputs divided by `label_groups` in its config, as half-open ranges: verb
    and noun of EPIC-KITCHENS-100 are `{"verb": [0, 97], "noun": [97, 397]}`. (Ranges rather than sizes, because
    configs are saved with sorted keys.) Any other classifier has one task, "label".

    Args:
        config: Config of a video classifier.

    Returns:
        The tasks, in the order of the outputs.

    Raises:
        ValueError: If `label_groups` is not a mapping from names to ranges that divide the `num_labels` outputs.

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
    """Predicted class.

    Attributes:
        task: Name of the task: "label", or "verb" or "noun" for a two-task head.
        index: Class index within the task, from 0.
        label: Class name; the index if the classifier has no name for it.
        probability: Probability among the classes of the task, 0 to 1.
    """

    task: str
    index: int
    label: str
    probability: float


def predict_labels(logits: torch.Tensor, config: Any, top_k: int = 1) -> dict[str, list[Prediction]]:
    """Returns the most likely classes of a clip, separately for each task of the classifier.

    A single softmax over all outputs of a two-task head would make verbs compete with nouns.

    Args:
        logits: (num_labels,) float, logits of one clip.
        config: Config of the classifier.
        top_k: Number of classes per task, at least 1.

    Returns:
        The classes of each task, most likely first; fewer than `top_k` if the task has no more.

    Raises:
        ValueError: If the logits have another shape or are not finite, `top_k` is less than 1, or `label_groups` is
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
    """Checks that logits are finite; called wherever logits become labels.

    Args:
        logits: Logits of any shape.
        what: Name of the logits in the message.
        where: Text after "not finite" in the message.

    Raises:
        ValueError: If a logit is NaN or infinite.
    """
    if not logits.isfinite().all():
        raise ValueError(
            f"{what} are not finite{where}: the model may need a wider dtype, or its weights may be damaged"
        )


def output_name(config: Any, task: Task, index: int) -> str:
    """Returns the name of an output.

    Args:
        config: Config of the classifier.
        task: The task.
        index: Class index within the task.

    Returns:
        The name; the index if the classifier has no name for it.
    """
    return str(config.id2label.get(task.start + index, index))


def match_labels(
    names: Sequence[str] | None, task: Task, id2label: Mapping[int, str], by_name: bool | None = None
) -> list[int] | None:
    """Matches each class of a dataset with an output of the classifier.

    Checkpoints and datasets differ in the order of classes and partly in their spelling:
    `hf_video_tome.data.class_names.match_names` says which names are the same. Integer names, such as folders `0` to
    `11`, are output numbers unless the outputs themselves have integer names. Other names only have an index, and the
    index in a sorted list says nothing about the classifier.

    Args:
        names: Class names of the dataset, or None if it only has numbers.
        task: The task that the classes belong to.
        id2label: Output names of the classifier.
        by_name: True to match names; False to use the numbers of the dataset (integer names, else the index in
            `names`); None to match names if both sides have them, and use numbers if they can be trusted.

    Returns:
        An output for each class of the dataset, 0 to `task.size` - 1, or None if class numbers are output numbers.

    Raises:
        ValueError: If the output of a class is ambiguous, or two classes match the same output.

    Examples:
        >>> match_labels(["Riding_a bike", "abseiling"], Task("label", 0, 2), {0: "abseiling", 1: "riding a bike"})
        [1, 0]
        >>> match_labels(["0", "10", "2"], Task("label", 0, 12), {index: f"LABEL_{index}" for index in range(12)})
        [0, 10, 2]
    """
    if names is None:
        if by_name:
            raise ValueError(f"the dataset has no names for its {task.name} classes to match those of the classifier")
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
    """Returns the numbers that the names stand for, or None for their index in the list."""
    numbers = class_numbers(names)
    if numbers is None:
        if len(names) > task.size:
            raise ValueError(f"the dataset has {len(names)} {task.name} classes, the classifier {task.size} outputs")
        return None
    if numbers == list(range(len(names))):
        return None  # as in `ClassLabel(num_classes=...)`; a dataset need not use all of them
    for position, number in enumerate(numbers):
        if number >= task.size:
            raise ValueError(
                f"the dataset's {task.name} class {names[position]!r} is not the number of one of the classifier's "
                f"{task.size} outputs, 0 to {task.size - 1}"
            )
        earlier = numbers.index(number)
        if earlier != position:
            raise ValueError(
                f"the dataset's {task.name} classes {names[earlier]!r} and {names[position]!r} are the same number"
            )
    return numbers


def _check_places(names: Sequence[str], task: Task) -> None:
    """Checks that the order of the names was chosen for all outputs, and does not just come from sorting them."""
    if len(names) == task.size and list(names) != sorted(names):
        return
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    raise ValueError(
        f"the dataset has {len(names)} {task.name} classes with names, the classifier {task.size} outputs without: "
        f"confirm that the index of a name ({shown}), from 0, is the number of its output (--labels number; "
        "match_labels_by_name=False), or give the names to the classifier (id2label)"
    )


def _why_unmatched(names: Sequence[str], outputs: Sequence[str], found: Sequence[int | None], task: str) -> str:
    """Explains why names cannot be matched."""
    spelling = SPELLINGS[-1]
    same, called = positions_by_spelling(names, spelling), positions_by_spelling(outputs, spelling)
    unmatched = [name for name, index in zip(names, found, strict=True) if index is None]
    unknown = [name for name in unmatched if not name or spelling(name) not in called]
    if unknown:
        shown = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        return (
            f"the classifier has no outputs for {len(unknown)} of the dataset's {len(names)} {task} classes "
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
    return f"the dataset's {task} classes {one!r} and {other!r} both mean the output {outputs[called[text][0]]!r}"


def names_digest(id2label: Mapping[int, str]) -> str:
    """Returns a fingerprint of the names of all outputs in order.

    Args:
        id2label: Output names of the classifier.

    Returns:
        16 hexadecimal digits.
    """
    names = [str(id2label[index]) for index in sorted(id2label)]
    return hashlib.sha256(repr(names).encode(errors="replace")).hexdigest()[:16]
