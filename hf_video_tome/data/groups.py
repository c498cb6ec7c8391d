"""Dataset splits by group: all videos of a group, such as one person's, are in the same split."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

Groups: TypeAlias = str | int | Sequence[str] | float | None
"""Names of groups (a list, or comma-separated), or a share of all groups, as a number or as text ("0.2")."""


def split_by_group(
    rows: Sequence[Mapping[str, Any]],
    group_by: str,
    validation: Groups = None,
    test: Groups = None,
    seed: int = 0,
) -> dict[str, list[Any]]:
    r"""Splits rows by group, as found in their `video_id` with a regular expression.

    Clips of the same recording, person or location look alike: if some are in training, accuracy on the others says
    little about new ones.

    Args:
        rows: Rows with a `video_id`.
        group_by: Regular expression searched in each `video_id`. The group is the first non-empty capturing group,
            or the whole match without capturing groups.
        validation: Groups of the validation split: their names, or a share of all groups (above 0, below 1) to draw
            at random.
        test: Groups of the test split, likewise.
        seed: Seed of the random draw.

    Returns:
        The rows of the splits `"train"`, `"validation"` and `"test"` in their order, without empty splits.

    Raises:
        ValueError: If the pattern is not a regular expression or finds nothing in a row, or the groups do not make
            disjoint splits.

    Examples:
        >>> rows = [{"video_id": f"jump/p{person}_{take}.mp4"} for person in (1, 2, 3) for take in "ab"]
        >>> splits = split_by_group(rows, r"p\d+", validation=["p2"], test=0.3)
        >>> {split: sorted({row["video_id"][5:7] for row in part}) for split, part in splits.items()}
        {'train': ['p1'], 'validation': ['p2'], 'test': ['p3']}
    """
    groups = [group_of(str(row["video_id"]), group_by) for row in rows]
    free = sorted(set(groups))
    chosen: dict[str, list[str]] = {}
    # Names first: a share is drawn from what they leave.
    wanted = {"validation": validation, "test": test}
    total, generator = len(free), random.Random(seed)
    for split, value in sorted(wanted.items(), key=lambda item: _share(item[1]) is not None):
        chosen[split] = _choose(f"{split}_groups", value, free, sorted(set(groups)), total, generator)
        free = [group for group in free if group not in chosen[split]]
    if not free and rows:
        raise ValueError(f"no group is left for training: there are {total}, and validation and test take all of them")
    split_of = {group: split for split, names in chosen.items() for group in names}
    splits: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for row, group in zip(rows, groups, strict=True):
        splits[split_of.get(group, "train")].append(row)
    return {split: part for split, part in splits.items() if part}


def group_of(video_id: str, pattern: str) -> str:
    r"""Finds the group of a video.

    Args:
        video_id: Id of the video, such as `{class}/{file}`.
        pattern: Regular expression, as for `split_by_group`.

    Returns:
        The group.

    Raises:
        ValueError: If the pattern is not a regular expression, or finds nothing.

    Examples:
        >>> group_of("jump/anna_01.mp4", r"([a-z]+)_[^/]*$")
        'anna'
    """
    try:
        match = re.search(pattern, video_id)
    except (re.error, TypeError) as error:
        raise ValueError(f"group_by must be a regular expression, got {pattern!r} ({error})") from None
    found = next((group for group in match.groups() or [match[0]] if group), None) if match else None
    if not found:
        raise ValueError(f"group_by: {pattern!r} finds no group in {video_id!r}")
    return str(found)


def _share(value: Groups) -> float | None:
    is_number = isinstance(value, Real) and not isinstance(value, Integral)
    return float(str(value)) if is_number or re.fullmatch(r"\d*\.\d+", str(value)) else None


def _choose(
    field: str, value: Groups, free: list[str], known: list[str], total: int, generator: random.Random
) -> list[str]:
    if value is None:
        return []
    share = _share(value)
    if share is not None:
        count = max(1, round(share * total))
        if not 0 < share < 1 or count >= len(free):
            raise ValueError(
                f"{field} must be names, or a share above 0 that leaves a group for training, got {value} of "
                f"{total} groups, of which {', '.join(free)} are free"
            )
        return generator.sample(free, count)
    # A command line passes numeric names as numbers.
    given: Any = str(value).split(",") if isinstance(value, (str, int)) else value
    names = [str(name).strip() for name in given]
    for name in names:
        if name not in free:
            why = f"{name!r} is in two splits" if name in known else f"got {name!r}"
            raise ValueError(f"{field} must be among the groups {', '.join(known)}; {why}")
    return names
