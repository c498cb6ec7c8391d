"""Accuracy computations shared by the metrics, `Trainer` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import torch

from .standard_errors import share_with_error


def top_k_accuracies(ranks: torch.Tensor, k: Iterable[int], prefix: str = "") -> dict[str, float]:
    """Returns top-k accuracies: the share of samples whose correct class is among the k best.

    Args:
        ranks: (N,) number of classes ranked above the correct one.
        k: Values of k.
        prefix: Prefix of the result names.

    Returns:
        `"{prefix}top_{k}_accuracy"`, 0 to 1, and `"{prefix}top_{k}_accuracy_standard_error"` for every k.

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
    """Returns the share of samples with the same prediction in two runs.

    Args:
        answers: (N,) class ids, or (N, G) for several tasks, which must all agree.
        expected: Class ids of the other run, likewise.

    Returns:
        The share, 0 to 1, and its standard error.

    Examples:
        >>> agreement(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[0, 1], [2, 4]]))[0]
        0.5
    """
    return share_with_error((answers == expected).reshape(len(answers), -1).all(dim=1))


class ClassAccuracies(TypedDict):
    """Accuracy per class."""

    mean_class_accuracy: float
    per_class_accuracy: list[float | None]
    per_class_count: list[int]


def class_accuracies(answers: torch.Tensor, labels: torch.Tensor, num_classes: int) -> ClassAccuracies:
    """Returns the accuracy per class, and its mean over the classes that occur.

    Args:
        answers: (N,) predicted class ids.
        labels: (N,) correct class ids.
        num_classes: Number of classes, C.

    Returns:
        `"mean_class_accuracy"`, 0 to 1; `"per_class_accuracy"`: list of C accuracies, None for classes without
        samples; `"per_class_count"`: list of C numbers of samples.

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
