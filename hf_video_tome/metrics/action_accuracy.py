"""Verb, noun and action accuracy, as a module of the `evaluate` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hf_video_tome.metrics import functional
from hf_video_tome.metrics.common import metric_info

_CITATION = """\
@article{damen2022rescaling,
  title = {Rescaling Egocentric Vision: Collection, Pipeline and Challenges for {EPIC-KITCHENS-100}},
  author = {Damen, Dima and Doughty, Hazel and Farinella, Giovanni Maria and Furnari, Antonino and Ma, Jian and
            Kazakos, Evangelos and Moltisanti, Davide and Munro, Jonathan and Perrett, Toby and Price, Will and
            Wray, Michael},
  journal = {International Journal of Computer Vision},
  year = {2022},
}"""


class ActionAccuracy(evaluate.Metric):
    """Top-k accuracy of each task of a classifier, such as verb and noun, and of all of them together, the action.

    Configs: `"default"` takes scores, `"ranked"` class ids that are ranked already.

    The outputs of one classifier are split into groups: 97 verbs and 300 nouns make 397. An action is one class of
    each group. It is right (top-1) where all groups are; it is among the best k where at most k - 1 combinations come
    before it by the product of their softmax probabilities. Among equal scores the lowest index comes first (among
    combinations that of the first group, then of the second), as with `torch.argmax`.

    Args:
        predictions: (N, C) logits (probabilities with `from_probabilities`); with "ranked" (N, G, K) class ids of each
            group, best first.
        references: (N, G) right class ids, counted from 0 within each group.
        label_groups: From the name of each of the G groups to its number of classes, in the order of the outputs; C in
            all. Any names but "action".
        k: How many of the best classes count, an integer or several, up to the size of the smallest group (or K).
            Default: 1 and 5.
        from_probabilities: Whether the predictions are probabilities (those of each group adding up to 1, such as an
            average over views) rather than logits.

    Returns:
        For every group and k `"{group}_top_{k}_accuracy"`, 0 to 1, and `"{group}_top_{k}_accuracy_standard_error"`,
        and the same for "action". With "ranked" the action has no k but 1: ids do not tell the order of combinations.

    Examples:
        >>> metric = ActionAccuracy()
        >>> logits = [[2.0, 0.0, 1.0, 0.0, 0.5], [2.0, 0.0, 0.0, 1.0, 0.5]]  # 2 verbs and 3 nouns
        >>> results = metric.compute(
        ...     predictions=logits, references=[[0, 0], [0, 2]], label_groups={"verb": 2, "noun": 3}, k=[1, 2]
        ... )
        >>> results["verb_top_1_accuracy"], results["noun_top_1_accuracy"], results["action_top_1_accuracy"]
        (1.0, 0.5, 0.5)
        >>> results["action_top_2_accuracy"]
        1.0
    """

    def _info(self) -> evaluate.MetricInfo:
        id_list = datasets.Sequence(datasets.Value("int64"))
        scores, ids = datasets.Sequence(datasets.Value("float64")), datasets.Sequence(id_list)
        return metric_info(
            self,
            {
                "default": datasets.Features({"predictions": scores, "references": id_list}),
                "ranked": datasets.Features({"predictions": ids, "references": id_list}),
            },
            _CITATION,
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        label_groups: Mapping[str, int] | None = None,
        k: int | Sequence[int] = (1, 5),
        from_probabilities: bool = False,
    ) -> dict[str, float]:
        if label_groups is None:
            raise ValueError(
                '`label_groups` must be given, as in compute(..., label_groups={"verb": 97, "noun": 300}).'
            )
        ranked = self.config_name == "ranked"
        predictions = functional.from_column(predictions, "predictions", depth=2 if ranked else 1)
        references = functional.from_column(references, "references", depth=1)
        if ranked:
            positions, wanted = self._ranked(predictions, references, label_groups, k, from_probabilities)
        else:
            positions, wanted = self._scores(predictions, references, label_groups, k, from_probabilities)

        results: dict[str, float] = {}
        for name, position in positions.items():
            for value in wanted:
                if name == "action" and ranked and value > 1:
                    continue
                share, error = functional.share_with_error(position < value)
                results[f"{name}_top_{value}_accuracy"] = share
                results[f"{name}_top_{value}_accuracy_standard_error"] = error
        return results

    def _scores(
        self,
        predictions: Any,
        references: Any,
        label_groups: Mapping[str, int],
        k: int | Sequence[int],
        from_probabilities: bool,
    ) -> tuple[dict[str, Any], list[int]]:
        groups = functional.split_groups(predictions, label_groups, "predictions")
        logs = {
            name: functional.log_probabilities(scores, True, f"predictions ({name})") if from_probabilities else scores
            for name, scores in groups.items()
        }
        sizes = [scores.shape[1] for scores in logs.values()]
        labels = functional.check_group_labels(references, sizes, len(predictions))
        wanted = functional.check_k(k, min(sizes), "classes of the smallest group")
        positions = {name: functional.ranks(scores, labels[:, i]) for i, (name, scores) in enumerate(logs.items())}
        return {**positions, "action": functional.joint_ranks(list(logs.values()), labels)}, wanted

    def _ranked(
        self,
        predictions: Any,
        references: Any,
        label_groups: Mapping[str, int],
        k: int | Sequence[int],
        from_probabilities: bool,
    ) -> tuple[dict[str, Any], list[int]]:
        if from_probabilities:
            raise ValueError("`from_probabilities` must be False with the config 'ranked', which takes class ids.")
        groups = functional.check_label_groups(label_groups)
        if predictions.ndim != 3 or predictions.shape[1] != len(groups):
            raise ValueError(
                f"`predictions` must be class ids of the shape (samples, {len(groups)}, ids), one list per group, got "
                f"{predictions.shape}."
            )
        labels = functional.check_group_labels(references, list(groups.values()), len(predictions))
        wanted = functional.check_k(k, predictions.shape[2], "class ids of each prediction")
        positions = {}
        for i, (name, size) in enumerate(groups.items()):
            ids = functional.check_ranked(predictions[:, i], num_classes=size, name=f"predictions ({name})")
            positions[name] = functional.ranked_positions(ids, labels[:, i])
        return {**positions, "action": np.maximum.reduce(list(positions.values()))}, wanted
