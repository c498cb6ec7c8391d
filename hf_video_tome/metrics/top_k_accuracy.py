"""Top-k accuracy, as a module of the `evaluate` library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from hf_video_tome.metrics import functional
from hf_video_tome.metrics.common import metric_info


class TopKAccuracy(evaluate.Metric):
    """Top-k accuracy: the share of samples whose right class is among the k best.

    Configs: `"default"` takes scores, `"ranked"` class ids that are ranked already.

    Among equal scores the class with the lowest index comes first, as with `torch.argmax`.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ranked" (N, K) class ids, best first.
        references: (N,) right class ids.
        k: How many of the best classes count, an integer or several, up to the number of classes (or ids). Default:
            1 and 5.

    Returns:
        For every k `"top_{k}_accuracy"`, 0 to 1, and `"top_{k}_accuracy_standard_error"`.

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
        reference = datasets.Value("int64")
        scores, ids = datasets.Sequence(datasets.Value("float64")), datasets.Sequence(datasets.Value("int64"))
        return metric_info(
            self,
            {
                "default": datasets.Features({"predictions": scores, "references": reference}),
                "ranked": datasets.Features({"predictions": ids, "references": reference}),
            },
        )

    def _compute(self, predictions: Any, references: Any, k: int | Sequence[int] = (1, 5)) -> dict[str, float]:
        predictions = functional.from_column(predictions, "predictions", depth=1)
        references = functional.from_column(references, "references", depth=0)
        if self.config_name == "ranked":
            predictions = functional.check_ranked(predictions)
            references = functional.check_labels(references, len(predictions))
            wanted = functional.check_k(k, predictions.shape[1], "class ids of each prediction")
            positions = functional.ranked_positions(predictions, references)
        else:
            predictions = functional.check_scores(predictions)
            references = functional.check_labels(references, *predictions.shape)
            wanted = functional.check_k(k, predictions.shape[1], "classes")
            positions = functional.ranks(predictions, references)

        results: dict[str, float] = {}
        for value in wanted:
            share, error = functional.share_with_error(positions < value)
            results[f"top_{value}_accuracy"] = share
            results[f"top_{value}_accuracy_standard_error"] = error
        return results
