"""Runs the layers of an encoder and passes the token state from one to the next."""

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
    """Token state of one forward call between its layers, recorded if a trace is requested.

    Args:
        plan: What each layer removes.
        tokens: The tokens before the input stage.
        full_tokens: Number of tokens before the input stage.
        hidden_states: (B, N, C) float, input of the first layer, in the order of the sequence.
        entering: The tokens that enter the first layer.
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
            embeddings: (B, N, C) float, including position embeddings.
            track: Whether to build a trace.
            position: (1, N, A) float, coordinates of the tokens, for layers that read them.
            index: (B, N) int64, index of each token within the clip, if these are not all of its tokens.
            pixel_values: (B, T, C, H, W) float, the clips.

        Returns:
            The recorder, and the embeddings (B, K, C) that enter the first layer.
        """
        tokens = plan.start(embeddings, track, position, index)
        hidden_states, entering = plan.enter(embeddings, tokens, pixel_values)
        return cls(plan, tokens, embeddings.shape[1], hidden_states, entering, track), hidden_states

    def step(self, layer: int) -> Step:
        """Returns the step of a layer, counted from 0."""
        return self._plan.step(layer, self._removals[layer], self.tokens)

    def append(self, tokens: Tokens, num_tokens: int) -> None:
        """Records the tokens after the next layer, and their number."""
        self.tokens = tokens
        if self._track:
            self._states.append(tokens)
            self._counts.append(num_tokens)

    def trace(self) -> TokenMergingTrace | None:
        """Returns the trace of all layers so far, or None if none is requested."""
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
        embeddings: (B, N, C) float, including position embeddings.
        plan: What each layer removes.
        track: Whether to build a trace.
        position: As for `TokenRecorder.start`.
        index: As for `TokenRecorder.start`.
        pixel_values: As for `TokenRecorder.start`.
        **kwargs: Passed to each layer.

    Returns:
        The final states (B, M, C), the final tokens and the trace (None unless tracked).
    """
    recorder, hidden_states = TokenRecorder.start(plan, embeddings, track, position, index, pixel_values)
    for layer_number, layer in enumerate(layers):
        hidden_states, tokens = layer(hidden_states, step=recorder.step(layer_number), **kwargs)
        recorder.append(tokens, hidden_states.shape[1])
    return hidden_states, recorder.tokens, recorder.trace()
