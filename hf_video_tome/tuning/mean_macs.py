"""Mean multiply-accumulates (MACs) of clips with different numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .clip_counts import ClipCounts

NUM_SAMPLES = 12


def fit_macs(
    count: Callable[[int, list[int]], int], most_entering: int, least_entering: int, protected: int, num_layers: int
) -> Callable[[ClipCounts], float]:
    """Returns a function for the mean MACs of clips, fitted to exact counts.

    MACs are a quadratic function of the number of tokens that enter and leave each layer, the same for all layers;
    a few exact counts determine it (to 1e-8), while one for each clip would take minutes.

    Args:
        count: Returns the exact MACs for a number of tokens that enter the first layer, and removals.
        most_entering: Largest number of tokens of a matched set that enter the first layer.
        least_entering: Smallest number.
        protected: Number of them that never merge.
        num_layers: Number of layers that can merge.

    Returns:
        The function.
    """
    generator = torch.Generator().manual_seed(0)
    samples, macs = [], []
    for _ in range(NUM_SAMPLES):
        entering = int(torch.randint(least_entering, most_entering + 1, (), generator=generator))
        left, removed = entering, []
        share = float(torch.rand((), generator=generator))
        for _ in range(num_layers):
            half = max(left - protected, 0) // 2
            removed.append(min(half, 1 + int(share * half * float(torch.rand((), generator=generator)))))
            left -= removed[-1]
        samples.append(ClipCounts(torch.tensor([float(entering)]), torch.tensor([removed]).float()))
        macs.append(count(entering, removed))
    features = torch.cat([_features(sample, most_entering) for sample in samples])
    largest = max(macs)
    wanted = torch.tensor(macs, dtype=torch.float64) / largest
    # Some features may be constant, such as the number of entering tokens.
    weights = torch.linalg.lstsq(features, wanted.unsqueeze(1), driver="gelsd").solution

    return lambda counts: float((_features(counts, most_entering) @ weights).mean()) * largest


def _features(counts: ClipCounts, scale: float) -> Tensor:
    """Returns the terms of the function, (n, 7) float64."""
    left = counts.left.double() / scale
    before, after = left[:, :-1], left[:, 1:]
    terms = before, after, before.square(), before * after, after.square()
    sums = torch.stack([term.sum(dim=1) for term in terms], dim=1)
    return torch.cat((torch.ones_like(sums[:, :1]), sums, left[:, -1:]), dim=1)
