"""Ranking of classes by score; ties are resolved by the lowest index, as with `torch.argmax`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# Number of joint scores held at a time, 8 bytes each.
_CHUNK_ELEMENTS = 1 << 18


def top_classes(scores: torch.Tensor, k: int = 1) -> torch.Tensor:
    """Returns the best classes.

    Args:
        scores: (N, C) scores, none of them NaN.
        k: Number of classes, 1 to C.

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
    """Returns the rank of the correct class of each sample.

    Args:
        scores: (N, C) scores, none of them NaN.
        labels: (N,) correct class ids, 0 to C - 1.

    Returns:
        (N,) ranks, 0 to C - 1: 0 means that the correct class is the best.

    Examples:
        >>> ranks(torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0]]), torch.tensor([2, 1]))
        tensor([1, 1])
    """
    own = scores.gather(1, labels[:, None])
    earlier = torch.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(dim=1)


def ranks_among(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the rank of the correct class among ranked class ids.

    Args:
        ids: (N, K) class ids, best first.
        labels: (N,) correct class ids.

    Returns:
        (N,) ranks, 0 for the first; K if the correct class is not among them.

    Examples:
        >>> ranks_among(torch.tensor([[4, 2], [1, 0]]), torch.tensor([2, 3]))
        tensor([1, 2])
    """
    return (ids != labels[:, None]).cumprod(dim=1).sum(dim=1)


def joint_ranks(scores: Sequence[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Returns the rank of the correct combination of one class per group.

    The score of a combination is the sum of its classes' scores. With logits, this ranks combinations by the product
    of the groups' softmax probabilities, as normalisation shifts all combinations of a sample equally; probabilities
    must be given as logarithms.

    All combinations are compared (29,100 per sample for 97 verbs and 300 nouns), a few samples at a time.

    Args:
        scores: (N, C_g) logits or log-probabilities of each of the G groups.
        labels: (N, G) correct class ids.

    Returns:
        (N,) ranks: 0 if and only if the correct class is the best of every group. Ties are resolved by the lowest
        index of the first group, then of the second, and so on.

    Examples:
        >>> verbs, nouns = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.0, 3.0, 2.5]])
        >>> joint_ranks([verbs, nouns], torch.tensor([[0, 2]]))  # (0, 1) scores 5, (0, 2) 4.5, (1, 1) 4
        tensor([1])
    """
    sizes = [group.shape[1] for group in scores]
    strides = torch.tensor([math.prod(sizes[index + 1 :]) for index in range(len(sizes))])
    chunk = max(1, _CHUNK_ELEMENTS // math.prod(sizes))
    found = []
    for part, label in zip(
        zip(*(group.split(chunk) for group in scores), strict=True),
        (labels * strides).sum(dim=1).split(chunk),
        strict=True,
    ):
        joint = part[0]
        for group in part[1:]:
            joint = (joint[:, :, None] + group[:, None, :]).flatten(1)
        found.append(ranks(joint, label))
    # A sum may round to that of its neighbour, which must not contradict the ranks within the groups.
    of_groups = torch.stack([ranks(group, label) for group, label in zip(scores, labels.T, strict=True)])
    return torch.cat(found).clamp(min=1).where((of_groups > 0).any(dim=0), 0)
