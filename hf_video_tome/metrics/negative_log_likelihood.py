"""Mean negative log-likelihood for the `evaluate` library."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_video_tome.metrics.columns import check_probabilities, to_class_ids, to_scores
from hf_video_tome.metrics.likelihood import log_probabilities, negative_log_likelihood
from hf_video_tome.metrics.module_info import CLASS_ID, SCORES, metric_info
from hf_video_tome.metrics.standard_errors import mean_with_error


class NegativeLogLikelihood(evaluate.Metric):
    """Mean negative log-likelihood (cross-entropy) of the correct class, in nats.

    Args:
        predictions: (N, C) logits, or probabilities with `from_probabilities`.
        references: (N,) correct class ids.
        from_probabilities: Whether the predictions are probabilities (each row adding up to 1, such as an average over
            views) rather than logits.

    Returns:
        `"negative_log_likelihood"`, at least 0, and `"negative_log_likelihood_standard_error"` (NaN for a single
        sample). The mean is inf, and its error NaN, if a correct class has probability 0.

    Examples:
        >>> metric = NegativeLogLikelihood()
        >>> results = metric.compute(predictions=[[0.0, 0.0], [1.0, 1.0]], references=[0, 1])
        >>> round(results["negative_log_likelihood"], 4), results["negative_log_likelihood_standard_error"]
        (0.6931, 0.0)
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(self, {"default": (SCORES, CLASS_ID)})

    def _compute(self, predictions: Any, references: Any, from_probabilities: bool = False) -> dict[str, float]:
        scores = to_scores(predictions)
        labels = to_class_ids(references, *scores.shape)
        if from_probabilities:
            check_probabilities(scores)
        mean, error = mean_with_error(negative_log_likelihood(log_probabilities(scores, from_probabilities), labels))
        return {"negative_log_likelihood": mean, "negative_log_likelihood_standard_error": error}
