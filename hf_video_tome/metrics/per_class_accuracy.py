"""Accuracy per class and its mean, as a module of the `evaluate` library."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np

from hf_video_tome.metrics import functional
from hf_video_tome.metrics.common import metric_info


class PerClassAccuracy(evaluate.Metric):
    """Accuracy (top-1) of the samples of each class, and its mean over the classes that occur.

    Configs: `"default"` takes scores, `"ranked"` class ids that are ranked already (of which the first counts) and
    `"ids"` one class id per sample.

    Among equal scores the class with the lowest index is the answer, as with `torch.argmax`.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ranked" (N, K) class ids, best first; with "ids"
            (N,) class ids.
        references: (N,) right class ids.
        num_classes: C. Scores tell it; class ids do not, so that it must be given with "ranked" and "ids".

    Returns:
        `"mean_class_accuracy"`: mean over the classes that occur in the references, 0 to 1; `"per_class_accuracy"`:
        list of C accuracies, None for a class that does not occur; `"per_class_count"`: list of C numbers of samples.

    Examples:
        >>> metric = PerClassAccuracy("ids")
        >>> results = metric.compute(predictions=[0, 0, 2, 0], references=[0, 0, 2, 2], num_classes=4)
        >>> results["mean_class_accuracy"], results["per_class_accuracy"], results["per_class_count"]
        (0.75, [1.0, None, 0.5, None], [2, 0, 2, 0])
    """

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        scores, ids = datasets.Sequence(datasets.Value("float64")), datasets.Sequence(datasets.Value("int64"))
        return metric_info(
            self,
            {
                "default": datasets.Features({"predictions": scores, "references": label}),
                "ranked": datasets.Features({"predictions": ids, "references": label}),
                "ids": datasets.Features({"predictions": label, "references": label}),
            },
        )

    def _compute(self, predictions: Any, references: Any, num_classes: int | None = None) -> dict[str, Any]:
        predictions = functional.from_column(predictions, "predictions", depth=0 if self.config_name == "ids" else 1)
        references = functional.from_column(references, "references", depth=0)
        if num_classes is not None and (
            isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 1
        ):
            raise ValueError(f"`num_classes` must be an integer of at least 1, got {num_classes!r}.")
        if self.config_name == "default":
            scores = functional.check_scores(predictions)
            if num_classes not in (None, scores.shape[1]):
                raise ValueError(f"`num_classes` must be the {scores.shape[1]} of the scores, got {num_classes}.")
            num_classes = scores.shape[1]
            answers = functional.top_classes(scores)[:, 0]
        elif num_classes is None:
            raise ValueError(f"`num_classes` must be given with the config {self.config_name!r}: ids do not tell it.")
        elif self.config_name == "ranked":
            answers = functional.check_ranked(predictions, num_classes=num_classes)[:, 0]
        else:
            answers = functional.check_labels(predictions, num_classes=num_classes, name="predictions")
        labels = functional.check_labels(references, len(answers), num_classes)

        counts = np.bincount(labels, minlength=num_classes)
        hits = np.bincount(labels[answers == labels], minlength=num_classes)
        occurs = counts > 0
        return {
            "mean_class_accuracy": float((hits[occurs] / counts[occurs]).mean()),
            "per_class_accuracy": [
                hit / count if count else None for hit, count in zip(hits.tolist(), counts.tolist(), strict=True)
            ],
            "per_class_count": counts.tolist(),
        }
