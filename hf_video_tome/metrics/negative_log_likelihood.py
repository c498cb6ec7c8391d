"""Mean negative log-likelihood, as a module of the `evaluate` library."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from hf_video_tome.metrics import functional
from hf_video_tome.metrics.common import metric_info


class NegativeLogLikelihood(evaluate.Metric):
    """Mean negative log-likelihood (cross-entropy) of the right class, in nats.

    Args:
        predictions: (N, C) logits, or probabilities with `from_probabilities`.
        references: (N,) right class ids.
        from_probabilities: Whether the predictions are probabilities (each row adding up to 1, such as an average over
            views) rather than logits, of which the softmax is taken.

    Returns:
        `"negative_log_likelihood"`, at least 0, and `"negative_log_likelihood_standard_error"` (NaN for a single
        sample). Where the right class has the probability 0, the mean is inf and its error NaN.

    Examples:
        >>> metric = NegativeLogLikelihood()
        >>> results = metric.compute(predictions=[[0.0, 0.0], [1.0, 1.0]], references=[0, 1])
        >>> round(results["negative_log_likelihood"], 4), results["negative_log_likelihood_standard_error"]
        (0.6931, 0.0)
    """

    def _info(self) -> evaluate.MetricInfo:
        scores, reference = datasets.Sequence(datasets.Value("float64")), datasets.Value("int64")
        return metric_info(self, {"default": datasets.Features({"predictions": scores, "references": reference})})

    def _compute(self, predictions: Any, references: Any, from_probabilities: bool = False) -> dict[str, float]:
        scores = functional.check_scores(functional.from_column(predictions, "predictions", depth=1))
        labels = functional.from_column(references, "references", depth=0)
        labels = functional.check_labels(labels, *scores.shape)
        if from_probabilities:
            functional.check_probabilities(scores)
        values = functional.negative_log_likelihood(scores, labels, from_probabilities)
        mean, error = functional.mean_with_error(values)
        return {"negative_log_likelihood": mean, "negative_log_likelihood_standard_error": error}
