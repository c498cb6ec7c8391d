"""Token merging once more, in plain Python loops and straight from its definition: what the package is compared with.

Nothing here is shared with the package; it is slow and knows nothing of tensors beyond reading their numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

Vector = list[float]
Matrix = list[list[float]]

MODES = ("merge", "drop", "hybrid", "random_merge", "random_drop")
"""The modes that it knows: those that pair tokens at even positions with tokens at odd ones."""


@dataclass
class Token:
    """A token: its state, what it is compared by, and the original tokens that it stands for: as many as its size."""

    state: Vector
    metric: Vector = field(default_factory=list)
    members: list[int] = field(default_factory=list)


def cosine(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def score_matrix(metrics: list[Vector]) -> Matrix:
    """Tokens at even positions against tokens at odd positions."""
    return [[cosine(a, b) for b in metrics[1::2]] for a in metrics[::2]]


def average(matrices: list[Matrix]) -> Matrix:
    return [[sum(cells) / len(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=False)]


def match(
    scores: Matrix, num_tokens: int, r: int, protect_first: bool
) -> tuple[dict[int, tuple[int, float]], list[int]]:
    """Returns {source: (destination, score)} and the positions of the tokens that are kept, in their new order."""
    r = min(r, (num_tokens - int(protect_first)) // 2)
    best: list[tuple[float, int, int]] = []
    for row, position in enumerate(range(0, num_tokens, 2)):
        if protect_first and position == 0:
            continue
        column = max(range(len(scores[row])), key=lambda j: scores[row][j])
        best.append((scores[row][column], position, 2 * column + 1))
    best.sort(key=lambda entry: entry[0], reverse=True)
    pairs = {source: (destination, score) for score, source, destination in best[:r]}
    unmatched = [source for _, source, _ in best[r:]]
    if protect_first:
        unmatched = [0, *sorted(unmatched)]
    return pairs, unmatched + list(range(1, num_tokens, 2))


def reduce_set(
    tokens: list[Token], scores: Matrix, r: int, protect_first: bool, mode: str, threshold: float | None
) -> list[Token]:
    """One set of tokens after one layer; where nothing is removed, nothing changes, the order included."""
    if min(r, (len(tokens) - int(protect_first)) // 2) == 0:
        return tokens
    pairs, kept = match(scores, len(tokens), r, protect_first)
    output = []
    for position in kept:
        own = tokens[position]
        incoming = [
            (tokens[source], score) for source, (destination, score) in pairs.items() if destination == position
        ]
        if mode.endswith("drop"):
            group = [own]
        elif mode == "hybrid" and any(score < threshold for _, score in incoming):
            group = [token for token, _ in incoming]
        else:
            group = [own, *(token for token, _ in incoming)]
        total = sum(len(token.members) for token in group)
        state = [
            sum(token.state[channel] * len(token.members) for token in group) / total
            for channel in range(len(own.state))
        ]
        output.append(Token(state, [], [member for token in group for member in token.members]))
    return output


def split_sequence(
    tokens: list[Token], num_prefix: int, num_sets: int, patch_major: bool, scope: str
) -> tuple[list[Token], list[list[Token]]]:
    """Takes a sequence apart into (prefix, sets of tokens that are matched among themselves).

    With scope "time" there is a set for each place, else one for each frame.
    """
    if scope == "clip":
        return [], [tokens]
    prefix, patches = tokens[:num_prefix], tokens[num_prefix:]
    if patch_major != (scope == "time"):
        return prefix, [patches[index::num_sets] for index in range(num_sets)]
    per_set = len(patches) // num_sets
    return prefix, [patches[index * per_set : (index + 1) * per_set] for index in range(num_sets)]


def join_sequence(prefix: list[Token], sets: list[list[Token]], patch_major: bool, scope: str) -> list[Token]:
    """The inverse of `split_sequence`."""
    if scope == "clip":
        return sets[0]
    if patch_major != (scope == "time"):
        return prefix + [token for across in zip(*sets, strict=True) for token in across]
    return prefix + [token for one_set in sets for token in one_set]


def reduce_sequence(
    tokens: list[Token],
    r: int,
    num_prefix: int,
    num_sets: int,
    patch_major: bool,
    scope: str,
    mode: str,
    threshold: float | None = None,
    random_scores: list[Matrix] | None = None,
) -> list[Token]:
    """One clip after one layer.

    `random_scores` replace the similarities: one matrix per set, or one for "tube" and "time".
    """
    prefix, sets = split_sequence(tokens, num_prefix, num_sets, patch_major, scope)
    matrices = random_scores or [score_matrix([token.metric for token in one_set]) for one_set in sets]
    if scope in ("tube", "time"):
        matrices = [average(matrices)] * len(sets)
    protect_first = scope == "clip" and num_prefix == 1
    reduced = [
        reduce_set(one_set, scores, r, protect_first, mode, threshold)
        for one_set, scores in zip(sets, matrices, strict=True)
    ]
    return join_sequence(prefix, reduced, patch_major, scope)
