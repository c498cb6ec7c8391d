"""Settings and published results of the table in "Video, How Do Your Tokens Merge?" (CVPRW 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..api import paper_settings

HYBRID_THRESHOLDS = {"videomae": 0.8, "vivit": 0.4}
"""Best thresholds of the hybrid mode, according to the paper."""

PAPER_CHECKPOINTS = {
    ("videomae", "kinetics400"): "MCG-NJU/videomae-base-finetuned-kinetics",
    ("videomae", "something-something-v2"): "MCG-NJU/videomae-base-finetuned-ssv2",
    ("vivit", "kinetics400"): "google/vivit-b-16x2-kinetics400",
    ("timesformer", "kinetics400"): "facebook/timesformer-base-finetuned-k400",
    ("timesformer", "something-something-v2"): "facebook/timesformer-base-finetuned-ssv2",
}
"""Hub checkpoints by architecture and dataset; the paper's others are not published in this format."""


@dataclass(frozen=True)
class PublishedRow:
    """Row of the paper's table, top-1 accuracies in percent.

    Attributes:
        kinetics400: Accuracy on Kinetics-400.
        something_something_v2: Accuracy on Something-Something v2.
        epic_kitchens_100: Action, verb and noun accuracy on EPIC-KITCHENS-100.
    """

    kinetics400: float
    something_something_v2: float
    epic_kitchens_100: tuple[float, float, float]


PUBLISHED: dict[str, dict[str, PublishedRow]] = {
    "videomae": {
        "none": PublishedRow(62.09, 64.58, (35.70, 61.49, 46.89)),
        "random_drop": PublishedRow(55.02, 57.29, (28.53, 55.45, 39.45)),
        "drop": PublishedRow(56.65, 60.33, (31.02, 57.70, 42.43)),
        "random_merge": PublishedRow(20.64, 22.89, (5.44, 26.86, 10.07)),
        "merge": PublishedRow(56.10, 61.10, (31.27, 58.00, 42.39)),
        "hybrid": PublishedRow(56.53, 61.04, (31.62, 57.90, 42.88)),
    },
    "vivit": {
        "none": PublishedRow(63.43, 50.63, (35.82, 58.19, 51.59)),
        "random_drop": PublishedRow(59.95, 46.71, (30.36, 54.24, 45.51)),
        "drop": PublishedRow(58.00, 45.36, (30.12, 53.20, 46.90)),
        "random_merge": PublishedRow(28.88, 19.15, (5.78, 28.88, 14.82)),
        "merge": PublishedRow(63.08, 50.15, (35.11, 57.24, 51.33)),
        "hybrid": PublishedRow(63.09, 50.15, (35.21, 57.48, 51.30)),
    },
}
"""Published accuracies by model type and mode ("none" is r = 0), without those of divided space-time models."""


def paper_table_settings(model_type: str) -> list[dict[str, Any]]:
    """Returns the settings of the paper's table for an architecture, the unmerged model first.

    Args:
        model_type: As in the config.

    Returns:
        Settings for `evaluate`, with the hybrid mode if the paper gives a threshold.

    Raises:
        ValueError: If the paper has no settings for the architecture.

    Examples:
        >>> [(line["mode"], line["r"]) for line in paper_table_settings("vivit")][:3]
        [('merge', 0), ('random_drop', 300), ('drop', 300)]
    """
    base = paper_settings(model_type)
    lines = [base | {"r": 0}]
    lines += [base | {"mode": mode} for mode in ("random_drop", "drop", "random_merge", "merge")]
    if model_type in HYBRID_THRESHOLDS:
        lines.append(base | {"mode": "hybrid", "threshold": HYBRID_THRESHOLDS[model_type]})
    return lines


def published_top_1(model_type: str, dataset: str, settings: dict[str, Any]) -> dict[str, float]:
    """Returns the published accuracies for one row of the paper's table.

    Args:
        model_type: As in the config.
        dataset: "kinetics400", "something-something-v2" or "epic-kitchens-100".
        settings: One of `paper_table_settings`.

    Returns:
        Top-1 accuracy, 0 to 1, by task: "label", or "action", "verb" and "noun". Empty if unknown.

    Examples:
        >>> published_top_1("vivit", "kinetics400", {"r": 300, "mode": "merge"})
        {'label': 0.6308}
    """
    row = PUBLISHED.get(model_type, {}).get(settings["mode"] if settings["r"] else "none")
    value = getattr(row, dataset.replace("-", "_"), None)
    if value is None:
        return {}
    tasks = ("action", "verb", "noun") if isinstance(value, tuple) else ("label",)
    values = value if isinstance(value, tuple) else (value,)
    return {task: round(percent / 100, 4) for task, percent in zip(tasks, values, strict=True)}
