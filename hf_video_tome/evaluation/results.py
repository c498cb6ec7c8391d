"""Computation of predictions from logits, and of results from predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import torch

from ..metrics.accuracy import agreement, class_accuracies, top_k_accuracies
from ..metrics.likelihood import log_probabilities, negative_log_likelihood
from ..metrics.ranking import joint_ranks, ranks, top_classes
from ..metrics.standard_errors import mean_with_error
from ..tasks import ACTION, Task
from .journal import Row

_DIGITS = 6  # of stored log-probabilities


def predict_video(
    views: torch.Tensor, tasks: Sequence[Task], labels: Sequence[int] | None, top_k: int = 5
) -> dict[str, Any]:
    """Returns the prediction for a video from the logits of all its views.

    Averages the softmax probabilities of the views within each task.

    Args:
        views: (V, C) logits.
        tasks: Tasks of the C outputs.
        labels: The correct output within each task, or None.
        top_k: Number of classes to keep.

    Returns:
        For each task, prefixed with its name: `label` (no suffix), `_top` (classes, best first), `_log_probabilities`
        (of those), `_rank` (of the correct class, 0 is best) and `_nll`; for several tasks also `action_rank` and
        `action_nll` of their combination.

    Examples:
        >>> row = predict_video(torch.tensor([[0.0, 2.0, 1.0]]), [Task("label", 0, 3)], labels=[2], top_k=2)
        >>> row["label"], row["label_top"], row["label_rank"]
        (2, [1, 2], 1)
    """
    row: dict[str, Any] = {}
    averages = []
    for number, task in enumerate(tasks):
        logs = log_probabilities(views[:, task.start : task.stop])
        average = logs.logsumexp(dim=0, keepdim=True) - math.log(len(logs))
        averages.append(average)
        best = top_classes(average, min(top_k, task.size))[0]
        rank = nll = None
        if labels is not None:
            label = torch.tensor(labels[number : number + 1])
            rank = ranks(average, label).item()
            nll = round(negative_log_likelihood(average, label).item(), _DIGITS)
        row |= {
            task.name: None if labels is None else labels[number],
            f"{task.name}_top": best.tolist(),
            f"{task.name}_log_probabilities": [round(value, _DIGITS) for value in average[0, best].tolist()],
            f"{task.name}_rank": rank,
            f"{task.name}_nll": nll,
        }
    if len(tasks) > 1:
        known = labels is not None
        row[f"{ACTION}_rank"] = joint_ranks(averages, torch.tensor([labels])).item() if known else None
        row[f"{ACTION}_nll"] = round(sum(row[f"{task.name}_nll"] for task in tasks), _DIGITS) if known else None
    return row


@dataclass(frozen=True)
class Share:
    """Share of the videos.

    Attributes:
        value: The share, 0 to 1.
        standard_error: Its standard error, from the number of videos.
    """

    value: float
    standard_error: float


@dataclass(frozen=True)
class Difference:
    """Difference between two shares of the same videos.

    Attributes:
        value: The difference, -1 to 1.
        standard_error: Its standard error, smaller than that of either share because most videos count equally in
            both. None for a single video.
    """

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class TaskResults:
    """Results of one task.

    Attributes:
        top_1: Top-1 accuracy.
        top_5: Top-5 accuracy.
        nll: Mean negative log-likelihood of the correct class, in nats.
        nll_standard_error: Its standard error; None for a single video.
        mean_class_accuracy: Mean accuracy over the classes that occur; None for the action, which combines tasks.
        per_class: Mapping from each class that occurs to its accuracy and number of videos.
    """

    top_1: Share
    top_5: Share
    nll: float
    nll_standard_error: float | None
    mean_class_accuracy: float | None
    per_class: dict[int, tuple[float, int]]


@dataclass(frozen=True)
class SettingResults:
    """Results with one of the settings.

    Attributes:
        changes: The token merging settings as given.
        resolved: All token merging settings, with the architecture's defaults; empty for a stock model.
        token_counts: Number of tokens before the first and after each layer; None for a stock model.
        tasks: Results by task name; for several tasks also "action", their combination. Empty without labels.
        agreement: Share of videos with the same prediction (for all tasks) as the reference; None for the reference
            itself.
        top_1_difference: Accuracy (all tasks correct) minus that of the reference, on the same videos; None for the
            reference itself and without labels.
        num_compared: Number of videos readable in both.
    """

    changes: dict[str, Any]
    resolved: dict[str, Any]
    token_counts: list[int] | None
    tasks: dict[str, TaskResults]
    agreement: Share | None
    top_1_difference: Difference | None
    num_compared: int

    @property
    def main(self) -> TaskResults | None:
        """The main results: those of the action if there are several tasks."""
        return self.tasks.get(ACTION) or next(iter(self.tasks.values()), None)


@dataclass(frozen=True)
class EvaluationResults:
    """Results of an evaluation.

    Attributes:
        run: Identity of the evaluation, as in `run.json`.
        num_videos: Number of videos in the dataset.
        num_labelled: Number of readable videos with a label, on which accuracies are computed.
        failures: Mapping from the video_id of each unreadable video to the reason.
        settings: Results with each setting, in the order given.
    """

    run: dict[str, Any]
    num_videos: int
    num_labelled: int
    failures: dict[str, str]
    settings: tuple[SettingResults, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the results as a JSON-safe dictionary."""
        return asdict(self)


def summarize(
    run: Mapping[str, Any],
    rows: Sequence[Row],
    tasks: Sequence[Task],
    reference: Mapping[str, Row] | None = None,
) -> EvaluationResults:
    """Computes results from predictions, with the functions of `hf_video_tome.metrics`.

    Args:
        run: Content of `run.json`.
        rows: Rows of `predictions.jsonl`.
        tasks: Tasks of the classifier.
        reference: Rows by video_id to compare all settings with, on the videos present in both; None compares with
            the first setting.

    Returns:
        The results.
    """
    failures = {row["video_id"]: row["error"] for row in rows if "error" in row}
    by_setting: list[list[Row]] = [[] for _ in run["settings"]]
    for row in rows:
        if "error" not in row:
            by_setting[row["setting"]].append(row)
    external = reference is not None
    if reference is None:
        reference = {row["video_id"]: row for row in by_setting[0]}
    results = []
    for index, (setting, predictions) in enumerate(zip(run["settings"], by_setting, strict=True)):
        labelled = [row for row in predictions if row[tasks[0].name] is not None]
        pairs = [(row, reference[row["video_id"]]) for row in predictions if row["video_id"] in reference]
        if not (external or index > 0):
            pairs = []  # with itself
        results.append(
            SettingResults(
                changes=setting["changes"],
                resolved=setting["resolved"],
                token_counts=setting["token_counts"],
                tasks=_task_results(labelled, tasks) if labelled else {},
                agreement=_agreement(pairs, tasks) if pairs else None,
                top_1_difference=_difference(pairs, tasks),
                num_compared=len(pairs),
            )
        )
    return EvaluationResults(
        run=dict(run),
        num_videos=run["num_videos"],
        num_labelled=sum(row[tasks[0].name] is not None for row in by_setting[0]),
        failures=failures,
        settings=tuple(results),
    )


_SHARE = {"value": Real, "standard_error": Real}
_SHAPE = {
    "run": {"dtype": str, "weights": str, "mixed_precision": str, "device": str, "sampling": {}, "tasks": {"*": int}},
    "num_videos": int,
    "num_labelled": int,
    "failures": {"*": str},
    "settings": [
        {
            "changes": {},
            "resolved": {},
            "token_counts": ([int], None),
            "tasks": {"*": {"top_1": _SHARE, "top_5": _SHARE, "nll": Real}},
            "agreement": (_SHARE, None),
            "top_1_difference": ({"value": Real, "standard_error": (Real, None)}, None),
        }
    ],
}
"""Required structure of `results.json`: entries of objects ("*" for any), items of lists, or None."""


def check_results(content: object) -> None:
    """Checks the content of a `results.json`.

    Args:
        content: Its parsed content.

    Raises:
        ValueError: If an entry is missing or has the wrong type; the message names the first one.
    """
    _check(content, _SHAPE, "")


def _check(content: Any, shape: Any, name: str) -> None:
    if isinstance(shape, tuple):
        if content is None:
            return
        shape = shape[0]
    kind: Any = type(shape) if isinstance(shape, (dict, list)) else shape
    if not isinstance(content, kind) or content == []:
        expected = {list: "a list", dict: "an object", str: "a string"}.get(kind, "a number")
        raise ValueError(f"{name or 'it'} must be {expected}, got {json.dumps(content):.80}")
    if isinstance(shape, list):
        for number, item in enumerate(content):
            _check(item, shape[0], f"{name}[{number}]")
    elif isinstance(shape, dict):
        for key, inner in shape.items():
            for found in content if key == "*" else [key]:
                _check(content.get(found), inner, f"{name}.{found}".lstrip("."))


def _task_results(rows: Sequence[Row], tasks: Sequence[Task]) -> dict[str, TaskResults]:
    results = {}
    for task in tasks:
        labels = torch.tensor([row[task.name] for row in rows])
        classes = class_accuracies(_answers(rows, [task])[:, 0], labels, task.size)
        per_class = zip(classes["per_class_accuracy"], classes["per_class_count"], strict=True)
        results[task.name] = TaskResults(
            **_rank_results(rows, task.name),
            mean_class_accuracy=classes["mean_class_accuracy"],
            per_class={index: (share, count) for index, (share, count) in enumerate(per_class) if share is not None},
        )
    if len(tasks) > 1:
        results[ACTION] = TaskResults(**_rank_results(rows, ACTION), mean_class_accuracy=None, per_class={})
    return results


def _answers(rows: Iterable[Row], tasks: Sequence[Task]) -> torch.Tensor:
    """Returns the predicted classes (rows, tasks)."""
    return torch.tensor([[row[f"{task.name}_top"][0] for task in tasks] for row in rows])


def _rank_results(rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Computes top-k accuracies from ranks, which also works for the action and for any number of kept classes."""
    top = top_k_accuracies(torch.tensor([row[f"{name}_rank"] for row in rows]), [1, 5])
    nll, error = mean_with_error([row[f"{name}_nll"] for row in rows])
    return {
        **{f"top_{k}": Share(top[f"top_{k}_accuracy"], top[f"top_{k}_accuracy_standard_error"]) for k in (1, 5)},
        "nll": nll,
        "nll_standard_error": None if math.isnan(error) else error,
    }


def _agreement(pairs: Sequence[tuple[Row, Row]], tasks: Sequence[Task]) -> Share:
    own, others = zip(*pairs, strict=True)
    return Share(*agreement(_answers(own, tasks), _answers(others, tasks)))


def _difference(pairs: Sequence[tuple[Row, Row]], tasks: Sequence[Task]) -> Difference | None:
    keys = [f"{task.name}_rank" for task in tasks]
    gains = [
        float(not any(row[key] for key in keys)) - float(not any(other[key] for key in keys))
        for row, other in pairs
        if not any(each[key] is None for each in (row, other) for key in keys)
    ]
    if not gains:
        return None
    value, error = mean_with_error(gains)
    return Difference(value, None if math.isnan(error) else error)
