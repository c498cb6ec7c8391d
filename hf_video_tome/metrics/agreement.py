"""Agreement with a reference run for the `evaluate` library."""

from __future__ import annotations

from typing import Any

import evaluate

from hf_video_tome.metrics.accuracy import agreement
from hf_video_tome.metrics.columns import check_probabilities, to_class_ids, to_scores
from hf_video_tome.metrics.likelihood import kl_divergence as divergences_of
from hf_video_tome.metrics.likelihood import log_probabilities
from hf_video_tome.metrics.module_info import CLASS_ID, SCORES, metric_info
from hf_video_tome.metrics.ranking import top_classes
from hf_video_tome.metrics.standard_errors import mean_with_error


class Agreement(evaluate.Metric):
    """Share of samples with the same predicted class as a reference run, such as one without merging.

    Configs: `"default"` takes scores of both runs, `"reference_ids"` takes scores and the reference run's class ids,
    `"ids"` takes class ids of both.

    Ties are resolved by the lowest class index, as with `torch.argmax`. No labels are needed.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ids" (N,) class ids.
        references: (N, C) scores of the reference run; with "reference_ids" and "ids" (N,) class ids.
        kl_divergence: Whether to compare the distributions too; only with "default".
        from_probabilities: Whether the scores are probabilities (each row adding up to 1) rather than logits; only
            affects `kl_divergence`.

    Returns:
        `"agreement"`, 0 to 1, and `"agreement_standard_error"`. With `kl_divergence` also `"kl_divergence"`, the mean
        of KL(reference || prediction) in nats, and `"kl_divergence_standard_error"` (NaN for a single sample). The
        mean is inf, and its error NaN, if a prediction gives zero probability to a class that the reference does not.

    Examples:
        >>> metric = Agreement()
        >>> results = metric.compute(
        ...     predictions=[[2.0, 1.0], [0.0, 1.0]], references=[[2.0, 1.0], [1.0, 0.0]], kl_divergence=True
        ... )
        >>> results["agreement"], round(results["kl_divergence"], 4)
        (0.5, 0.2311)
        >>> Agreement("ids").compute(predictions=[4, 7], references=[4, 7])["agreement"]
        1.0
    """

    def _info(self) -> evaluate.MetricInfo:
        return metric_info(
            self, {"default": (SCORES, SCORES), "reference_ids": (SCORES, CLASS_ID), "ids": (CLASS_ID, CLASS_ID)}
        )

    def _compute(
        self, predictions: Any, references: Any, kl_divergence: bool = False, from_probabilities: bool = False
    ) -> dict[str, float]:
        if self.config_name != "default":
            if kl_divergence or from_probabilities:
                name = "kl_divergence" if kl_divergence else "from_probabilities"
                raise ValueError(
                    f"{name} must be False with the config {self.config_name!r}: it takes scores of both runs"
                )
            num_classes = None
            if self.config_name == "ids":
                answers = to_class_ids(predictions, name="predictions")
            else:
                scores = to_scores(predictions)
                num_classes, answers = scores.shape[1], top_classes(scores)[:, 0]
            share, error = agreement(answers, to_class_ids(references, len(answers), num_classes))
            return {"agreement": share, "agreement_standard_error": error}

        scores, expected = to_scores(predictions), to_scores(references, "references")
        if expected.shape != scores.shape:
            raise ValueError(
                f"references must have the shape of predictions, {tuple(scores.shape)}, got {tuple(expected.shape)}"
            )
        if from_probabilities:
            check_probabilities(scores)
            check_probabilities(expected, "references")
        share, error = agreement(top_classes(scores), top_classes(expected))
        results = {"agreement": share, "agreement_standard_error": error}
        if kl_divergence:
            logs = [log_probabilities(values, from_probabilities) for values in (expected, scores)]
            results["kl_divergence"], results["kl_divergence_standard_error"] = mean_with_error(divergences_of(*logs))
        return results
