"""Clustering of tokens: chooses centres, and assigns every other token to the nearest one."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import has_static_value

from .assignment import Assignment, assign_heirs
from .similarity import SCORES_PER_BLOCK, autocast_disabled, descending_order, unit_vectors


class Clusters(NamedTuple):
    """Partition of the tokens of each set into K clusters around some of them.

    Attributes:
        centre: (..., K) int64, positions of the centres, ascending.
        label: (..., N) int64, number of the cluster of each token, from 0 to K - 1; a centre is in its own.
    """

    centre: Tensor
    label: Tensor


_TIE = 16
"""Similarities to a mean are equal if they differ by less than this many roundings."""

Cluster = Callable[[Tensor, int], Clusters]
"""`(keys, num_clusters) -> clusters`: (G, n, D) float, and K in 1..n."""


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of a number that is not above a limit: into how many equal runs it can be cut.

    Examples:
        >>> largest_divisor(1568, 4), largest_divisor(1569, 4), largest_divisor(7, 4)
        (4, 3, 1)
    """
    return next(divisor for divisor in range(min(most, max(number, 1)), 0, -1) if number % divisor == 0)


def density_peaks(
    keys: Tensor, num_clusters: int, neighbours: int = 5, block_size: int = SCORES_PER_BLOCK
) -> Clusters:
    """Clusters around tokens that are both in dense regions and far from any denser token (DPC-KNN).

    The distance of two tokens is that of their normalised keys, divided by sqrt(D). The density of a token is
    exp(-mean of the squared distances to its `neighbours` nearest tokens, itself included); of equally dense tokens,
    the first counts as denser. The centres are the tokens with the largest product of density and distance to the
    nearest denser token; all others join the nearest centre. No loop over clusters, and nothing random.

    If the distances of a set exceed the block size, they are computed several times, in blocks of rows.

    Args:
        keys: (B, S, N, D) float, in float32 or better.
        num_clusters: Number of clusters K of each set, from 1 to N.
        neighbours: Number of nearest tokens that determine the density.
        block_size: Number of distances held in memory at a time, rounded to whole rows.

    Returns:
        The clusters, with fields (B, S, ...); without gradient.

    Examples:
        >>> angle = torch.tensor([0.0, 0.1, 0.3, 2.0, 2.1, 4.0])
        >>> keys = torch.stack((angle.cos(), angle.sin()), dim=-1).view(1, 1, 6, 2)
        >>> clusters = density_peaks(keys, num_clusters=3, neighbours=2)
        >>> clusters.centre.tolist(), clusters.label.tolist()
        ([[[0, 3, 5]]], [[[0, 0, 0, 1, 1, 2]]])
    """
    num_tokens = int(keys.shape[2])
    rows = max(block_size // max(num_tokens, 1), 1)

    def cluster(keys: Tensor) -> Clusters:
        return _density_peaks(unit_vectors(keys), num_clusters, neighbours, min(rows, num_tokens))

    return _in_blocks(cluster, keys, num_clusters, num_tokens**2, block_size)


def farthest_points(keys: Tensor, num_clusters: int, block_size: int = SCORES_PER_BLOCK) -> Clusters:
    """Clusters around tokens that are far from each other (KKZ).

    The first centre is the token with the longest key; each next one is the token farthest from its nearest centre, in
    the direction of its key. All others join the nearest centre. One step per cluster: not for graphs.

    Args:
        keys: (B, S, N, D) float, in float32 or better.
        num_clusters: Number of clusters K of each set, from 1 to N.
        block_size: Number of elements of temporary tensors, rounded to whole sets.

    Returns:
        The clusters, with fields (B, S, ...); without gradient.

    Examples:
        >>> keys = torch.tensor([[2.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]).view(1, 1, 4, 2)
        >>> farthest_points(keys, num_clusters=2).centre.tolist()
        [[[0, 2]]]
    """

    def cluster(keys: Tensor) -> Clusters:
        return _in_order(_farthest_points(keys, unit_vectors(keys), num_clusters))

    return _in_blocks(cluster, keys, num_clusters, keys.shape[2] * keys.shape[3], block_size)


def k_medoids(keys: Tensor, num_clusters: int, iterations: int = 5, block_size: int = SCORES_PER_BLOCK) -> Clusters:
    """Improves the clusters of `farthest_points`: the centre becomes the token nearest to the mean of its cluster.

    Args:
        keys: (B, S, N, D) float, in float32 or better.
        num_clusters: Number of clusters K of each set, from 1 to N.
        iterations: Largest number of times that the centres move and all others join the nearest one.
        block_size: Number of elements of temporary tensors, rounded to whole sets.

    Returns:
        The clusters, with fields (B, S, ...); without gradient.

    Examples:
        >>> angle = torch.tensor([0.0, 0.3, 0.5, 3.0])
        >>> keys = torch.stack((angle.cos(), angle.sin()), dim=-1).view(1, 1, 4, 2)
        >>> farthest_points(keys, 2).centre.tolist(), k_medoids(keys, 2).centre.tolist()
        ([[[0, 3]]], [[[1, 3]]])
    """

    def cluster(keys: Tensor) -> Clusters:
        directions = unit_vectors(keys)
        clusters = _farthest_points(keys, directions, num_clusters)
        for _ in range(iterations):
            centre = _medoids(directions, clusters)
            if centre.device.type != "meta" and centre.equal(clusters.centre):
                break  # nothing would move any more
            clusters = Clusters(centre, nearest_centre(directions, centre))
        return _in_order(clusters)

    return _in_blocks(cluster, keys, num_clusters, keys.shape[2] * max(keys.shape[3], num_clusters), block_size)


def nearest_centre(directions: Tensor, centre: Tensor) -> Tensor:
    """Assigns each token to the centre with the most similar direction.

    Args:
        directions: (..., N, D) float, vectors of length one.
        centre: (..., K) int64, positions of the centres, in any order.

    Returns:
        (..., N) int64, index in `centre`; of equally near ones the first, except that a centre belongs to itself.

    Examples:
        >>> nearest_centre(torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 2, 3])).tolist()
        [0, 1, 1, 2]
    """
    return _with_own(_similarity_to(directions, centre).argmax(dim=-1), centre)


def partition(clusters: Clusters) -> Assignment:
    """Builds the assignment that merges each cluster into its centre.

    Args:
        clusters: The clusters, with fields (B, S, ...).

    Returns:
        The `Assignment`: slots in the order of the centres, and all other tokens in ascending order as moved ones.

    Examples:
        >>> clusters = Clusters(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 1, 1, 0]]]))
        >>> partition(clusters).moved.tolist()
        [[[1, 3]]]
    """
    return assign_heirs(clusters.centre.gather(-1, clusters.label), clusters.centre.shape[-1])


def cluster_runs(cluster: Cluster, keys: Tensor, num_clusters: int, num_runs: int) -> Clusters:
    """Clusters runs of consecutive tokens of equal length on their own, each into equally many clusters.

    Args:
        cluster: Clusters (B, G, n, D) keys.
        keys: (B, S, N, D) float.
        num_clusters: Number of clusters of all runs of a set, a multiple of `num_runs`.
        num_runs: Number of runs, a divisor of N.

    Returns:
        The clusters of each set, with fields (B, S, ...): run after run.

    Examples:
        >>> keys = torch.eye(2)[[0, 1, 0, 1]].view(1, 1, 4, 2)
        >>> cluster_runs(density_peaks, keys, num_clusters=4, num_runs=2).label.tolist()
        [[[0, 1, 2, 3]]]
    """
    sets = keys.shape[1]
    runs = keys.unflatten(2, (num_runs, -1)).flatten(1, 2)
    clusters = cluster(runs, num_clusters // num_runs)

    def joined(x: Tensor, step: int) -> Tensor:
        first = torch.arange(0, num_runs * step, step, device=x.device).unsqueeze(-1)
        return (x.unflatten(1, (sets, num_runs)) + first).flatten(2)

    return Clusters(joined(clusters.centre, runs.shape[2]), joined(clusters.label, num_clusters // num_runs))


def _in_blocks(
    cluster: Callable[[Tensor], Clusters], keys: Tensor, num_clusters: int, elements: int, block_size: int
) -> Clusters:
    """Clusters as many sets at a time as fit into a block.

    A block covers sets of several clips, so a batch needs no more memory than one clip. If the batch size is symbolic
    (in torch.compile or torch.export), each clip has a block of its own.

    Args:
        cluster: Clusters (G, n, D) keys.
        keys: (B, S, n, D) float.
        num_clusters: Number of clusters K of each set.
        elements: Number of elements that each set holds in memory.
        block_size: Number of elements per block; a block has at least one set.
    """
    batch, sets, num_tokens, _ = keys.shape
    if torch.jit.is_tracing():  # sizes are tensors while tracing; makes them constants
        batch, sets, num_tokens = int(batch), int(sets), int(num_tokens)
    if has_static_value(batch):
        keys = keys.flatten(0, 1).unsqueeze(0)
    blocks = keys.split(max(int(block_size // max(elements, 1)), 1), dim=1)
    # One tensor for all results: those of single blocks would be scattered over the memory that the next block needs.
    centre = torch.empty((*keys.shape[:2], num_clusters), dtype=torch.int64, device=keys.device)
    label = torch.empty(keys.shape[:-1], dtype=torch.int64, device=keys.device)
    first = 0
    with autocast_disabled(keys):
        for block in blocks:
            clusters, after = cluster(block.flatten(0, 1)), first + block.shape[1]
            centre[:, first:after] = clusters.centre.unflatten(0, (keys.shape[0], block.shape[1]))
            label[:, first:after] = clusters.label.unflatten(0, (keys.shape[0], block.shape[1]))
            first = after
    return Clusters(centre.view(batch, sets, num_clusters), label.view(batch, sets, num_tokens))


def _density_peaks(directions: Tensor, num_clusters: int, neighbours: int, rows: int) -> Clusters:
    """Clusters (G, n, D) directions, computing the similarities of `rows` tokens to all others at a time."""
    num_tokens, channels = directions.shape[-2:]
    neighbours = min(neighbours, num_tokens)
    first_rows = range(0, num_tokens, max(rows, 1))
    every = directions.transpose(-1, -2)
    whole = directions @ every if len(first_rows) == 1 else None

    def similarities(first: int) -> Tensor:
        """Computes a block (G, rows, n); the larger, the nearer."""
        return directions[:, first : first + rows] @ every if whole is None else whole

    def spread(first: int) -> Tensor:
        # The first is the token itself: its distance, which is 0, is not rounded, so that equal densities are equal.
        nearest = similarities(first).topk(neighbours, dim=-1).values[..., 1:]
        return _squared_distance(nearest).sum(dim=-1) / neighbours

    mean_distance = torch.cat([spread(first) for first in first_rows], dim=-1)
    # The exponential function would round different distances to one density.
    order = descending_order(-mean_distance)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(num_tokens, device=order.device).expand_as(order))

    def nearest_denser(first: int) -> Tensor:
        is_denser = rank.unsqueeze(-2) < rank[..., first : first + rows].unsqueeze(-1)
        return similarities(first).where(is_denser, -torch.inf).amax(dim=-1)

    # The densest token is infinitely far from denser ones. Any distance not below all others chooses the same centres.
    nearest = torch.cat([nearest_denser(first) for first in first_rows], dim=-1)
    density = (-mean_distance / channels).exp()
    peak = density * (_squared_distance(nearest) / channels).sqrt()
    centre = descending_order(peak)[..., :num_clusters].sort(dim=-1).values
    if whole is None:
        label = torch.cat(
            [_similarity_to(directions, centre, first, rows).argmax(dim=-1) for first in first_rows], dim=-1
        )
    else:
        label = whole.gather(-1, centre.unsqueeze(-2).expand(-1, num_tokens, -1)).argmax(dim=-1)
    return Clusters(centre, _with_own(label, centre))


def _squared_distance(similarity: Tensor) -> Tensor:
    return (2 - 2 * similarity).clamp_min(0)


def _similarity_to(directions: Tensor, centre: Tensor, first: int = 0, rows: int | None = None) -> Tensor:
    """Returns the similarity of some tokens to each centre (..., rows, K)."""
    index = centre.unsqueeze(-1).expand(*centre.shape, directions.shape[-1])
    chosen = directions.gather(-2, index).transpose(-1, -2)
    return directions[..., first : None if rows is None else first + rows, :] @ chosen


def _with_own(label: Tensor, centre: Tensor) -> Tensor:
    """Puts each centre into its own cluster: another may be a duplicate."""
    return label.scatter(-1, centre, torch.arange(centre.shape[-1], device=centre.device).expand_as(centre))


def _in_order(clusters: Clusters) -> Clusters:
    """Sorts the centres in ascending order of position."""
    centre, order = clusters.centre.sort(dim=-1)
    number = torch.arange(order.shape[-1], device=order.device).expand_as(order)
    return Clusters(centre, torch.empty_like(order).scatter_(-1, order, number).gather(-1, clusters.label))


def _farthest_points(keys: Tensor, directions: Tensor, num_clusters: int) -> Clusters:
    """Clusters (G, n, D) keys; the centres are in the order in which they are chosen."""
    centre = keys.detach().norm(dim=-1).argmax(dim=-1, keepdim=True)
    best = torch.full_like(keys[..., 0], -torch.inf)
    label = torch.zeros_like(best, dtype=torch.int64)
    centres = []
    columns = directions.transpose(-1, -2).contiguous()  # twice as fast
    for number in range(num_clusters):
        index = centre.unsqueeze(-1).expand(-1, -1, directions.shape[-1])
        similarity = torch.bmm(directions.gather(1, index), columns).squeeze(1)
        label.masked_fill_(similarity > best, number)
        # A centre is not chosen again, even if all others are its duplicates.
        best = torch.maximum(best, similarity).scatter_(-1, centre, torch.inf)
        centres.append(centre)
        centre = best.argmin(dim=-1, keepdim=True)
    chosen = torch.cat(centres, dim=-1)
    return Clusters(chosen, _with_own(label, chosen))


def _medoids(directions: Tensor, clusters: Clusters) -> Tensor:
    """Returns the token of each cluster that is nearest to the mean of the cluster, (G, K) int64."""
    label, num_clusters, num_tokens = clusters.label, clusters.centre.shape[-1], directions.shape[-2]
    member = label.unsqueeze(-2) == torch.arange(num_clusters, device=label.device).unsqueeze(-1)
    # Vectors of one length are nearest to a mean if most similar to the sum, which is a product: equal in every run.
    total = member.to(directions.dtype) @ directions
    similarity = (directions * total.gather(-2, label.unsqueeze(-1).expand_as(directions))).sum(dim=-1)
    best = similarity.new_full(clusters.centre.shape, -torch.inf).scatter_reduce(-1, label, similarity, "amax")
    # Of two members, both are equally near: that rounding decides would make clips depend on their batch.
    least = best - _TIE * torch.finfo(best.dtype).eps * best.abs()
    position = torch.arange(num_tokens, device=label.device).where(similarity >= least.gather(-1, label), num_tokens)
    return torch.full_like(clusters.centre, num_tokens).scatter_reduce(-1, label, position, "amin")
