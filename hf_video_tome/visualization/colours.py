"""Token colours that are stable over time and layers, and differ between neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Steps of a quasirandom sequence in three dimensions: the powers of 1 / x for the root x of x**4 = x + 1 (M. Roberts,
# "The unreasonable effectiveness of quasirandom sequences", 2018).
_STEPS = 1.2207440846057596 ** -np.arange(1.0, 4.0)
_SATURATION, _VALUE = (0.4, 0.95), (0.7, 1.0)
_CANDIDATES = 48  # number of unused colours considered for a token
_WEIGHTS = np.array([2.0, 4.0, 3.0])  # weights of red, green and blue in the perceived difference of colours
_FAR_ENOUGH = 30_000.0  # difference to neighbours beyond which other tokens count too


def token_colours(maps: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Assigns a colour to each token of each layer.

    A token has the same colour in all frames, and differs from its neighbours in space and time. Where possible, it
    also differs from all other tokens, starting with the largest, so that few tokens are easy to distinguish. From
    layer to layer, a merged token keeps the colour of its largest part. If all frames share one matching (scope
    "tube"), tokens from the same merge have the same colour in all frames, so that videos do not flicker.

    Args:
        maps: For each layer, the (S, rows, columns) int64 map from patches to tokens, -1 if dropped (see `token_map`);
            each layer merges tokens of the one before.

    Returns:
        For each layer (N, 3) uint8 RGB by token, where N is one more than the largest token of the map; black for
        tokens without patches (a CLS token).

    Examples:
        >>> before, after = np.array([[[0, 1, 2]]]), np.array([[[0, 0, 1]]])
        >>> first, last = token_colours([before, after])
        >>> bool((first[[0, 2]] == last).all())  # the group of 0 and 1 keeps the colour of 0
        True
    """
    unused = _distinct_colours()
    candidates = np.stack([next(unused) for _ in range(_CANDIDATES)])
    used = np.empty((0, 3), dtype=np.uint8)
    from_used = np.full(_CANDIDATES, np.inf)  # distance of each candidate to the nearest colour in use
    shared = are_shared(maps)
    result: list[np.ndarray] = []
    later: tuple[np.ndarray, np.ndarray] | None = None
    for tokens in reversed(maps):
        groups = np.broadcast_to(tokens[:1], tokens.shape) if shared else tokens
        count = int(groups.max(initial=-1)) + 1
        colours = np.zeros((count, 3), dtype=np.uint8)
        areas = np.bincount(groups[groups >= 0], minlength=count)
        todo = areas > 0
        if later is not None:
            kept, parents = _largest_parts(groups, later[0], areas)
            colours[kept] = later[1][parents]
            todo[kept] = False
        neighbours = _neighbours(groups, todo)
        done = (areas > 0) & ~todo
        for group in sorted(np.flatnonzero(todo).tolist(), key=lambda group: (-areas[group], group)):
            near = [other for other in neighbours.get(group, ()) if done[other]]
            from_near = _difference(candidates, colours[near]).min(axis=1, initial=_FAR_ENOUGH)
            choice = np.lexsort((-from_used, -from_near))[0]
            colours[group] = candidates[choice]
            used = np.concatenate([used, candidates[choice, None]])
            candidates[choice] = next(unused)
            from_used = np.minimum(from_used, _difference(candidates, used[-1:])[:, 0])
            from_used[choice] = _difference(candidates[choice, None], used).min()
            done[group] = True
        by_token = np.zeros((int(tokens.max(initial=-1)) + 1, 3), dtype=np.uint8)
        held = tokens >= 0
        by_token[tokens[held]] = colours[groups[held]]
        result.append(by_token)
        later = (groups, colours)
    return result[::-1]


def are_shared(maps: Sequence[np.ndarray]) -> bool:
    """Returns whether tokens do not cross frames and all frames are divided equally, as with scope "tube".

    Args:
        maps: As for `token_colours`.

    Returns:
        Whether both hold.
    """
    last = maps[-1][0]
    removed = len(np.unique(last[last >= 0])) < last.size
    return removed and all(_is_shared(tokens) for tokens in maps)


def _is_shared(tokens: np.ndarray) -> bool:
    """Returns whether tokens do not cross frames and all frames are divided equally."""
    first, *others = tokens
    for slot in others:
        if ((slot < 0) != (first < 0)).any() or np.intersect1d(slot[slot >= 0], first[first >= 0]).size:
            return False
        # Equal division: as many pairs of tokens at the same patch positions as tokens in either frame.
        pairs = len(np.unique(np.stack([first.ravel(), slot.ravel()]), axis=1).T)
        if not pairs == len(np.unique(first)) == len(np.unique(slot)):
            return False
    return True


def _largest_parts(before: np.ndarray, after: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the largest part of each later token, the first if tied; returns parts and their tokens."""
    held = (before >= 0) & (after >= 0)
    parts, first = np.unique(before[held], return_index=True)
    groups = after[held][first]
    order = np.lexsort((parts, -areas[parts], groups))
    largest = order[np.unique(groups[order], return_index=True)[1]]
    return parts[largest], groups[largest]


def _neighbours(groups: np.ndarray, wanted: np.ndarray) -> dict[int, list[int]]:
    """Finds the neighbours of each wanted token, in space or at the same patch position one frame before or after."""
    pairs = []
    for axis in range(3):
        length = groups.shape[axis]
        near, far = groups.take(range(length - 1), axis).ravel(), groups.take(range(1, length), axis).ravel()
        pairs += [np.stack([near, far]), np.stack([far, near])]
    joined = np.concatenate(pairs, axis=1)
    joined = joined[:, (joined >= 0).all(0) & (joined[0] != joined[1])]
    joined = joined[:, wanted[joined[0]]]
    result: dict[int, list[int]] = {}
    for group, other in np.unique(joined, axis=1).T.tolist():
        result.setdefault(group, []).append(other)
    return result


def _difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Computes the perceived difference of colours, (N, M) for (N, 3) and (M, 3)."""
    return (first[:, None].astype(float) - second[None].astype(float)) ** 2 @ _WEIGHTS


def _distinct_colours() -> Iterator[np.ndarray]:
    """Yields endless bright colours, (3,) uint8 each, without repeating any until all are used."""
    seen: set[tuple[int, ...]] = set()
    number = 0
    while True:
        hue, saturation, value = (0.5 + number * _STEPS) % 1.0
        number += 1
        saturation = _SATURATION[0] + saturation * (_SATURATION[1] - _SATURATION[0])
        value = _VALUE[0] + value * (_VALUE[1] - _VALUE[0])
        pure = np.clip(np.abs((6 * hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        colour = np.rint(255 * value * (1 - saturation * (1 - pure))).astype(np.uint8)
        key = tuple(colour.tolist())
        if key not in seen:
            seen.add(key)
            yield colour
