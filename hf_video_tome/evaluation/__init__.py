"""Accuracy that can be trusted: evaluation of any classifier on any video data set.

The names below are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .examples import Examples, read_examples
    from .loop import Progress
    from .output import read_predictions
    from .results import Difference, EvaluationResults, SettingResults, Share, TaskResults
    from .runner import evaluate
    from .tasks import Task, classifier_tasks, match_labels

__all__ = [
    "Difference",
    "EvaluationResults",
    "Examples",
    "Progress",
    "SettingResults",
    "Share",
    "Task",
    "TaskResults",
    "classifier_tasks",
    "evaluate",
    "match_labels",
    "read_examples",
    "read_predictions",
]

_MODULES = {
    "Difference": "results",
    "EvaluationResults": "results",
    "Examples": "examples",
    "Progress": "loop",
    "SettingResults": "results",
    "Share": "results",
    "Task": "tasks",
    "TaskResults": "results",
    "classifier_tasks": "tasks",
    "evaluate": "runner",
    "match_labels": "tasks",
    "read_examples": "examples",
    "read_predictions": "output",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
