"""Top-k accuracy for the `evaluate` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluate

from hf_video_tome.metrics.accuracy import top_k_accuracies
from hf_video_tome.metrics.columns import check_k, to_class_ids, to_ranked_ids, to_scores
from hf_video_tome.metrics.module_info import CLASS_ID, CLASS_IDS, SCORES, metric_info
from hf_video_tome.metrics.ranking import ranks, ranks_among


class TopKAccuracy(evaluate.Metric):
    """Top-k accuracy: the share of samples whose correct class is among the k best.

    Configs: `"default"` takes scores, `"ranked"` takes ranked class ids.

    Ties are resolved by the lowest class index, as with `torch.argmax`.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ranked" (N, K) class ids, best first.
        references: (N,) correct class ids.
        k: One integer or several, up to the number of classes (or ids). Default: 1 and 5.

    Returns:
        `"top_{k}_accuracy"`, 0 to 1, and `"top_{k}_accuracy_standard_error"` for every k.

    Examples:
        >>> metric = TopKAccuracy()
        >>> scores = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.3, 0.4, 0.3]]
        >>> results = metric.compute(predictions=scores, references=[1, 1, 2, 1], k=[1, 2])
        >>> results["top_1_accuracy"], round(results["top_1_accuracy_standard_error"], 4), results["top_2_accuracy"]
        (0.75, 0.2165, 1.0)
        >>> ranked = TopKAccuracy("ranked")
        >>> ranked.compute(predictions=[[3, 1], [2, 0]], references=[1, 2], k=1)["top_1_accuracy"]
        0.5
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, {"default": (SCORES, CLASS_ID), "ranked": (CLASS_IDS, CLASS_ID)})

    def _compute(self, predictions: Any, references: Any, k: int | Sequence[int] = (1, 5)) -> dict[str, float]:
        if self.config_name == "ranked":
            ids = to_ranked_ids(predictions)
            labels = to_class_ids(references, len(ids))
            return top_k_accuracies(ranks_among(ids, labels), check_k(k, ids.shape[1], "class ids of each prediction"))
        scores = to_scores(predictions)
        labels = to_class_ids(references, *scores.shape)
        return top_k_accuracies(ranks(scores, labels), check_k(k, scores.shape[1], "classes"))
