"""Accuracy per class and its mean for the `evaluate` library."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_video_tome.metrics.accuracy import ClassAccuracies, class_accuracies
from hf_video_tome.metrics.columns import is_count, to_class_ids, to_ranked_ids, to_scores
from hf_video_tome.metrics.module_info import CLASS_ID, CLASS_IDS, SCORES, metric_info
from hf_video_tome.metrics.ranking import top_classes


class PerClassAccuracy(evaluate.Metric):
    """Top-1 accuracy per class, and its mean over the classes that occur.

    Configs: `"default"` takes scores, `"ranked"` takes ranked class ids (and uses the first), `"ids"` takes one class
    id per sample.

    Ties are resolved by the lowest class index, as with `torch.argmax`.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ranked" (N, K) class ids, best first; with "ids"
            (N,) class ids.
        references: (N,) correct class ids.
        num_classes: Number of classes, C; required with "ranked" and "ids", which do not determine it.

    Returns:
        `"mean_class_accuracy"`: mean over the classes that occur in the references, 0 to 1; `"per_class_accuracy"`:
        list of C accuracies, None for classes without samples; `"per_class_count"`: list of C numbers of samples.

    Examples:
        >>> metric = PerClassAccuracy("ids")
        >>> results = metric.compute(predictions=[0, 0, 2, 0], references=[0, 0, 2, 2], num_classes=4)
        >>> results["mean_class_accuracy"], results["per_class_accuracy"], results["per_class_count"]
        (0.75, [1.0, None, 0.5, None], [2, 0, 2, 0])
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(
            self, {"default": (SCORES, CLASS_ID), "ranked": (CLASS_IDS, CLASS_ID), "ids": (CLASS_ID, CLASS_ID)}
        )

    def _compute(self, predictions: Any, references: Any, num_classes: int | None = None) -> ClassAccuracies:
        if num_classes is not None and not is_count(num_classes):
            raise ValueError(f"num_classes must be an integer of at least 1, got {num_classes!r}")
        if self.config_name == "default":
            scores = to_scores(predictions)
            if num_classes not in (None, scores.shape[1]):
                raise ValueError(f"num_classes must be the {scores.shape[1]} of the scores, got {num_classes}")
            num_classes, answers = scores.shape[1], top_classes(scores)[:, 0]
        elif num_classes is None:
            raise ValueError(f"num_classes must be given with the config {self.config_name!r}, got None")
        elif self.config_name == "ranked":
            answers = to_ranked_ids(predictions, num_classes)[:, 0]
        else:
            answers = to_class_ids(predictions, num_classes=num_classes, name="predictions")
        return class_accuracies(answers, to_class_ids(references, len(answers), num_classes), num_classes)
