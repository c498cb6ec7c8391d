"""Evaluation of video classifiers on any video dataset.

The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from ..tasks import Prediction, Task, check_finite, classifier_tasks, match_labels, output_name, predict_labels
    from .examples import Examples, read_examples
    from .loop import Progress
    from .output import read_predictions
    from .results import Difference, EvaluationResults, SettingResults, Share, TaskResults
    from .runner import evaluate

__all__ = [
    "Difference",
    "EvaluationResults",
    "Examples",
    "Prediction",
    "Progress",
    "SettingResults",
    "Share",
    "Task",
    "TaskResults",
    "check_finite",
    "classifier_tasks",
    "evaluate",
    "match_labels",
    "output_name",
    "predict_labels",
    "read_examples",
    "read_predictions",
]

__getattr__, __dir__ = lazy_names(__name__)
