"""Orders of classes by their scores: among equal scores the lowest index comes first, as with `torch.argmax`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# Of the joint scores that are held at a time, 8 bytes each.
_CHUNK_ELEMENTS = 1 << 18


def top_classes(scores: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Returns the best classes.

    Args:
        scores: (N, C) scores, none of them NaN.
        k: How many, 1 to C.

    Returns:
        (N, k) class ids, best first.

    Examples:
        >>> top_classes(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]]), k=2)
        tensor([[1, 2],
                [0, 1]])
    """
    if k == 1:
        return scores.argmax(dim=1, keepdim=True)
    return scores.argsort(dim=1, descending=True, stable=True)[:, :k]


def ranks(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Counts the classes that come before the right one.

    Args:
        scores: (N, C) scores, none of them NaN.
        labels: (N,) right classes, 0 to C - 1.

    Returns:
        (N,) ranks, 0 to C - 1: 0 means that the right class is the best.

    Examples:
        >>> ranks(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]]), torch.tensor([2, 1]))
        tensor([1, 1])
    """
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(dim=1)


def ranks_among(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Finds the right class among ranked class ids.

    Args:
        ids: (N, K) class ids, best first.
        labels: (N,) right classes.

    Returns:
        (N,) ranks, 0 for the first; K where the right class is not among them.

    Examples:
        >>> ranks_among(torch.tensor([[4, 2], [1, 0]]), torch.tensor([2, 3]))
        tensor([1, 2])
    """
    return (ids != labels[:, None]).cumprod(dim=1).sum(dim=1)


def joint_ranks(scores: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
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

    Examples:
        >>> verbs, nouns = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 3.0, 2.5]])
        >>> joint_ranks([verbs, nouns], torch.tensor([[0, 2]]))  # (0, 1) scores 5, (0, 2) 4.5, (1, 1) 4
        tensor([1])
    """
    sizes = [group.shape[1] for group in scores]
    places = torch.tensor([math.prod(sizes[index + 1 :]) for index in range(len(sizes))])
    chunk = max(1, _CHUNK_ELEMENTS // math.prod(sizes))
    found = []
    for part, label in zip(
        zip(*(group.split(chunk) for group in scores), strict=True),
        (labels * places).sum(dim=1).split(chunk),
        strict=True,
    ):
        joint = part[0]
        for group in part[1:]:
            joint = (joint[:, :, None] + group[:, None, :]).flatten(1)
        found.append(ranks(joint, label))
    # A sum may round to that of its neighbour, which must not contradict what the groups say.
    of_groups = torch.stack([ranks(group, label) for group, label in zip(scores, labels.T, strict=True)])
    return torch.cat(found).clamp(min=1).where((of_groups > 0).any(dim=0), 0)
