"""Runs the layers of an encoder, handing the tokens of this call from one to the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..merging.plan import Plan
from ..merging.step import Step
from ..merging.tokens import Tokens
from ..merging.trace import TokenMergingTrace, build_trace


class TokenRecorder:
    """Holds the tokens of one forward call between its layers, and remembers them if a trace was asked for.

    Args:
        plan: What each layer removes.
        tokens: The tokens before the input stage.
        full_tokens: Tokens of the sequence before it.
        hidden_states: (B, N, C) what enters the first layer, in the order of the sequence.
        entering: The tokens that do.
        track: Whether to build a trace.
    """

    def __init__(
        self, plan: Plan, tokens: Tokens, full_tokens: int, hidden_states: Tensor, entering: Tokens, track: bool
    ) -> None:
        self.tokens = entering
        self._track = track
        self._plan = plan
        self._removals = plan.removals(hidden_states.shape[1])
        self._dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        self._states, self._counts = [tokens], [full_tokens]

    @classmethod
    def start(
        cls,
        plan: Plan,
        embeddings: Tensor,
        track: bool,
        position: Tensor | None = None,
        index: Tensor | None = None,
        pixel_values: Tensor | None = None,
    ) -> tuple[TokenRecorder, Tensor]:
        """Runs the input stage, if there is one.

        Args:
            plan: What each layer removes.
            embeddings: (B, N, C), with their positions.
            track: Whether to build a trace.
            position: (1, N, A) float, where the tokens are located, for layers that read it.
            index: (B, N) int64, where each token started, where these are not all tokens of the clip.
            pixel_values: (B, T, C, H, W) float, what was embedded.

        Returns:
            The recorder, and the embeddings (B, K, C) that enter the first layer.
        """
        tokens = plan.start(embeddings, track, position, index)
        hidden_states, entering = plan.enter(embeddings, tokens, pixel_values)
        return cls(plan, tokens, embeddings.shape[1], hidden_states, entering, track), hidden_states

    def step(self, layer: int) -> Step:
        """The step of a layer, counted from 0."""
        return self._plan.step(layer, self._removals[layer], self.tokens)

    def append(self, tokens: Tokens, num_tokens: int) -> None:
        """Takes the tokens after one more layer, and the length of their sequence."""
        self.tokens = tokens
        if self._track:
            self._states.append(tokens)
            self._counts.append(num_tokens)

    def trace(self) -> TokenMergingTrace | None:
        """The trace of all layers so far, or None if none was asked for."""
        return build_trace(self._states, self._counts, self._dtype) if self._track else None


def run_layers(
    layers: Iterable[nn.Module],
    embeddings: Tensor,
    plan: Plan,
    track: bool,
    position: Tensor | None = None,
    index: Tensor | None = None,
    pixel_values: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tokens, TokenMergingTrace | None]:
    """Runs layers `layer(hidden_states, step=..., **kwargs) -> (hidden_states, tokens)`, one after the other.

    Args:
        layers: The layers.
        embeddings: (B, N, C), with their positions.
        plan: What each layer removes.
        track: Whether to build a trace.
        position: As for `TokenRecorder.start`.
        index: As for `TokenRecorder.start`.
        pixel_values: As for `TokenRecorder.start`.
        **kwargs: Passed to each layer.

    Returns:
        The last states (B, M, C), the last tokens and the trace (None unless tracked).
    """
    recorder, hidden_states = TokenRecorder.start(plan, embeddings, track, position, index, pixel_values)
    for layer_number, layer in enumerate(layers):
        hidden_states, tokens = layer(hidden_states, step=recorder.step(layer_number), **kwargs)
        recorder.append(tokens, hidden_states.shape[1])
    return hidden_states, recorder.tokens, recorder.trace()
