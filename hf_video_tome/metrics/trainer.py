"""Classification metrics for `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .accuracy import class_accuracies, top_k_accuracies
from .columns import to_class_ids, to_scores
from .likelihood import log_probabilities, negative_log_likelihood
from .ranking import ranks, top_classes
from .standard_errors import mean_with_error


def trainer_metrics(id2label: Mapping[int, str], per_class: bool = True) -> Callable[[Any], dict[str, float]]:
    """Returns a `compute_metrics` function for `transformers.Trainer`.

    Trainer's loggers only take numbers, so each class accuracy has its own name; TensorBoard groups them by the slash.

    Args:
        id2label: Class names: `model.config.id2label`.
        per_class: Whether to add the accuracy of each class that occurs.

    Returns:
        A function from an `EvalPrediction` to `"accuracy"`, its `"accuracy_standard_error"`,
        `"top_5_accuracy"` (with more than 5 classes), `"mean_class_accuracy"`, `"nll"` in nats and `"accuracy/{name}"`
        of each class, all from 0 to 1 except the NLL.

    Raises:
        ValueError: If two classes have the same name.

    Examples:
        >>> import numpy as np
        >>> from transformers import EvalPrediction
        >>> compute_metrics = trainer_metrics({0: "jump", 1: "run"})
        >>> logits, labels = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0]]), np.array([0, 1, 1])
        >>> results = compute_metrics(EvalPrediction(logits, labels))
        >>> results["accuracy/jump"], results["accuracy/run"], results["mean_class_accuracy"]
        (1.0, 0.5, 0.75)
    """
    names = {int(index): name for index, name in id2label.items()}
    if per_class and len(set(names.values())) < len(names):
        raise ValueError(f"id2label must have a unique name for each class, got {id2label}")

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits = prediction.predictions
        scores = to_scores(logits[0] if isinstance(logits, tuple) else logits)
        labels = to_class_ids(prediction.label_ids, *scores.shape)
        top = top_k_accuracies(ranks(scores, labels), [1, 5] if scores.shape[1] > 5 else [1])
        classes = class_accuracies(top_classes(scores)[:, 0], labels, scores.shape[1])
        results = {name.removeprefix("top_1_"): value for name, value in top.items()}
        results["mean_class_accuracy"] = classes["mean_class_accuracy"]
        results["nll"] = mean_with_error(negative_log_likelihood(log_probabilities(scores), labels))[0]
        if per_class:
            for index, accuracy in enumerate(classes["per_class_accuracy"]):
                if accuracy is not None:
                    results[f"accuracy/{names[index]}"] = accuracy
        return results

    return compute_metrics
