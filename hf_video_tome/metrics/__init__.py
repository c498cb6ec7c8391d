"""Video classification metrics for the `evaluate` library, computed in plain torch.

Metrics can be imported, or loaded from their file with `evaluate.load`; neither needs a network. The names below are
imported on first use, as `evaluate` is slow to import.

Examples:
    >>> from hf_video_tome.metrics import TopKAccuracy
    >>> scores, labels = [[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]], [1, 1]
    >>> TopKAccuracy().compute(predictions=scores, references=labels, k=[1, 2])["top_2_accuracy"]
    1.0
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .action_accuracy import ActionAccuracy
    from .agreement import Agreement
    from .negative_log_likelihood import NegativeLogLikelihood
    from .per_class_accuracy import PerClassAccuracy
    from .top_k_accuracy import TopKAccuracy
    from .trainer import trainer_metrics

__all__ = [
    "ActionAccuracy",
    "Agreement",
    "NegativeLogLikelihood",
    "PerClassAccuracy",
    "TopKAccuracy",
    "metric_path",
    "trainer_metrics",
]

_METRICS = ("action_accuracy", "agreement", "negative_log_likelihood", "per_class_accuracy", "top_k_accuracy")


def metric_path(name: str) -> Path:
    """Returns the path of a metric's file, for `evaluate.load(str(metric_path(name)))`.

    Args:
        name: `"action_accuracy"`, `"agreement"`, `"negative_log_likelihood"`, `"per_class_accuracy"` or
            `"top_k_accuracy"`.

    Returns:
        The absolute path of its Python file.

    Raises:
        ValueError: If the metric is unknown.

    Examples:
        >>> metric_path("agreement").name
        'agreement.py'
    """
    if name not in _METRICS:
        raise ValueError(f"name must be one of {', '.join(map(repr, _METRICS))}, got {name!r}")
    return Path(__file__).resolve().with_name(f"{name}.py")


__getattr__, __dir__ = lazy_names(__name__)
