"""Metric metadata for `evaluate`. Not a base class, which `evaluate.load` would mistake for the file's metric."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import datasets
import evaluate

CLASS_ID = datasets.Value("int64")
CLASS_IDS = datasets.Sequence(CLASS_ID)
SCORES = datasets.Sequence(datasets.Value("float64"))


def metric_info(
    metric: evaluate.Metric, features: Mapping[str, tuple[object, object]], citation: str = ""
) -> evaluate.MetricInfo:
    """Returns the `MetricInfo` of a metric, with its docstring as description.

    Args:
        metric: The metric.
        features: Mapping from each config to the features of predictions and references; the metric's config must be
            one of them.
        citation: BibTeX citation.

    Returns:
        The information, with Arrow columns: Python lists, the default, would take ten times the memory of the scores.

    Raises:
        ValueError: If the metric's config is unknown.
    """
    if metric.config_name not in features:
        allowed = ", ".join(map(repr, features))
        raise ValueError(f"config_name must be one of {allowed}, got {metric.config_name!r}")
    summary, _, usage = (inspect.getdoc(type(metric)) or "").partition("\n\n")
    columns = dict(zip(("predictions", "references"), features[metric.config_name], strict=True))
    info = evaluate.MetricInfo(
        description=summary, citation=citation, features=datasets.Features(columns), inputs_description=usage
    )
    # Not as an argument, where evaluate rejects it for nested features, although the format supports them.
    info.format = "arrow"
    return info
