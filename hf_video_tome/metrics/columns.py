"""Validation and conversion of metric inputs: scores, class ids and label groups.

*Scores* are (N, C): one row per sample, one column per class, higher is better. -inf excludes a class; NaN and inf are
errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

# Sums of float16 probabilities deviate this much from 1.
_PROBABILITY_TOLERANCE = 5e-3


def to_scores(values: Any, name: str = "predictions") -> torch.Tensor:
    """Returns scores as float64.

    Args:
        values: (N, C) scores, N and C at least 1: a column collected by `evaluate`, or anything numpy accepts.
        name: Name of the values in error messages.

    Returns:
        (N, C) float64.

    Raises:
        ValueError: If the shape is wrong, a score is NaN or inf, or all scores of a sample are -inf.

    Examples:
        >>> to_scores([[1, 2]])
        tensor([[1., 2.]], dtype=torch.float64)
    """
    scores = _to_tensor(values, name, "scores", "biuf", np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(
            f"{name} must be scores of the shape (samples, classes), none of them 0, got {tuple(scores.shape)}"
        )
    best = scores.amax(dim=1)  # NaN if any score is
    bad = (~best.isfinite()).nonzero().flatten().tolist()
    if bad:
        problem = {float("inf"): "inf", float("-inf"): "only -inf"}.get(best[bad[0]].item(), "NaN")
        raise ValueError(
            f"{name} must be finite (-inf is allowed for an excluded class), but {len(bad)} of {len(scores)} "
            f"samples are not, the first being sample {bad[0]}, which has {problem}"
        )
    return scores


def check_probabilities(scores: torch.Tensor, name: str = "predictions") -> None:
    """Checks that scores are probabilities.

    Args:
        scores: (N, C) scores; each row must add up to 1 (within 0.005, for lower precisions).
        name: Name of the scores in error messages.

    Raises:
        ValueError: If they are not.
    """
    lowest, sums = scores.amin(dim=1), scores.sum(dim=1)
    wrong = ((lowest < 0) | ((sums - 1).abs() > _PROBABILITY_TOLERANCE)).nonzero().flatten().tolist()
    if wrong:
        raise ValueError(
            f"{name} must be probabilities of at least 0 that add up to 1 for each sample, but those of sample "
            f"{wrong[0]} add up to {sums[wrong[0]]:.6g}, the lowest being {lowest[wrong[0]]:.6g}"
        )


def to_class_ids(
    values: Any, num_samples: int | None = None, num_classes: int | None = None, name: str = "references"
) -> torch.Tensor:
    """Returns class ids as int64.

    Args:
        values: (N,) class ids, N at least 1.
        num_samples: Expected N, if known.
        num_classes: Upper bound (exclusive) of the class ids, if known.
        name: Name of the values in error messages.

    Returns:
        (N,) int64.

    Raises:
        ValueError: If the shape is wrong, or an id is not an integer or out of range.

    Examples:
        >>> to_class_ids([0, 2], num_samples=2, num_classes=3)
        tensor([0, 2])
    """
    ids = _to_ids(values, name, "class ids of the shape (samples,), at least one", 1, num_samples)
    _check_range(ids, num_classes, name)
    return ids


def to_ranked_ids(values: Any, num_classes: int | None = None, name: str = "predictions") -> torch.Tensor:
    """Returns ranked class ids as int64.

    Args:
        values: (N, K) class ids, best first, without repetitions within a sample.
        num_classes: Upper bound (exclusive) of the class ids, if known.
        name: Name of the values in error messages.

    Returns:
        (N, K) int64.

    Raises:
        ValueError: If the shape is wrong, or an id is not an integer, out of range or repeated.

    Examples:
        >>> to_ranked_ids([[3, 0], [1, 2]]).shape
        torch.Size([2, 2])
    """
    ids = _to_ids(values, name, "class ids, best first, of the shape (samples, ids), none of them 0", 2)
    _check_range(ids, num_classes, name)
    repeated = (ids.sort(dim=1).values.diff(dim=1) == 0).any(dim=1).nonzero().flatten().tolist()
    if repeated:
        raise ValueError(
            f"{name} must not name a class twice, but sample {repeated[0]} has {ids[repeated[0]].tolist()}"
        )
    return ids


def to_group_ids(
    values: Any, sizes: Sequence[int], num_samples: int | None = None, name: str = "references"
) -> torch.Tensor:
    """Returns the class ids of several label groups as int64.

    Args:
        values: (N, G) class ids, one per group.
        sizes: Number of classes in each of the G groups.
        num_samples: Expected N, if known.
        name: Name of the values in error messages.

    Returns:
        (N, G) int64.

    Raises:
        ValueError: If the shape is wrong, or an id is not an integer or out of range.

    Examples:
        >>> to_group_ids([[96, 299]], sizes=[97, 300]).shape
        torch.Size([1, 2])
    """
    expected = f"class ids of the shape (samples, {len(sizes)}), one per group"
    ids = _to_ids(values, name, expected, 2, num_samples, len(sizes))
    for index, size in enumerate(sizes):
        _check_range(ids[:, index], size, f"{name}[:, {index}]")
    return ids


def to_group_ranked_ids(
    values: Any, label_groups: Mapping[str, int], name: str = "predictions"
) -> dict[str, torch.Tensor]:
    """Returns the ranked class ids of several label groups as int64.

    Args:
        values: (N, G, K) class ids of each group, best first.
        label_groups: Mapping from the name of each of the G groups to its number of classes.
        name: Name of the values in error messages.

    Returns:
        Mapping from the name of each group to its ids, (N, K) int64.

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        >>> {name: ids.tolist() for name, ids in to_group_ranked_ids([[[1], [2]]], {"verb": 2, "noun": 3}).items()}
        {'verb': [[1]], 'noun': [[2]]}
    """
    groups = check_label_groups(label_groups)
    expected = f"class ids of the shape (samples, {len(groups)}, ids), one list per group"
    ids = _to_ids(values, name, expected, 3, columns=len(groups))
    return {
        group: to_ranked_ids(ids[:, index], size, f"{name} ({group})")
        for index, (group, size) in enumerate(groups.items())
    }


def to_group_scores(
    values: Any, label_groups: Mapping[str, int], name: str = "predictions"
) -> dict[str, torch.Tensor]:
    """Returns the scores of a classifier with several tasks as float64.

    Args:
        values: (N, C) scores.
        label_groups: Mapping from the name of each group to its number of classes, in the order of the outputs, C in
            total.
        name: Name of the scores in error messages.

    Returns:
        Mapping from the name of each group to its scores, (N, C_g).

    Raises:
        ValueError: If an argument is invalid.

    Examples:
        >>> groups = to_group_scores([[0.1, 0.9, 0.2, 0.3, 0.5]], {"verb": 2, "noun": 3})
        >>> {name: group.shape for name, group in groups.items()}
        {'verb': torch.Size([1, 2]), 'noun': torch.Size([1, 3])}
    """
    scores = to_scores(values, name)
    groups = check_label_groups(label_groups, scores.shape[1])
    parts = zip(groups, scores.split(list(groups.values()), dim=1), strict=True)
    return {group: to_scores(part, f"{name} ({group})") for group, part in parts}


def check_label_groups(label_groups: Mapping[str, int], num_outputs: int | None = None) -> dict[str, int]:
    """Checks the label groups of a classifier's outputs.

    Args:
        label_groups: Mapping from the name of each group to its number of classes, in the order of the outputs.
        num_outputs: Expected total number of classes, if known.

    Returns:
        The groups as a dictionary.

    Raises:
        ValueError: If it is not such a mapping, is empty, has a group called "action", or does not add up.

    Examples:
        >>> check_label_groups({"verb": 97, "noun": 300}, num_outputs=397)
        {'verb': 97, 'noun': 300}
    """
    valid = (
        isinstance(label_groups, Mapping)
        and len(label_groups) > 0
        and all(isinstance(name, str) and name and name != "action" for name in label_groups)
        and all(is_count(size) for size in label_groups.values())
    )
    if not valid:
        raise ValueError(
            "label_groups must map names of groups (other than 'action', which is all of them together) to their "
            f'numbers of classes, such as {{"verb": 97, "noun": 300}}, got {label_groups!r}'
        )
    if num_outputs is not None and sum(label_groups.values()) != num_outputs:
        raise ValueError(
            f"label_groups must add up to the {num_outputs} scores of each sample, got {dict(label_groups)!r}, "
            f"which is {sum(label_groups.values())}"
        )
    return {name: int(size) for name, size in label_groups.items()}


def check_k(k: int | Sequence[int], limit: int, what: str) -> list[int]:
    """Checks the values of k for top-k accuracies.

    Args:
        k: One integer or several.
        limit: Largest allowed value.
        what: What `limit` counts, for error messages.

    Returns:
        The distinct values, ascending.

    Raises:
        ValueError: If there is none, or one is not an integer from 1 to `limit`.

    Examples:
        >>> check_k([5, 1], limit=400, what="classes")
        [1, 5]
    """
    values: list[Any] = list(k) if isinstance(k, (list, tuple, np.ndarray)) else [k]
    for value in values:
        if not is_count(value) or value > limit:
            raise ValueError(f"k must be integers from 1 to the {limit} {what}, got {value!r}")
    if not values:
        raise ValueError("k must be one integer or several, got none")
    return sorted({int(value) for value in values})


def is_count(value: object) -> bool:
    """Returns whether a value is an integer of at least 1.

    Args:
        value: Any value; booleans do not count as integers.
    """
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(value >= 1)


def _to_tensor(values: Any, name: str, what: str, kinds: str, dtype: type[np.generic]) -> torch.Tensor:
    import pyarrow as pa  # type: ignore[import-untyped]

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        array = _arrow_to_array(values, name)
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:  # lists of differing lengths
            raise ValueError(f"{name} must be {what}, as many for every sample: {error}") from error
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} must be {what}, got an array of {array.dtype}")
    # PyTorch accepts neither read-only memory, such as Arrow's, nor negative strides.
    return torch.from_numpy(np.require(array, dtype, ["C_CONTIGUOUS", "WRITEABLE"]))


def _arrow_to_array(values: Any, name: str) -> np.ndarray:
    """Converts a column of numbers or of nested lists to an array, without Python objects for the numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    if not len(values):
        raise ValueError(f"{name} must have at least one sample, got none")
    shape = [len(values)]
    while True:
        if values.null_count:
            raise ValueError(f"{name} must not have missing values, got {values.null_count} of None")
        if not pa.types.is_list(values.type):
            return values.to_numpy().reshape(shape)
        lengths = pc.min_max(pc.list_value_length(values)).as_py()
        if lengths["min"] != lengths["max"]:
            raise ValueError(
                f"{name} must have the same number of values for every sample, got from {lengths['min']} to "
                f"{lengths['max']}"
            )
        shape.append(lengths["max"] or 0)
        values = pc.list_flatten(values)


def _to_ids(
    values: Any, name: str, expected: str, ndim: int, num_samples: int | None = None, columns: int | None = None
) -> torch.Tensor:
    """Returns class ids after checking their number of dimensions, samples and columns."""
    ids = _to_tensor(values, name, "class ids, which are integers", "iu", np.int64)
    if ids.ndim != ndim or 0 in ids.shape or (columns is not None and ids.shape[1] != columns):
        raise ValueError(f"{name} must be {expected}, got {tuple(ids.shape)}")
    if num_samples not in (None, len(ids)):
        raise ValueError(f"{name} must have as many samples as the other input, {num_samples}, got {len(ids)}")
    return ids


def _check_range(ids: torch.Tensor, num_classes: int | None, name: str) -> None:
    wrong = (ids < 0) | (ids >= num_classes if num_classes is not None else False)
    for sample, *index in wrong.nonzero().tolist():
        allowed = "of at least 0" if num_classes is None else f"from 0 to {num_classes - 1}"
        value = ids[(sample, *index)].item()
        raise ValueError(f"{name} must be class ids {allowed}, got {value} for sample {sample}")
