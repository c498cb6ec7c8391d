"""What a metric module tells `evaluate`. No base class: `evaluate.load` would take it for the metric of the file."""

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
    """Returns the information that `evaluate` wants of a metric, which its docstring has.

    Args:
        metric: The metric.
        features: From each config to the features of predictions and references; the config of the metric must be one
            of them.
        citation: BibTeX.

    Returns:
        The information, for columns that come as Arrow arrays: Python lists, the default, would take ten times the
        memory of the scores.

    Raises:
        ValueError: If the metric has no such config.
    """
    if metric.config_name not in features:
        allowed = ", ".join(map(repr, features))
        raise ValueError(f"config_name must be one of {allowed}, got {metric.config_name!r}")
    summary, _, usage = (inspect.getdoc(type(metric)) or "").partition("\n\n")
    columns = dict(zip(("predictions", "references"), features[metric.config_name], strict=True))
    info = evaluate.MetricInfo(
        description=summary, citation=citation, features=datasets.Features(columns), inputs_description=usage
    )
    # Not as an argument, where evaluate refuses it for nested features; what the format does suits them.
    info.format = "arrow"
    return info
