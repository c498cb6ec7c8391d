"""Agreement with a reference run, as a module of the `evaluate` library."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from hf_video_tome.metrics import functional
from hf_video_tome.metrics.common import metric_info


class Agreement(evaluate.Metric):
    """Agreement: the share of samples with the same best class as in a reference run, such as one without merging.

    Configs: `"default"` takes scores of both runs, `"reference_ids"` scores and class ids of the reference run,
    `"ids"` class ids of both.

    Among equal scores the class with the lowest index is the best, as with `torch.argmax`. Whether the answers are
    right plays no part, so that no labels are needed.

    Args:
        predictions: (N, C) scores, logits or probabilities; with "ids" (N,) class ids.
        references: (N, C) scores of the reference run; with "reference_ids" and "ids" (N,) class ids.
        kl_divergence: Whether to compare the distributions too; only with "default".
        from_probabilities: Whether the scores are probabilities (each row adding up to 1) rather than logits; it
            matters for `kl_divergence` only.

    Returns:
        `"agreement"`, 0 to 1, and `"agreement_standard_error"`. With `kl_divergence` also `"kl_divergence"`, the mean
        of KL(reference || prediction) in nats, and `"kl_divergence_standard_error"` (NaN for a single sample); the
        mean is inf, and its error NaN, where a prediction rules out a class that the reference does not.

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
        ids, scores = datasets.Value("int64"), datasets.Sequence(datasets.Value("float64"))
        return metric_info(
            self,
            {
                "default": datasets.Features({"predictions": scores, "references": scores}),
                "reference_ids": datasets.Features({"predictions": scores, "references": ids}),
                "ids": datasets.Features({"predictions": ids, "references": ids}),
            },
        )

    def _compute(
        self, predictions: Any, references: Any, kl_divergence: bool = False, from_probabilities: bool = False
    ) -> dict[str, float]:
        if (kl_divergence or from_probabilities) and self.config_name != "default":
            name = "kl_divergence" if kl_divergence else "from_probabilities"
            raise ValueError(
                f"`{name}` must be False with the config {self.config_name!r}: it takes scores of both runs."
            )
        predictions = functional.from_column(predictions, "predictions", depth=0 if self.config_name == "ids" else 1)
        references = functional.from_column(references, "references", depth=1 if self.config_name == "default" else 0)
        num_classes = None
        if self.config_name == "ids":
            answers = functional.check_labels(predictions, name="predictions")
        else:
            predictions = functional.check_scores(predictions)
            num_classes = predictions.shape[1]
            answers = functional.top_classes(predictions)[:, 0]
        if self.config_name == "default":
            references = functional.check_scores(references, "references")
            if references.shape != predictions.shape:
                raise ValueError(
                    f"`references` must have the shape of `predictions`, {predictions.shape}, got {references.shape}."
                )
            expected = functional.top_classes(references)[:, 0]
        else:
            expected = functional.check_labels(references, len(answers), num_classes)

        share, error = functional.share_with_error(answers == expected)
        results = {"agreement": share, "agreement_standard_error": error}
        if from_probabilities:
            functional.check_probabilities(predictions)
            functional.check_probabilities(references, "references")
        if kl_divergence:
            divergences = functional.kl_divergence(references, predictions, from_probabilities)
            results["kl_divergence"], results["kl_divergence_standard_error"] = functional.mean_with_error(divergences)
        return results
