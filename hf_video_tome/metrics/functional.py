"""The arithmetic of the metrics: plain numpy functions on arrays, all in float64.

*Scores* are (N, C): one row per sample, one column per class, the higher the better. -inf rules a class out; NaN and
inf are errors. Among equal scores the class with the lowest index comes first, as with `torch.argmax` and
`numpy.argmax`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Of the joint scores that are held at a time, 8 bytes each.
_CHUNK_ELEMENTS = 1 << 18
# Probabilities may come in float16, whose sums are this far off.
_PROBABILITY_TOLERANCE = 5e-3


def check_scores(scores: ArrayLike, name: str = "predictions") -> Floats:
    """Checks scores and gives them as float64.

    Args:
        scores: (N, C), N and C at least 1.
        name: What error messages call them.

    Returns:
        The same, float64.

    Raises:
        ValueError: If the shape is another one or a score is NaN or inf, or all scores of a sample are -inf.

    Examples:
        >>> check_scores([[1, 2]]).dtype
        dtype('float64')
    """
    array = _as_array(scores, name, "scores")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be scores of the shape (samples, classes), none of them 0, got {array.shape}."
        )
    array = array.astype(np.float64, copy=False)
    best = array.max(axis=1)  # is NaN where one of them is
    bad = np.flatnonzero(~np.isfinite(best))
    if bad.size:
        row = int(bad[0])
        problem = "only -inf" if best[row] == -np.inf else "NaN" if np.isnan(best[row]) else "inf"
        raise ValueError(
            f"`{name}` must be finite (-inf is allowed where a class is ruled out), but {bad.size} of {len(array)} "
            f"samples are not, the first being sample {row}, which has {problem}."
        )
    return array


def check_probabilities(scores: ArrayLike, name: str = "predictions") -> Floats:
    """Checks probabilities and gives them as float64.

    Args:
        scores: (N, C) probabilities of the classes; each row adds up to 1 (within 0.005, for lower precisions).
        name: What error messages call them.

    Returns:
        The same, float64.

    Raises:
        ValueError: If the shape is another one, or they are not probabilities.

    Examples:
        >>> check_probabilities([[0.25, 0.75]]).shape
        (1, 2)
    """
    array = check_scores(scores, name)
    wrong = (array.min(axis=1) < 0) | (np.abs(array.sum(axis=1) - 1) > _PROBABILITY_TOLERANCE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"`{name}` must be probabilities of at least 0 that add up to 1 for each sample, but those of sample "
            f"{row} add up to {array[row].sum():.6g}, the lowest being {array[row].min():.6g}."
        )
    return array


def check_labels(
    labels: ArrayLike, num_samples: int | None = None, num_classes: int | None = None, name: str = "references"
) -> Ints:
    """Checks class ids and gives them as int64.

    Args:
        labels: (N,) class ids, N at least 1.
        num_samples: What N must be, if known.
        num_classes: Class ids must be below it, if known.
        name: What error messages call them.

    Returns:
        The same, int64.

    Raises:
        ValueError: If the shape is another one, they are not integers, or one is out of range.

    Examples:
        >>> check_labels([0, 2], num_samples=2, num_classes=3)
        array([0, 2])
    """
    array = _as_ids(labels, name)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{name}` must be class ids of the shape (samples,), at least one, got {array.shape}.")
    _check_length(array, num_samples, name)
    _check_range(array, num_classes, name)
    return array


def check_ranked(
    ids: ArrayLike, num_samples: int | None = None, num_classes: int | None = None, name: str = "predictions"
) -> Ints:
    """Checks ranked class ids and gives them as int64.

    Args:
        ids: (N, K) class ids, best first, no id twice for a sample.
        num_samples: What N must be, if known.
        num_classes: Class ids must be below it, if known.
        name: What error messages call them.

    Returns:
        The same, int64.

    Raises:
        ValueError: If the shape is another one, they are not integers, one is out of range or one is repeated.

    Examples:
        >>> check_ranked([[3, 0], [1, 2]]).shape
        (2, 2)
    """
    array = _as_ids(ids, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"`{name}` must be class ids, best first, of the shape (samples, ids), none of them 0, got {array.shape}."
        )
    _check_length(array, num_samples, name)
    _check_range(array, num_classes, name)
    repeated = (np.diff(np.sort(array, axis=1), axis=1) == 0).any(axis=1)
    if repeated.any():
        row = int(np.argmax(repeated))
        raise ValueError(f"`{name}` must not name a class twice, but sample {row} has {array[row].tolist()}.")
    return array


def check_k(k: int | Sequence[int], limit: int, what: str) -> list[int]:
    """Checks how many of the best answers count.

    Args:
        k: One number or several.
        limit: The largest that makes sense.
        what: What there are that many of, in error messages.

    Returns:
        The numbers, ascending, each once.

    Raises:
        ValueError: If there is none, or one is not an integer from 1 to `limit`.

    Examples:
        >>> check_k([5, 1], limit=400, what="classes")
        [1, 5]
    """
    values: list[Any] = list(k) if isinstance(k, (list, tuple, np.ndarray)) else [k]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 1 <= value <= limit:
            raise ValueError(f"`k` must be integers from 1 to the {limit} {what}, got {value!r}.")
    if not values:
        raise ValueError("`k` must be one integer or several, got none.")
    return sorted({int(value) for value in values})


def check_label_groups(label_groups: Mapping[str, int], num_outputs: int | None = None) -> dict[str, int]:
    """Checks the label groups that the outputs of one classifier are split into.

    Args:
        label_groups: From the name of each group to its number of classes, in the order of the outputs.
        num_outputs: What the numbers must add up to, if known.

    Returns:
        The same as a dictionary.

    Raises:
        ValueError: If it is no such mapping, is empty, has a group called "action", or does not add up.

    Examples:
        >>> check_label_groups({"verb": 97, "noun": 300}, num_outputs=397)
        {'verb': 97, 'noun': 300}
    """
    valid = (
        isinstance(label_groups, Mapping)
        and len(label_groups) > 0
        and all(isinstance(name, str) and name and name != "action" for name in label_groups)
        and all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 1 for n in label_groups.values())
    )
    if not valid:
        raise ValueError(
            "`label_groups` must map names of groups (other than 'action', which is all of them together) to their "
            f'numbers of classes, such as {{"verb": 97, "noun": 300}}, got {label_groups!r}.'
        )
    if num_outputs is not None and sum(label_groups.values()) != num_outputs:
        raise ValueError(
            f"`label_groups` must add up to the {num_outputs} scores of each sample, got {dict(label_groups)!r}, "
            f"which is {sum(label_groups.values())}."
        )
    return {name: int(size) for name, size in label_groups.items()}


def ranks(scores: ArrayLike, labels: ArrayLike) -> Ints:
    """Counts the classes that come before the right one.

    Args:
        scores: (N, C) scores.
        labels: (N,) right classes, 0 to C - 1.

    Returns:
        (N,) ranks, 0 to C - 1: 0 means that the right class is the best. Among equal scores the lowest index is first.

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> ranks([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], [2, 1])
        array([1, 1])
    """
    scores = check_scores(scores, "scores")
    labels = check_labels(labels, len(scores), scores.shape[1], "labels")
    return _ranks(scores, labels)


def top_classes(scores: ArrayLike, k: int = 1) -> Ints:
    """Gives the best classes.

    Args:
        scores: (N, C) scores.
        k: How many, 1 to C.

    Returns:
        (N, k) class ids, best first; among equal scores the lowest index is first.

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> top_classes([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]], k=2)
        array([[1, 2],
               [0, 1]])
    """
    scores = check_scores(scores, "scores")
    (k,) = check_k(k, scores.shape[1], "classes")
    if k == 1:
        return scores.argmax(axis=1)[:, None]
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def ranked_positions(ids: ArrayLike, labels: ArrayLike) -> Ints:
    """Finds the right class among ranked class ids.

    Args:
        ids: (N, K) class ids, best first.
        labels: (N,) right classes.

    Returns:
        (N,) places, 0 for the first; K where the right class is not among them.

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> ranked_positions([[4, 2], [1, 0]], [2, 3])
        array([1, 2])
    """
    ids = check_ranked(ids, name="ids")
    hits = ids == check_labels(labels, len(ids), name="labels")[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), ids.shape[1])


def log_softmax(scores: ArrayLike) -> Floats:
    """Gives log-probabilities, without overflow.

    Args:
        scores: (N, C) logits.

    Returns:
        (N, C) float64 in nats; -inf where a logit is.

    Raises:
        ValueError: If the scores are not as described.

    Examples:
        >>> log_softmax([[0.0, 0.0]]).round(4)
        array([[-0.6931, -0.6931]])
    """
    scores = check_scores(scores, "scores")
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_probabilities(scores: ArrayLike, from_probabilities: bool = False, name: str = "predictions") -> Floats:
    """Gives log-probabilities of logits or of probabilities.

    Args:
        scores: (N, C) logits, or probabilities.
        from_probabilities: Whether they are probabilities, which are checked to add up to 1.
        name: What error messages call them.

    Returns:
        (N, C) float64 in nats; -inf where the probability is 0.

    Raises:
        ValueError: If the scores are not as described.

    Examples:
        >>> log_probabilities([[1.0, 0.0]], from_probabilities=True)
        array([[  0., -inf]])
    """
    if not from_probabilities:
        return log_softmax(check_scores(scores, name))
    with np.errstate(divide="ignore"):
        return np.log(check_probabilities(scores, name))


def negative_log_likelihood(scores: ArrayLike, labels: ArrayLike, from_probabilities: bool = False) -> Floats:
    """Gives the negative log-likelihood of the right class of each sample.

    Args:
        scores: (N, C) logits, or probabilities.
        labels: (N,) right classes, 0 to C - 1.
        from_probabilities: Whether the scores are probabilities.

    Returns:
        (N,) float64 in nats; inf where the right class has the probability 0.

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> negative_log_likelihood([[0.0, 0.0]], [1]).round(4)
        array([0.6931])
    """
    logs = log_probabilities(scores, from_probabilities, "scores")
    labels = check_labels(labels, len(logs), logs.shape[1], "labels")
    return 0.0 - logs[np.arange(len(logs)), labels]  # not -x, which makes a certain answer -0.0


def kl_divergence(reference_scores: ArrayLike, scores: ArrayLike, from_probabilities: bool = False) -> Floats:
    """Gives KL(reference || prediction) of each sample.

    Args:
        reference_scores: (N, C) logits, or probabilities.
        scores: (N, C) logits, or probabilities.
        from_probabilities: Whether both are probabilities.

    Returns:
        (N,) float64 in nats, at least 0; inf where the prediction rules out what the reference does not.

    Raises:
        ValueError: If an argument is not as described or the shapes differ.

    Examples:
        >>> kl_divergence([[0.5, 0.5]], [[0.25, 0.75]], from_probabilities=True).round(4)
        array([0.1438])
    """
    reference = log_probabilities(reference_scores, from_probabilities, "reference_scores")
    prediction = log_probabilities(scores, from_probabilities, "scores")
    if reference.shape != prediction.shape:
        raise ValueError(
            f"`scores` must have the shape of `reference_scores`, {reference.shape}, got {prediction.shape}."
        )
    possible = reference > -np.inf  # 0 log 0 is 0
    gaps = np.where(possible, reference, 0.0) - np.where(possible, prediction, 0.0)
    # Rounding, and probabilities that do not quite add up to 1, may leave less than 0.
    return np.maximum((np.exp(reference) * gaps).sum(axis=1), 0.0)


def split_groups(scores: ArrayLike, label_groups: Mapping[str, int], name: str = "scores") -> dict[str, Floats]:
    """Splits the outputs of a classifier with several tasks.

    Args:
        scores: (N, C) scores.
        label_groups: From the name of each group to its number of classes, in the order of the outputs, C in all.
        name: What error messages call the scores.

    Returns:
        From the name of each group to its scores, (N, C_g).

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> groups = split_groups([[0.1, 0.9, 0.2, 0.3, 0.5]], {"verb": 2, "noun": 3})
        >>> {name: group.shape for name, group in groups.items()}
        {'verb': (1, 2), 'noun': (1, 3)}
    """
    array = _as_array(scores, name, "scores").astype(np.float64, copy=False)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"`{name}` must have the shape (samples, classes), none of them 0, got {array.shape}.")
    groups, start = {}, 0
    for group, size in check_label_groups(label_groups, array.shape[1]).items():
        groups[group] = check_scores(array[:, start : start + size], f"{name} ({group})")
        start += size
    return groups


def joint_ranks(scores: Sequence[ArrayLike], labels: ArrayLike) -> Ints:
    """Counts the combinations of one class per group that come before the right one.

    A combination scores the sum of its classes' scores. With logits that ranks combinations by the product of the
    groups' softmax probabilities, as normalising moves all combinations of a sample alike; probabilities must be given
    as their logarithms.

    All combinations are looked at (29,100 per sample for 97 verbs and 300 nouns), a few samples at a time.

    Args:
        scores: For each of G groups (N, C_g) logits or log-probabilities.
        labels: (N, G) right classes.

    Returns:
        (N,) ranks: 0 exactly where the right class is the best of every group. Among equal sums the combination with
        the lowest index of the first group is first, then that of the second, and so on.

    Raises:
        ValueError: If an argument is not as described.

    Examples:
        >>> verbs, nouns = [[2.0, 1.0]], [[0.0, 3.0, 2.5]]
        >>> joint_ranks([verbs, nouns], [[0, 2]])  # (0, 1) scores 5, (0, 2) 4.5, (1, 1) 4
        array([1])
    """
    if not len(scores):
        raise ValueError("`scores` must be the scores of at least one group, got none.")
    groups = [check_scores(group, f"scores[{index}]") for index, group in enumerate(scores)]
    num_samples = len(groups[0])
    for index, group in enumerate(groups):
        _check_length(group, num_samples, f"scores[{index}]")
    columns = check_group_labels(labels, [group.shape[1] for group in groups], num_samples, "labels")

    sizes = tuple(group.shape[1] for group in groups)
    flat_labels = np.ravel_multi_index(tuple(columns.T), sizes)
    chunk = max(1, _CHUNK_ELEMENTS // math.prod(sizes))
    result = np.empty(num_samples, dtype=np.int64)
    for start in range(0, num_samples, chunk):
        part = slice(start, start + chunk)
        joint = groups[0][part]
        for group in groups[1:]:
            joint = (joint[:, :, None] + group[part, None, :]).reshape(len(joint), -1)
        result[part] = _ranks(joint, flat_labels[part])
    # A sum may round to that of its neighbour, which must not contradict what the groups say.
    right = np.all([_ranks(group, columns[:, index]) == 0 for index, group in enumerate(groups)], axis=0)
    return np.where(right, 0, np.maximum(result, 1))


def check_group_labels(
    labels: ArrayLike, sizes: Sequence[int], num_samples: int | None = None, name: str = "references"
) -> Ints:
    """Checks the class ids of several groups and gives them as int64.

    Args:
        labels: (N, G) class ids, one of each group.
        sizes: Classes in each of the G groups.
        num_samples: What N must be, if known.
        name: What error messages call them.

    Returns:
        The same, int64.

    Raises:
        ValueError: If the shape is another one, they are not integers, or one is out of range.

    Examples:
        >>> check_group_labels([[96, 299]], sizes=[97, 300]).shape
        (1, 2)
    """
    array = _as_ids(labels, name)
    if array.ndim != 2 or len(array) == 0 or array.shape[1] != len(sizes):
        raise ValueError(
            f"`{name}` must be class ids of the shape (samples, {len(sizes)}), one per group, got {array.shape}."
        )
    _check_length(array, num_samples, name)
    for index, size in enumerate(sizes):
        _check_range(array[:, index], size, f"{name}[:, {index}]")
    return array


def standard_error(share: float, n: int) -> float:
    """Gives the standard error of a share of n samples, sqrt(share (1 - share) / n).

    Args:
        share: 0 to 1.
        n: Samples, at least 1.

    Returns:
        The standard error, in the same unit.

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> standard_error(0.5, 100)
        0.05
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be from 0 to 1, got {share!r}.")
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n!r}.")
    return math.sqrt(share * (1 - share) / n)


def share_with_error(hits: ArrayLike) -> tuple[float, float]:
    """Gives the share of True and its standard error.

    Args:
        hits: (N,) booleans, N at least 1.

    Returns:
        The share, 0 to 1, and its standard error.

    Raises:
        ValueError: If there are none.

    Examples:
        >>> share_with_error([True, False, True, False])
        (0.5, 0.25)
    """
    hits = np.asarray(hits, dtype=bool)
    if hits.size == 0:
        raise ValueError("`hits` must have at least one sample, got none.")
    share = float(hits.mean())
    return share, standard_error(share, hits.size)


def mean_with_error(values: ArrayLike) -> tuple[float, float]:
    """Gives the mean and its standard error, the standard deviation (of n - 1) by the square root of n.

    Args:
        values: (N,) numbers, N at least 1; none of them NaN.

    Returns:
        The mean and its standard error. The error is NaN where it cannot be had: of a single value, or where one is
        infinite.

    Raises:
        ValueError: If there are none.

    Examples:
        >>> mean_with_error([1.0, 3.0])
        (2.0, 1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0:
        raise ValueError("`values` must have at least one sample, got none.")
    mean = float(values.mean())
    if values.size == 1 or not math.isfinite(mean):
        return mean, math.nan
    return mean, float(values.std(ddof=1) / math.sqrt(values.size))


def from_column(column: Any, name: str, depth: int) -> NDArray[Any]:
    """Turns a column that `evaluate` collected into an array.

    Args:
        column: An Arrow array, nested `depth` lists deep, or anything that numpy takes.
        name: What error messages call it.
        depth: 0 for a number per sample, 1 for a list of numbers, 2 for a list of lists.

    Returns:
        An array of `depth` + 1 dimensions.

    Raises:
        ValueError: If it is empty, a value is missing, or samples differ in their number of values.

    Examples:
        >>> from_column([[1.0, 2.0]], "predictions", depth=1).shape
        (1, 2)
    """
    import pyarrow as pa  # type: ignore[import-untyped]

    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        return _as_array(column, name, "numbers")
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [len(values)]
    if not shape[0]:
        raise ValueError(f"`{name}` must have at least one sample, got none.")
    for _ in range(depth):
        _check_no_nulls(values, name)
        lengths = np.diff(values.offsets.to_numpy())
        if len(lengths) and lengths.min() != lengths.max():
            raise ValueError(
                f"`{name}` must have the same number of values for every sample, got from {lengths.min()} to "
                f"{lengths.max()}."
            )
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = values.flatten()
    _check_no_nulls(values, name)
    array: NDArray[Any] = values.to_numpy(zero_copy_only=False)
    return array.reshape(shape)


def _check_no_nulls(values: Any, name: str) -> None:
    if values.null_count:
        raise ValueError(f"`{name}` must not have missing values, got {values.null_count} of None.")


def _ranks(scores: Floats, labels: Ints) -> Ints:
    """Does what `ranks` does, without its checks."""
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.count_nonzero(scores > own, axis=1)
    ties = scores == own
    several = np.flatnonzero(np.count_nonzero(ties, axis=1) > 1)
    if several.size:
        indices = np.arange(scores.shape[1])
        before[several] += np.count_nonzero(ties[several] & (indices < labels[several, None]), axis=1)
    return before.astype(np.int64, copy=False)


def _as_array(values: Any, name: str, what: str) -> NDArray[Any]:
    try:
        array = np.asarray(values)
    except ValueError as error:  # lists of differing lengths
        raise ValueError(f"`{name}` must be {what}, as many for every sample: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must be {what}, got an array of {array.dtype}.")
    return array


def _as_ids(values: Any, name: str) -> Ints:
    array = _as_array(values, name, "class ids")
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"`{name}` must be class ids, which are integers, got an array of {array.dtype}.")
    return array.astype(np.int64, copy=False)


def _check_length(array: NDArray[Any], num_samples: int | None, name: str) -> None:
    if num_samples is not None and len(array) != num_samples:
        raise ValueError(f"`{name}` must be of as many samples as the other input, {num_samples}, got {len(array)}.")


def _check_range(ids: Ints, num_classes: int | None, name: str) -> None:
    wrong = ids < 0 if num_classes is None else (ids < 0) | (ids >= num_classes)
    if wrong.any():
        first = int(np.argmax(wrong.reshape(len(ids), -1).any(axis=1)))
        value = int(ids[wrong].flat[0])
        allowed = "of at least 0" if num_classes is None else f"from 0 to {num_classes - 1}"
        raise ValueError(f"`{name}` must be class ids {allowed}, got {value} for sample {first}.")
