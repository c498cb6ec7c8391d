"""Verb, noun and action accuracy for the `evaluate` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import torch

from hf_video_tome.metrics.accuracy import top_k_accuracies
from hf_video_tome.metrics.columns import (
    check_k,
    check_probabilities,
    to_group_ids,
    to_group_ranked_ids,
    to_group_scores,
)
from hf_video_tome.metrics.likelihood import log_probabilities
from hf_video_tome.metrics.module_info import CLASS_IDS, SCORES, metric_info
from hf_video_tome.metrics.ranking import joint_ranks, ranks, ranks_among

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
    """Top-k accuracy of each task of a classifier, such as verb and noun, and of their combination, the action.

    Configs: `"default"` takes scores, `"ranked"` takes ranked class ids.

    The outputs of one classifier are split into groups: 97 verbs and 300 nouns make 397. An action is one class from
    each group. It is correct (top-1) if all groups are; it is among the k best if at most k - 1 combinations have a
    larger product of softmax probabilities. Ties are resolved by the lowest index (first by that of the first group,
    then of the second), as with `torch.argmax`.

    Args:
        predictions: (N, C) logits (probabilities with `from_probabilities`); with "ranked" (N, G, K) class ids of each
            group, best first.
        references: (N, G) correct class ids, counted from 0 within each group.
        label_groups: Mapping from the name of each of the G groups to its number of classes, in the order of the
            outputs, C in total. The name "action" is reserved.
        k: One integer or several, up to the size of the smallest group (or K). Default: 1 and 5.
        from_probabilities: Whether the predictions are probabilities (adding up to 1 within each group, such as an
            average over views) rather than logits.

    Returns:
        `"{group}_top_{k}_accuracy"`, 0 to 1, and `"{group}_top_{k}_accuracy_standard_error"` for every group and k,
        and likewise for "action". With "ranked", the action has k = 1 only, since ids do not rank combinations.

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
        return metric_info(
            self,
            {"default": (SCORES, CLASS_IDS), "ranked": (datasets.Sequence(CLASS_IDS), CLASS_IDS)},
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
            raise ValueError('label_groups must be given, as in compute(..., label_groups={"verb": 97, "noun": 300})')
        ranked = self.config_name == "ranked"
        if ranked and from_probabilities:
            raise ValueError("from_probabilities must be False with the config 'ranked', which takes class ids")
        groups = (to_group_ranked_ids if ranked else to_group_scores)(predictions, label_groups)
        labels = to_group_ids(references, list(label_groups.values()), len(next(iter(groups.values()))))
        limit = min(group.shape[1] for group in groups.values())
        wanted = check_k(k, limit, "class ids of each prediction" if ranked else "classes of the smallest group")
        if from_probabilities:
            for name, group in groups.items():
                check_probabilities(group, f"predictions ({name})")
                groups[name] = log_probabilities(group, from_probabilities=True)
        group_ranks = [
            (ranks_among if ranked else ranks)(group, label)
            for group, label in zip(groups.values(), labels.T, strict=True)
        ]
        action = torch.stack(group_ranks).amax(dim=0) if ranked else joint_ranks(list(groups.values()), labels)
        results: dict[str, float] = {}
        for name, ranks_of in zip(groups, group_ranks, strict=True):
            results |= top_k_accuracies(ranks_of, wanted, f"{name}_")
        # Ids do not rank combinations.
        return results | top_k_accuracies(action, [k for k in wanted if not ranked or k == 1], "action_")
