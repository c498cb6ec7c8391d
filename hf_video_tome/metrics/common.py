"""What the metric modules share. No base class: `evaluate.load` would take that for the metric of the file."""

from __future__ import annotations

import inspect
from typing import Any

import evaluate


def metric_info(metric: evaluate.Metric, features: dict[str, Any], citation: str = "") -> evaluate.MetricInfo:
    """Makes the information that `evaluate` wants of a metric out of its docstring.

    Args:
        metric: The metric.
        features: From each config to its features; the config of the metric must be one of them.
        citation: BibTeX.

    Returns:
        The information, for columns that come as Arrow arrays: Python lists, the default, would take ten times the
        memory of the scores.

    Raises:
        ValueError: If the metric has no such config.
    """
    if metric.config_name not in features:
        allowed = ", ".join(map(repr, features))
        raise ValueError(f"`config_name` must be one of {allowed}, got {metric.config_name!r}.")
    summary, _, usage = (inspect.getdoc(type(metric)) or "").partition("\n\n")
    info = evaluate.MetricInfo(
        description=summary, citation=citation, features=features[metric.config_name], inputs_description=usage
    )
    # Not as an argument, where evaluate refuses it for nested features; what the format does suits them.
    info.format = "arrow"
    return info
