"""Bipartite soft matching: decides which token merges into which."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .noise import uniform_noise
from .schedule import max_removable
from .similarity import SCORES_PER_BLOCK, autocast_disabled, descending_order, in_blocks, unit_vectors
from .tokens import is_real

GROUP_PENALTY = 4.0
"""Subtracted from the scores of pairs across groups; larger than any difference of scores, which are in [-1, 1]."""


class Matching(NamedTuple):
    """Pairs of similar tokens, and the order of the tokens that remain.

    Attributes:
        source: (..., r) int64, positions of the tokens that are merged away.
        destination: (..., r) int64, position of the token that each source merges into; sources may share one.
        score: (..., r) float, similarity of each pair.
        kept: (..., M) int64, positions of the tokens that are kept, in output order.
        moved: (..., N - M) int64, positions of all other tokens.
        is_pair: (..., r) bool, which pairs merge; None for all.
        num_kept: (...) int64, number of entries of `kept` that are not padding; None for all.
    """

    source: Tensor
    destination: Tensor
    score: Tensor
    kept: Tensor
    moved: Tensor
    is_pair: Tensor | None = None
    num_kept: Tensor | None = None


def aggregate_heads(keys: Tensor, aggregation: str) -> Tensor:
    """Aggregates the keys of all attention heads into one metric vector per token.

    Args:
        keys: (B, H, N, D) float, keys of H heads.
        aggregation: "mean" averages the heads, "concat" concatenates them.

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


def cosine_scores(metric: Tensor, shared: bool = False) -> Tensor:
    """Computes the cosine similarity of each token at an even position to each token at an odd position.

    Args:
        metric: (B, S, N, D) float, one vector for each of N tokens in S sets per clip.
        shared: Whether all S sets share one matching, based on the mean of their scores.

    Returns:
        (B, S, ceil(N / 2), floor(N / 2)) float scores in [-1, 1]; S is 1 when shared.

    Examples:
        >>> cosine_scores(torch.randn(2, 4, 9, 16), shared=True).shape
        torch.Size([2, 1, 5, 4])
    """
    with autocast_disabled(metric):
        vectors = unit_vectors(metric, shared)
        even, odd = vectors[..., ::2, :], vectors[..., 1::2, :]
        return even @ odd.transpose(-1, -2)


def random_scores(metric: Tensor, shared: bool = False, generator: torch.Generator | None = None) -> Tensor:
    """Returns uniform noise in place of similarities: the control that a matching has to beat.

    Args:
        metric: (B, S, N, D); only its shape, dtype and device are used.
        shared: Whether all S sets share one matching.
        generator: Random number generator; the global one of PyTorch when None.

    Returns:
        (B, S, ceil(N / 2), floor(N / 2)) float scores in [0, 1); S is 1 when shared.

    Examples:
        >>> random_scores(torch.randn(2, 4, 9, 16)).shape
        torch.Size([2, 4, 5, 4])
    """
    batch, sets, num_tokens, _ = metric.shape
    return uniform_noise((batch, 1 if shared else sets, (num_tokens + 1) // 2, num_tokens // 2), metric, generator)


def bipartite_soft_matching(
    scores: Tensor, r: int, num_protected: int = 0, *, length: Tensor | None = None
) -> Matching:
    """Matches each token at an even position with the most similar one at an odd position; keeps the r best pairs.

    The output order is the unmatched even tokens, then all odd tokens. With protected tokens, the even ones are in
    ascending order of position (so that CLS stays first); without, in descending order of their best score.

    From "Token Merging: Your ViT But Faster" (ICLR 2023), section 3, as used by "Video, How Do Your Tokens Merge?"
    (CVPRW 2025).

    Args:
        scores: (..., ceil(N / 2), floor(N / 2)) float, similarity of tokens at even positions to those at odd ones.
        r: Number of pairs, capped at half of the unprotected tokens.
        num_protected: Number of tokens at the start (CLS, registers) that are neither sources nor destinations.
        length: (B,) int64, for scores (B, S, ...), number of tokens per set without padding; None if none is padded.

    Returns:
        The `Matching`, without gradient.

    Examples:
        >>> matching = bipartite_soft_matching(torch.tensor([[0.1, 0.9], [0.3, 0.2]]), r=1)
        >>> matching.source.tolist(), matching.destination.tolist(), matching.kept.tolist()
        ([0], [3], [2, 1, 3])
    """
    scores = scores.detach()
    protected_odd = min(num_protected // 2, scores.shape[-1])
    if protected_odd > 0:
        scores = scores.index_fill(-1, torch.arange(protected_odd, device=scores.device), -torch.inf)
    if length is not None:
        odd = torch.arange(1, 2 * scores.shape[-1], 2, device=scores.device)
        scores = scores.where(odd < length[:, None, None, None], -torch.inf)
    return _keep_best_pairs(*scores.max(dim=-1), scores.shape[-1], r, num_protected, length)


def cosine_matching(
    metric: Tensor,
    r: int,
    num_protected: int = 0,
    shared: bool = False,
    block_size: int = SCORES_PER_BLOCK,
    *,
    length: Tensor | None = None,
    group: Tensor | None = None,
    threshold: Tensor | float | None = None,
) -> Matching:
    """Runs `bipartite_soft_matching` on the `cosine_scores`, which it computes in blocks.

    All scores of a clip of 32,000 tokens would take 1 GB. A block covers all clips and sets, so a batch needs no more
    memory than one clip. If the batch size is symbolic (in torch.compile or torch.export), each clip has its own.

    Args:
        metric: (B, S, N, D) float, one vector for each of N tokens in S sets per clip.
        r: Number of pairs per set, capped at half of the unprotected tokens.
        num_protected: Number of tokens at the start (CLS, registers) that are neither sources nor destinations.
        shared: Whether all S sets share one matching, based on the mean of their scores.
        block_size: Number of scores computed at a time, rounded to whole rows.
        length: (B,) int64, number of tokens per set without padding, which comes last; None if no set is padded. Each
            clip gets the same pairs as it would alone.
        group: (B, S, N) int64, equal in all sets when shared. Tokens are matched within their group where possible,
            and pairs within groups come before pairs across groups.
        threshold: Score that pairs must exceed; their number, at most r, then depends on the clip.

    Returns:
        The `Matching`, with fields (B, S, ...), S = 1 when shared; without gradient.

    Examples:
        >>> cosine_matching(torch.randn(2, 4, 9, 16), r=3, shared=True).source.shape
        torch.Size([2, 1, 3])
    """
    with autocast_disabled(metric):
        vectors = unit_vectors(metric, shared)
        even, odd = vectors[..., ::2, :], vectors[..., 1::2, :]
        rows, columns = even.flatten(0, 1), odd.flatten(0, 1).transpose(-1, -2)
        choice = _Choice.of(even.shape[1], metric, num_protected, length, group)

        def best_of(first: int, count: int, first_row: int, num_rows: int) -> tuple[Tensor, ...]:
            block = rows.narrow(0, first, count).narrow(1, first_row, num_rows)
            return tuple(choice.restrict(block @ columns.narrow(0, first, count), first, first_row).max(dim=-1))

        best, best_odd = in_blocks(best_of, even.shape[:-1], odd.shape[-2], block_size)
        score = None
        if group is not None:  # `best` includes the penalty
            partner = odd.gather(2, best_odd.unsqueeze(-1).expand(*best_odd.shape, odd.shape[-1]))
            score = (even * partner).sum(dim=-1)
        return _keep_best_pairs(best, best_odd, odd.shape[-2], r, num_protected, length, score, threshold)


def random_matching(
    metric: Tensor,
    r: int,
    num_protected: int = 0,
    shared: bool = False,
    generator: torch.Generator | None = None,
    block_size: int = SCORES_PER_BLOCK,
    *,
    length: Tensor | None = None,
    group: Tensor | None = None,
) -> Matching:
    """Runs `bipartite_soft_matching` on the `random_scores`, which it computes in blocks.

    Args:
        metric: (B, S, N, D); only its shape, dtype and device are used.
        r: As for `cosine_matching`.
        num_protected: As for `cosine_matching`.
        shared: Whether all S sets share one matching.
        generator: Random number generator; the global one of PyTorch when None.
        block_size: As for `cosine_matching`.
        length: As for `cosine_matching`.
        group: As for `cosine_matching`.

    Returns:
        The `Matching`, with fields (B, S, ...), S = 1 when shared; on CPUs identical to that of `random_scores`.

    Examples:
        >>> random_matching(torch.randn(2, 4, 9, 16), r=3).source.shape
        torch.Size([2, 4, 3])
    """
    batch, sets, num_tokens, _ = metric.shape
    shape, num_odd = (batch, 1 if shared else sets, (num_tokens + 1) // 2), num_tokens // 2

    choice = _Choice.of(shape[1], metric, num_protected, length, group)

    def best_of(first: int, count: int, first_row: int, num_rows: int) -> tuple[Tensor, ...]:
        scores = uniform_noise((count, num_rows, num_odd), metric, generator)
        return tuple(choice.restrict(scores, first, first_row).max(dim=-1))

    best, best_odd = in_blocks(best_of, shape, num_odd, block_size)
    return _keep_best_pairs(best, best_odd, num_odd, r, num_protected, length)


class _Choice(NamedTuple):
    """Constraints on the pairs of a matching.

    Attributes:
        bias: (B * S, num_odd) or (1, num_odd) float, 0 or -inf, added to the scores of each token at an odd position;
            None for zeros.
        group: (B * S, N) int64, or None.
    """

    bias: Tensor | None
    group: Tensor | None

    @classmethod
    def of(
        cls, num_sets: int, metric: Tensor, num_protected: int, length: Tensor | None, group: Tensor | None
    ) -> _Choice:
        """Builds the constraints from the arguments of a matching, and the number of sets that are matched."""
        if group is not None:
            group = group[:, :num_sets].flatten(0, 1)
        if length is None and num_protected < 2:
            return cls(None, group)
        odd = torch.arange(1, metric.shape[2], 2, device=metric.device)
        allowed = (odd >= num_protected).unsqueeze(0)
        if length is not None:
            allowed = (allowed & (odd < length.unsqueeze(-1))).repeat_interleave(num_sets, dim=0)
        bias = torch.zeros(allowed.shape, dtype=metric.dtype, device=metric.device)
        return cls(bias.masked_fill(~allowed, -torch.inf), group)

    def restrict(self, scores: Tensor, first: int, first_row: int) -> Tensor:
        """Penalises or excludes pairs in a block of scores (sets, rows, num_odd)."""
        count, num_rows, _ = scores.shape
        if self.group is not None:
            group = self.group.narrow(0, first, count)
            even = group[:, ::2].narrow(1, first_row, num_rows)
            scores = scores - GROUP_PENALTY * (even.unsqueeze(-1) != group[:, None, 1::2])
        if self.bias is not None:
            bias = self.bias if self.bias.shape[0] == 1 else self.bias.narrow(0, first, count)
            scores = scores + bias.unsqueeze(1)
        return scores


def _keep_best_pairs(
    best: Tensor,
    best_odd: Tensor,
    num_odd: int,
    r: int,
    num_protected: int,
    length: Tensor | None = None,
    score: Tensor | None = None,
    threshold: Tensor | float | None = None,
) -> Matching:
    """Keeps the r best pairs.

    Args:
        best: (..., E) float, best score of each token at an even position, with penalties.
        best_odd: (..., E) int64, its partner as an index among the tokens at odd positions.
        num_odd: Number of tokens at odd positions.
        r: As for `cosine_matching`.
        num_protected: As for `cosine_matching`.
        length: As for `cosine_matching`.
        score: (..., E) float, similarity of the pair without penalties; `best` when None.
        threshold: As for `cosine_matching`.

    Returns:
        The `Matching`.
    """
    if num_protected < 0:
        raise ValueError(f"num_protected must be an int >= 0, got {num_protected}")
    num_even = best.shape[-1]
    num_protected = min(num_protected, num_even + num_odd)
    r = min(r, max_removable(num_even + num_odd, num_protected))
    if num_protected:
        best[..., : (num_protected + 1) // 2] = -torch.inf
    if length is not None:
        best = best.where(2 * torch.arange(num_even, device=best.device) < length[:, None, None], -torch.inf)
    score = best if score is None else score
    if threshold is not None:
        best = best.where(score > threshold, -torch.inf)
    order = descending_order(best)
    merged = order[..., :r]
    source, destination = 2 * merged, 2 * best_odd.gather(-1, merged) + 1
    pair_score = score.gather(-1, merged)
    if length is None and threshold is None:
        kept = _kept(order[..., r:], num_odd, num_protected)
        return Matching(source, destination, pair_score, kept, moved=source)
    if length is None:
        length = best_odd.new_full(best.shape[:1], num_even + num_odd)
    num_pairs = ((length - num_protected).clamp_min(0) // 2).clamp_max(r).unsqueeze(-1).expand(best.shape[:-1])
    if threshold is not None:
        num_pairs = torch.minimum(num_pairs, best.isfinite().sum(dim=-1))
    arranged = _arranged(order, num_odd, num_protected, length, num_pairs)
    width = num_even + num_odd - (r if threshold is None else 0)
    return Matching(
        source,
        destination,
        pair_score,
        kept=arranged[..., :width],
        moved=arranged[..., width:],
        is_pair=is_real(num_pairs, r),
        num_kept=length.unsqueeze(-1) - num_pairs,
    )


def _kept(unmatched: Tensor, num_odd: int, num_protected: int) -> Tensor:
    """Returns the positions that are kept (..., M), in output order, given the unmatched even ones."""
    if num_protected:
        unmatched = unmatched.sort(dim=-1).values
    odd = torch.arange(1, 2 * num_odd, 2, device=unmatched.device).expand(*unmatched.shape[:-1], num_odd)
    if num_protected < 2:
        return torch.cat((2 * unmatched, odd), dim=-1)
    prefix = torch.arange(num_protected, device=unmatched.device).expand(*unmatched.shape[:-1], num_protected)
    even = 2 * unmatched[..., (num_protected + 1) // 2 :]
    return torch.cat((prefix, even, odd[..., num_protected // 2 :]), dim=-1)


def _arranged(order: Tensor, num_odd: int, num_protected: int, length: Tensor, num_pairs: Tensor) -> Tensor:
    """Returns all positions (..., N): the kept ones in the order of `_kept`, then padding, then the merged ones."""
    num_even = order.shape[-1]
    num_tokens = num_even + num_odd
    position = torch.arange(num_tokens, device=order.device)
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(num_even, device=order.device).expand_as(order))
    even = torch.where(rank < num_pairs.unsqueeze(-1), 4 * num_tokens, num_tokens) + (
        position[::2] if num_protected else rank
    )
    odd = (2 * num_tokens + position[1::2]).expand(*order.shape[:-1], num_odd)
    key = torch.stack((even, torch.nn.functional.pad(odd, (0, num_even - num_odd))), dim=-1).flatten(-2)
    key = key[..., :num_tokens].where(position < length[:, None, None], 3 * num_tokens + position)
    return key.where(position >= num_protected, position).argsort(dim=-1)
