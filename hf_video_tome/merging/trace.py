"""What happened to the tokens of a forward call, and the way back to the full grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .tokens import Tokens


class TokenMergingTrace(NamedTuple):
    """What happened to the tokens of a forward call: O(tokens) memory per layer, never tokens x tokens.

    Entry i of the per-layer tuples belongs to the output of layer i, which is `hidden_states[i]`, and entry 0 to the
    full grid. With an input stage `hidden_states[0]` has fewer tokens than that.

    Attributes:
        layer_sources: L + 1 tensors (B, N0) int64: the position of the token that holds each original token, -1 if
            dropped.
        layer_sizes: L + 1 tensors (B, N_i) float: how many original tokens each token stands for, 0 for padding.

    Examples:
        >>> trace = TokenMergingTrace((torch.tensor([[0, 1, 0, -1]]),), (torch.tensor([[2.0, 1.0]]),))
        >>> trace.unmerge(torch.tensor([[[5.0], [7.0]]])).squeeze().tolist()
        [5.0, 7.0, 5.0, 0.0]
    """

    layer_sources: tuple[Tensor, ...]
    layer_sizes: tuple[Tensor, ...]

    @property
    def sources(self) -> Tensor:
        """(B, N0) int64: for each original token the position of the final token that holds it, -1 if dropped."""
        return self.layer_sources[-1]

    @property
    def sizes(self) -> Tensor:
        """(B, N) float: how many original tokens each final token stands for, 0 for padding."""
        return self.layer_sizes[-1]

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Tokens in the sequence before the first and after each layer, padding included: L + 1 ints."""
        return tuple(size.shape[1] for size in self.layer_sizes)

    @property
    def clip_token_counts(self) -> Tensor:
        """(B, L + 1) int64: tokens of each clip before the first and after each layer, without padding."""
        return torch.stack([(size > 0).sum(dim=1) for size in self.layer_sizes], dim=1)

    def unmerge(self, x: Tensor, fill_value: float = 0.0, layer: int | None = None) -> Tensor:
        """Scatters values of merged tokens back to all original positions.

        Args:
            x: (B, N_i, ...) values per token of any of the `hidden_states`.
            fill_value: Value at original tokens that were dropped.
            layer: Which of the `hidden_states`, from 0 or counted from the end. None: known by its number of tokens,
                as layers with equally many have the same tokens where there is no padding.

        Returns:
            (B, N0, ...): every original token gets the value of the token that holds it.

        Raises:
            ValueError: If the layer does not have that many tokens, or none has, or those that have differ in theirs,
                or x is of another number of clips.
        """
        if x.shape[0] != self.sources.shape[0]:
            raise ValueError(
                f"x must be of the {self.sources.shape[0]} clips of the trace, (B, N, ...), got {x.shape[0]} in "
                "dimension 0"
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
                raise ValueError(f"layer must say which of the layers {found} x is of, got None")
        return found[0]


def unmerge(x: Tensor, source: Tensor, fill_value: float = 0.0) -> Tensor:
    """Scatters values of merged tokens back to all original positions.

    Args:
        x: (B, N, ...) values per token.
        source: (B, N0) int64, position in x of each original token, -1 if it was dropped.
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
    """Gathers the token states of one call into a trace.

    Args:
        tokens: The tracked state before the first and after each layer.
        token_counts: Tokens of the sequence at each of them.
        dtype: Dtype of the sizes while all are one.

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
