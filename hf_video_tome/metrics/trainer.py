"""The metrics of a classifier as `transformers.Trainer` takes them: one flat dictionary of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .negative_log_likelihood import NegativeLogLikelihood
from .per_class_accuracy import PerClassAccuracy
from .top_k_accuracy import TopKAccuracy


def trainer_metrics(id2label: Mapping[int, str], per_class: bool = True) -> Callable[[Any], dict[str, float]]:
    """Makes a `compute_metrics` for `transformers.Trainer`.

    Trainer's loggers take numbers only, so the accuracy of each class comes under a name of its own; TensorBoard
    groups these by the slash.

    Args:
        id2label: Names of the classes: `model.config.id2label`.
        per_class: Whether to give the accuracy of each class that occurs, too.

    Returns:
        A function from an `EvalPrediction` to `"accuracy"`, its `"accuracy_standard_error"`,
        `"top_5_accuracy"` (with more than 5 classes), `"mean_class_accuracy"`, `"nll"` in nats and `"accuracy/{name}"`
        of each class, all but the NLL from 0 to 1.

    Raises:
        ValueError: If two classes have one name.

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
        raise ValueError(f"id2label must have a name of its own for each class, got {id2label}")

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits, labels = prediction.predictions, prediction.label_ids
        logits = np.asarray(logits[0] if isinstance(logits, tuple) else logits, dtype=np.float64)
        inputs = {"predictions": logits, "references": labels}
        ks = [1, 5] if logits.shape[1] > 5 else [1]
        top, classes = TopKAccuracy().compute(**inputs, k=ks), PerClassAccuracy().compute(**inputs)
        results = {name.removeprefix("top_1_"): float(value) for name, value in top.items()}
        results["mean_class_accuracy"] = classes["mean_class_accuracy"]
        results["nll"] = NegativeLogLikelihood().compute(**inputs)["negative_log_likelihood"]
        if per_class:
            for index, accuracy in enumerate(classes["per_class_accuracy"]):
                if accuracy is not None:
                    results[f"accuracy/{names[index]}"] = float(accuracy)
        return results

    return compute_metrics
