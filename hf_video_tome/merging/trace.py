"""Trace of the tokens of a forward call, and the map back to the full grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .tokens import Tokens


class TokenMergingTrace(NamedTuple):
    """Trace of the tokens of a forward call; it takes O(tokens) memory per layer.

    Entry i of the per-layer tuples describes the tokens of `hidden_states[i]`, the output of layer i; entry 0 is the
    full grid. With an input stage, `hidden_states[0]` has fewer tokens than the grid.

    Attributes:
        layer_sources: L + 1 tensors (B, N0) int64, position of the token that holds each original token, -1 if
            dropped.
        layer_sizes: L + 1 tensors (B, N_i) float, number of original tokens that each token stands for, 0 for padding.

    Examples:
        >>> trace = TokenMergingTrace((torch.tensor([[0, 1, 0, -1]]),), (torch.tensor([[2.0, 1.0]]),))
        >>> trace.unmerge(torch.tensor([[[5.0], [7.0]]])).squeeze().tolist()
        [5.0, 7.0, 5.0, 0.0]
    """

    layer_sources: tuple[Tensor, ...]
    layer_sizes: tuple[Tensor, ...]

    @property
    def sources(self) -> Tensor:
        """(B, N0) int64, position of the final token that holds each original token, -1 if dropped."""
        return self.layer_sources[-1]

    @property
    def sizes(self) -> Tensor:
        """(B, N) float, number of original tokens that each final token stands for, 0 for padding."""
        return self.layer_sizes[-1]

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Number of tokens before the first layer and after each layer, including padding: L + 1 ints."""
        return tuple(size.shape[1] for size in self.layer_sizes)

    @property
    def clip_token_counts(self) -> Tensor:
        """(B, L + 1) int64, number of tokens of each clip before the first layer and after each layer."""
        return torch.stack([(size > 0).sum(dim=1) for size in self.layer_sizes], dim=1)

    def unmerge(self, x: Tensor, fill_value: float = 0.0, layer: int | None = None) -> Tensor:
        """Scatters values of merged tokens back to all original positions.

        Args:
            x: (B, N_i, ...) values per token of any of the `hidden_states`.
            fill_value: Value for original tokens that were dropped.
            layer: Index into the `hidden_states`, may be negative. If None, it is inferred from the number of tokens:
                without padding, layers with equally many tokens have the same ones.

        Returns:
            (B, N0, ...), for every original token the value of the token that holds it.

        Raises:
            ValueError: If x has another number of clips than the trace, if no layer or not the given one has that many
                tokens, or if layers with that many tokens differ.
        """
        if x.shape[0] != self.sources.shape[0]:
            raise ValueError(
                f"x must have the {self.sources.shape[0]} clips of the trace in dimension 0, got {x.shape[0]}"
            )
        return unmerge(x, self.layer_sources[self._find(x.shape[1], layer)], fill_value)

    def _find(self, num_tokens: int, layer: int | None) -> int:
        counts = self.token_counts
        if layer is not None:
            if not -len(counts) <= layer < len(counts):
                raise ValueError(f"layer must be from {-len(counts)} to {len(counts) - 1}, got {layer}")
            if counts[layer] != num_tokens:
                raise ValueError(
                    f"x must have {counts[layer]} tokens in dimension 1 for layer {layer}, got {num_tokens}"
                )
            return layer
        found = [index for index, count in enumerate(counts) if count == num_tokens]
        if not found:
            raise ValueError(f"x must have one of {sorted(set(counts))} tokens in dimension 1, got {num_tokens}")
        first = self.layer_sources[found[0]]
        for other in found[1:]:
            same = self.layer_sources[other]
            if same is not first and not torch.equal(same, first):
                raise ValueError(f"layer must be one of {found}, which all have {num_tokens} tokens, got None")
        return found[0]


def unmerge(x: Tensor, source: Tensor, fill_value: float = 0.0) -> Tensor:
    """Scatters values of merged tokens back to all original positions.

    Args:
        x: (B, N, ...) values per token.
        source: (B, N0) int64, position in x of each original token, -1 if dropped.
        fill_value: Value where `source` is -1.

    Returns:
        (B, N0, ...).

    Examples:
        >>> unmerge(torch.tensor([[1.0, 2.0]]), torch.tensor([[1, 1, -1]])).tolist()
        [[2.0, 2.0, 0.0]]
    """
    shape = (*source.shape, *[1] * (x.ndim - 2))
    index = source.clamp_min(0).view(shape).expand(*source.shape, *x.shape[2:])
    return x.gather(1, index).masked_fill((source < 0).view(shape), fill_value)


def build_trace(tokens: Sequence[Tokens], token_counts: Sequence[int], dtype: torch.dtype) -> TokenMergingTrace:
    """Builds a trace from the token states of one call.

    Args:
        tokens: The tracked states before the first layer and after each layer.
        token_counts: Number of tokens of each state.
        dtype: Dtype of sizes that are all 1.

    Returns:
        The trace.

    Raises:
        ValueError: If a state was not tracked.
    """
    sources: list[Tensor] = []
    sizes: list[Tensor] = []
    for state, count in zip(tokens, token_counts, strict=True):
        if state.source is None:
            raise ValueError("a trace can only be built from tokens that were tracked from the start")
        sources.append(state.source)
        ones = state.source.new_ones((state.source.shape[0], count), dtype=dtype)
        sizes.append(ones if state.size is None else state.size)
    return TokenMergingTrace(tuple(sources), tuple(sizes))
