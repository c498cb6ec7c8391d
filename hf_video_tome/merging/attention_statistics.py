"""Statistics of a layer's attention per token, computed in blocks of queries without storing the attention map."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .proportional import log_size

WEIGHTS_PER_BLOCK = 4 << 20
"""Number of attention weights held in memory at a time: 16 MiB in float32."""


class AttentionStatistics(NamedTuple):
    """Statistics of the attention of one layer; nothing is computed until a method is called.

    Attributes:
        queries: (B, H, N, D) float.
        keys: (B, H, N, D) float.
        scaling: Factor of the logits.
        size: (B, N) float, sizes by which keys are weighed, 0 for padding; None if all weigh the same.
    """

    queries: Tensor
    keys: Tensor
    scaling: float
    size: Tensor | None = None

    def negative_entropy(self) -> Tensor:
        """Returns the negative entropy of each token's attention, sum of A ln A, with A averaged over the heads.

        Returns:
            (B, N) float, without gradient; 0 if a token attends to one token only, low if it attends everywhere.

        Examples:
            >>> q = torch.zeros(1, 2, 4, 8)
            >>> AttentionStatistics(q, q, 1.0).negative_entropy()[0, 0].exp().item()
            0.25
        """
        return torch.cat(self._map(lambda weights, _: torch.special.xlogy(weights, weights).sum(dim=-1)), dim=-1)

    def received(self) -> Tensor:
        """Returns the attention that each token receives, averaged over heads and queries.

        Returns:
            (B, N) float, without gradient; the values of a clip sum to one.

        Examples:
            >>> q = torch.zeros(1, 2, 4, 8)
            >>> AttentionStatistics(q, q, 1.0).received().tolist()
            [[0.25, 0.25, 0.25, 0.25]]
        """
        num_tokens = self.queries.shape[2]
        if self.size is None:
            return torch.stack(self._map(lambda weights, _: weights.sum(dim=1))).sum(dim=0) / num_tokens
        is_query = (self.size > 0).to(torch.promote_types(self.queries.dtype, torch.float32)).unsqueeze(-1)

        def sum_of_queries(weights: Tensor, first: int) -> Tensor:
            return (weights * is_query[:, first : first + weights.shape[1]]).sum(dim=1)

        return torch.stack(self._map(sum_of_queries)).sum(dim=0) / is_query.sum(dim=1)

    def _map(self, function: Callable[[Tensor, int], Tensor]) -> list[Tensor]:
        """Applies a function to blocks of rows (B, n, N) of the attention map, averaged over the heads.

        Args:
            function: Gets a block and the number of its first row.
        """
        queries, keys = self.queries.detach(), self.keys.detach()
        dtype = torch.promote_types(queries.dtype, torch.float32)
        queries, keys = queries.to(dtype) * self.scaling, keys.to(dtype).transpose(-1, -2)
        bias = None if self.size is None else log_size(self.size).to(dtype)[:, None, None, :]
        batch, heads, num_tokens, _ = queries.shape
        rows = max(WEIGHTS_PER_BLOCK // max(batch * heads * num_tokens, 1), 1)
        results = []
        for first in range(0, num_tokens, rows):
            logits = queries[:, :, first : first + rows] @ keys
            logits = logits if bias is None else logits + bias
            results.append(function(logits.softmax(dim=-1).mean(dim=1), first))
        return results
