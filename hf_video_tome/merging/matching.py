"""Bipartite soft matching: which token is merged into which."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from .schedule import max_removable

SCORES_PER_BLOCK = 4 << 20
"""Scores of a set that are held at a time: 16 MiB in float32."""


class Matching(NamedTuple):
    """Pairs of tokens that are most alike, and the order of what is left.

    Attributes:
        source: (..., r) int64, positions of the tokens that are merged away.
        destination: (..., r) int64, position of the token that each source is merged into. Several sources may share
            one.
        score: (..., r) float, the similarity of each pair.
        kept: (..., M) int64, positions of the tokens that are kept, in the order of the output.
    """

    source: Tensor
    destination: Tensor
    score: Tensor
    kept: Tensor


def aggregate_heads(keys: Tensor, aggregation: str) -> Tensor:
    """Turns the keys of an attention layer into one metric per token.

    Args:
        keys: (B, H, N, D) float, keys of H heads.
        aggregation: "mean" averages the heads, "concat" lines them up.

    Returns:
        (B, N, D) or (B, N, H * D), without gradient, in float32 (float64 for float64 keys).

    Examples:
        >>> aggregate_heads(torch.randn(2, 3, 10, 4), "concat").shape
        torch.Size([2, 10, 12])
    """
    keys = keys.detach()
    dtype = torch.promote_types(keys.dtype, torch.float32)
    if aggregation == "mean":
        return keys.mean(dim=1, dtype=dtype)
    return keys.transpose(1, 2).flatten(2).to(dtype)


def _autocast_disabled(x: Tensor) -> AbstractContextManager:
    """Autocast would compare in half precision. Meta tensors have none."""
    return nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)


def _directions(metric: Tensor, shared: bool) -> tuple[Tensor, Tensor]:
    """Vectors of the tokens at even and at odd positions, the products of which are the cosine scores.

    The mean over sets of products is a product of longer vectors: the scores of single sets need not exist.
    """
    metric = metric / metric.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(metric.dtype).tiny)
    if shared:
        metric = metric.transpose(1, 2).flatten(2).unsqueeze(1) / metric.shape[1] ** 0.5
    return metric[..., ::2, :], metric[..., 1::2, :]


def cosine_scores(metric: Tensor, shared: bool = False) -> Tensor:
    """Cosine similarity of each token at an even position to each token at an odd position.

    Args:
        metric: (B, S, N, D) float, one vector for each of N tokens in S sets per sample.
        shared: Whether all S sets are to have one matching: their scores are then averaged.

    Returns:
        (B, S, ceil(N / 2), floor(N / 2)) float scores in [-1, 1]; S is 1 when shared.

    Examples:
        >>> cosine_scores(torch.randn(2, 4, 9, 16), shared=True).shape
        torch.Size([2, 1, 5, 4])
    """
    with _autocast_disabled(metric):
        even, odd = _directions(metric.detach(), shared)
        return even @ odd.transpose(-1, -2)


def random_scores(metric: Tensor, shared: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise in place of similarities: the control that a matching has to beat.

    Args:
        metric: (B, S, N, D); only its shape, dtype and device count.
        shared: Whether all S sets are to have one matching.
        generator: Source of randomness; the global one of PyTorch when None.

    Returns:
        (B, S, ceil(N / 2), floor(N / 2)) float scores in [0, 1); S is 1 when shared.

    Examples:
        >>> random_scores(torch.randn(2, 4, 9, 16)).shape
        torch.Size([2, 4, 5, 4])
    """
    batch, sets, num_tokens, _ = metric.shape
    shape = (batch, 1 if shared else sets, (num_tokens + 1) // 2, num_tokens // 2)
    if generator is None:  # which exporters cannot be given, not even as None
        return torch.rand(shape, dtype=metric.dtype, device=metric.device)
    return torch.rand(shape, generator=generator, dtype=metric.dtype, device=metric.device)


def bipartite_soft_matching(scores: Tensor, r: int, num_protected: int = 0) -> Matching:
    """Matches each token at an even position to its best token at an odd position and keeps the r best pairs.

    The kept tokens come out as: the unmatched even ones, then all odd ones. With protected tokens the even ones are in
    ascending position (so that CLS stays first); without, they are in descending order of their best score.

    From "Token Merging: Your ViT But Faster" (ICLR 2023), section 3, as used by "Video, How Do Your Tokens Merge?"
    (CVPRW 2025).

    Args:
        scores: (..., ceil(N / 2), floor(N / 2)) float, similarity of the tokens at even to those at odd positions.
        r: Pairs to make; more than half of the unprotected tokens is capped.
        num_protected: 1 where the first token (CLS) is neither to be merged away nor to take others in, else 0.

    Returns:
        The `Matching`, without gradient.

    Raises:
        ValueError: If `num_protected` is neither 0 nor 1.

    Examples:
        >>> matching = bipartite_soft_matching(torch.tensor([[0.1, 0.9], [0.3, 0.2]]), r=1)
        >>> matching.source.tolist(), matching.destination.tolist(), matching.kept.tolist()
        ([0], [3], [2, 1, 3])
    """
    return _keep_best_pairs(*scores.detach().max(dim=-1), scores.shape[-1], r, num_protected)


def cosine_matching(
    metric: Tensor, r: int, num_protected: int = 0, shared: bool = False, block_size: int = SCORES_PER_BLOCK
) -> Matching:
    """`bipartite_soft_matching` of the `cosine_scores`, of which only a block exists at any time.

    All scores of a clip of 32,000 tokens would be 1 GB.

    Args:
        metric: (B, S, N, D) float, one vector for each of N tokens in S sets per sample.
        r: Pairs to make in each set; more than half of the unprotected tokens is capped.
        num_protected: 1 where the first token (CLS) is neither to be merged away nor to take others in, else 0.
        shared: Whether all S sets are to have one matching, by the mean of their scores.
        block_size: Scores of each set to compute at a time, in whole rows.

    Returns:
        The `Matching`, with fields (B, S, ...), S = 1 when shared; without gradient.

    Raises:
        ValueError: If `num_protected` is neither 0 nor 1.

    Examples:
        >>> cosine_matching(torch.randn(2, 4, 9, 16), r=3, shared=True).source.shape
        torch.Size([2, 1, 3])
    """
    with _autocast_disabled(metric):
        even, odd = _directions(metric.detach(), shared)
        num_odd = odd.shape[-2]
        rows_per_block = max(block_size // max(num_odd, 1), 1)
        best = [(rows @ odd.transpose(-1, -2)).max(dim=-1) for rows in even.split(rows_per_block, dim=-2)]
        best_score = torch.cat([block.values for block in best], dim=-1)
        best_odd = torch.cat([block.indices for block in best], dim=-1)
        return _keep_best_pairs(best_score, best_odd, num_odd, r, num_protected)


def _order_from_best(score: Tensor) -> Tensor:
    """Positions in descending order of their scores (..., E), equal ones in ascending position."""
    if torch.onnx.is_in_onnx_export():
        # The exporter knows no stable sort. What it makes of this, TopK, is stable by the definition of ONNX.
        return score.sort(dim=-1, descending=True).indices
    return score.argsort(dim=-1, descending=True, stable=True)


def _keep_best_pairs(best_score: Tensor, best_odd: Tensor, num_odd: int, r: int, num_protected: int) -> Matching:
    """The r best pairs.

    Args:
        best_score: (..., E) float, of each token at an even position the best score.
        best_odd: (..., E) int64, the token that it is reached with, counted among those at odd positions.
        num_odd: Tokens at odd positions.
        r: As for `bipartite_soft_matching`.
        num_protected: As for `bipartite_soft_matching`.

    Returns:
        The `Matching`.
    """
    if num_protected not in (0, 1):
        raise ValueError(f"num_protected must be 0 or 1 (a CLS token at position 0), got {num_protected!r}")
    r = min(r, max_removable(best_score.shape[-1] + num_odd, num_protected))
    if num_protected:
        best_score[..., 0] = -torch.inf
    order = _order_from_best(best_score)
    merged, unmatched = order[..., :r], order[..., r:]
    if num_protected:
        unmatched = unmatched.sort(dim=-1).values
    odd = torch.arange(1, 2 * num_odd, 2, device=best_score.device).expand(*best_score.shape[:-1], num_odd)
    return Matching(
        source=2 * merged,
        destination=2 * best_odd.gather(-1, merged) + 1,
        score=best_score.gather(-1, merged),
        kept=torch.cat((2 * unmatched, odd), dim=-1),
    )
