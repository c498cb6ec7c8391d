"""Shares of right answers: the numbers that the metrics, `Trainer` and an evaluation give."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import torch

from .standard_errors import share_with_error


def top_k_accuracies(ranks: torch.Tensor, k: Iterable[int], prefix: str = "") -> dict[str, float]:
    """Returns for several k the share of samples whose right class is among the k best.

    Args:
        ranks: (N,) classes that come before the right one.
        k: How many of the best classes count.
        prefix: What the names begin with.

    Returns:
        For every k `"{prefix}top_{k}_accuracy"`, 0 to 1, and `"{prefix}top_{k}_accuracy_standard_error"`.

    Examples:
        >>> top_k_accuracies(torch.tensor([0, 0, 1, 4]), k=[1])
        {'top_1_accuracy': 0.5, 'top_1_accuracy_standard_error': 0.25}
    """
    results = {}
    for value in k:
        name = f"{prefix}top_{value}_accuracy"
        results[name], results[f"{name}_standard_error"] = share_with_error(ranks < value)
    return results


def agreement(answers: torch.Tensor, expected: torch.Tensor) -> tuple[float, float]:
    """Returns the share of samples with the same answer in two runs.

    Args:
        answers: (N,) class ids, or (N, G) of several tasks, which must all agree.
        expected: The same of the other run.

    Returns:
        The share, 0 to 1, and its standard error.

    Examples:
        >>> agreement(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 1], [2, 4]]))[0]
        0.5
    """
    return share_with_error((answers == expected).reshape(len(answers), -1).all(dim=1))


class ClassAccuracies(TypedDict):
    """Accuracy of the samples of each class."""

    mean_class_accuracy: float
    per_class_accuracy: list[float | None]
    per_class_count: list[int]


def class_accuracies(answers: torch.Tensor, labels: torch.Tensor, num_classes: int) -> ClassAccuracies:
    """Returns the accuracy of the samples of each class, and its mean over the classes that occur.

    Args:
        answers: (N,) class ids.
        labels: (N,) right classes.
        num_classes: C.

    Returns:
        `"mean_class_accuracy"`, 0 to 1; `"per_class_accuracy"`: list of C accuracies, None for a class that does not
        occur; `"per_class_count"`: list of C numbers of samples.

    Examples:
        >>> class_accuracies(torch.tensor([0, 0, 2]), torch.tensor([0, 2, 2]), num_classes=3)["per_class_accuracy"]
        [1.0, None, 0.5]
    """
    counts = labels.bincount(minlength=num_classes)
    hits = labels[answers == labels].bincount(minlength=num_classes)
    shares = hits.double() / counts
    return {
        "mean_class_accuracy": shares[counts > 0].mean().item(),
        "per_class_accuracy": [
            share if count else None for share, count in zip(shares.tolist(), counts.tolist(), strict=True)
        ],
        "per_class_count": counts.tolist(),
    }
