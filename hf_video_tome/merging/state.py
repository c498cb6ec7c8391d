"""What one forward call knows about its tokens, and what is remembered of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenMergingState(NamedTuple):
    """The tokens of one forward call between two layers. Made anew per call and passed along; never changed in place.

    Attributes:
        size: (B, N) float, how many original tokens each token stands for; None while all are one.
        source: (B, N0) int64, the position of the token that holds each original token, -1 if dropped; None if no
            trace was asked for.
        position: (B, N, A) float, where each token lies on A axes, or (1, N, A) while that is the same for all clips;
            None for models that have no use for it: most embed positions before the first layer.
    """

    size: Tensor | None = None
    source: Tensor | None = None
    position: Tensor | None = None


class TokenMergingTrace(NamedTuple):
    """What happened to the tokens of a forward call: O(tokens) memory per layer, never tokens x tokens.

    Entry i of the per-layer tuples belongs to `hidden_states[i]`: entry 0 to the embeddings, entry i to the output of
    layer i.

    Attributes:
        layer_sources: L + 1 tensors (B, N0) int64: the position of the token that holds each original token, -1 if
            dropped.
        layer_sizes: L + 1 tensors (B, N_i) float: how many original tokens each token stands for.

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
        """(B, N) float: how many original tokens each final token stands for."""
        return self.layer_sizes[-1]

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Tokens in the sequence before the first and after each layer: L + 1 ints."""
        return tuple(size.shape[1] for size in self.layer_sizes)

    def unmerge(self, x: Tensor, fill_value: float = 0.0) -> Tensor:
        """Scatters values of merged tokens back to all original positions.

        Args:
            x: (B, N_i, ...) values per token of any of the `hidden_states`. The layer is known by its number of
                tokens: layers with equally many have the same tokens.
            fill_value: Value at original tokens that were dropped.

        Returns:
            (B, N0, ...): every original token gets the value of the token that holds it.

        Raises:
            ValueError: If no layer has that many tokens, or x is of another number of clips.
        """
        if x.shape[0] != self.sources.shape[0]:
            raise ValueError(
                f"x must be of the {self.sources.shape[0]} clips of the trace, (B, N, ...), got {x.shape[0]} in "
                "dimension 0"
            )
        for source, size in zip(self.layer_sources, self.layer_sizes, strict=True):
            if size.shape[1] == x.shape[1]:
                return unmerge(x, source, fill_value)
        raise ValueError(
            f"x must have one of {sorted(set(self.token_counts))} tokens in dimension 1, got {x.shape[1]}"
        )


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


def initial_state(
    batch_size: int, num_tokens: int, device: torch.device, track: bool, position: Tensor | None = None
) -> TokenMergingState:
    """The state before the first layer: nothing merged, every token in its place.

    Args:
        batch_size: Clips, B.
        num_tokens: Tokens of the sequence, N0.
        device: Where the source map is made.
        track: Whether a trace was asked for.
        position: (1, N0, A) or (B, N0, A) float positions, for models that need them in every layer.

    Returns:
        The state.
    """
    source = torch.arange(num_tokens, device=device).repeat(batch_size, 1) if track else None
    return TokenMergingState(source=source, position=position)


def build_trace(states: list[TokenMergingState], token_counts: list[int], dtype: torch.dtype) -> TokenMergingTrace:
    """Gathers the states of one call into a trace.

    Args:
        states: The tracked state before the first and after each layer.
        token_counts: Tokens of the sequence at each of them.
        dtype: Dtype of the sizes while all are one.

    Returns:
        The trace.

    Raises:
        ValueError: If a state was not tracked.
    """
    sources: list[Tensor] = []
    sizes: list[Tensor] = []
    for state, count in zip(states, token_counts, strict=True):
        if state.source is None:
            raise ValueError("a trace can only be built from states that were tracked from the start")
        sources.append(state.source)
        ones = state.source.new_ones((state.source.shape[0], count), dtype=dtype)
        sizes.append(ones if state.size is None else state.size)
    return TokenMergingTrace(tuple(sources), tuple(sizes))
