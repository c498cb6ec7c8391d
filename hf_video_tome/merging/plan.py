"""Plan of one forward call: what each layer does, decided before the first layer runs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .input_stages import INPUT_STAGES, InputContext
from .layout import TokenLayout
from .modes import MODES, Mode
from .reduction import reduce_tokens
from .step import MergeSettings, Step
from .tokens import Tokens, initial_tokens
from .trace import unmerge


class Plan(NamedTuple):
    """Plan of one forward call: what each layer does, decided before the first layer runs.

    Attributes:
        requested: Number of tokens that each layer is asked to remove from each matched set.
        layout: Token layout of a clip.
        settings: How to merge.
        input_stage: Name of the input stage, or None.
        input_keep: Number of patch tokens per clip that enter the first layer (with a threshold, the most); None for
            all.
        input_threshold: Change above which the input stage keeps a tubelet, or None for a fixed number.
        tubelet_shape: Frames, height and width of a tubelet.
        reads: What is read from the output of the last layer: all tokens, only the prefix, or the full grid, in which
            every original token has the state of the token that it was merged into.
    """

    requested: list[int]
    layout: TokenLayout
    settings: MergeSettings
    input_stage: str | None = None
    input_keep: int | None = None
    reads: Literal["tokens", "prefix", "grid"] = "tokens"
    input_threshold: float | None = None
    tubelet_shape: tuple[int, int, int] = (1, 1, 1)

    @property
    def mode(self) -> Mode:
        """The mode of the settings."""
        return MODES[self.settings.mode]

    @property
    def merges(self) -> bool:
        """Whether any token is removed, by a layer or by the input stage."""
        return self.input_stage is not None or any(self.requested)

    def removals(self, num_tokens: int | None = None) -> list[int]:
        """Returns the number of tokens that each layer removes from each matched set: the most, for adaptive modes.

        Args:
            num_tokens: Number of tokens that enter the first layer; that of the plan when None.
        """
        scope = self.settings.scope
        set_tokens, num_protected = self.layout.set_size(scope)
        if scope == "clip":
            set_tokens = self.entering_tokens if num_tokens is None else num_tokens
        shape = self.settings.shape_of(set_tokens, num_protected, self.layout)
        if self.mode.adaptive:  # earlier layers may have kept all tokens
            return [self.mode.removals([r], shape)[0] for r in self.requested]
        return self.mode.removals(self.requested, shape)

    @property
    def entering_tokens(self) -> int:
        """Number of tokens that enter the first layer."""
        if self.input_keep is None:
            return self.layout.num_tokens
        return self.layout.num_prefix_tokens + self.input_keep

    def token_counts(self) -> list[int]:
        """Returns the number of tokens before the first layer and after each layer, without running the model.

        Returns:
            L + 1 ints; entry i is the length of `hidden_states[i]`. Adaptive modes may leave fewer tokens.

        Examples:
            >>> Plan([150] * 12, TokenLayout(0, 8, 196), MergeSettings()).token_counts()[-4:]
            [218, 109, 55, 28]
        """
        scope = self.settings.scope
        left = self.entering_tokens if scope == "clip" else self.layout.set_size(scope)[0]
        counts = [self.layout.sequence_length(left, scope)]
        for removed in self.removals():
            left -= 0 if self.mode.adaptive else removed
            counts.append(self.layout.sequence_length(left, scope))
        return counts

    def start(
        self,
        hidden_states: Tensor,
        track: bool,
        position: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Tokens:
        """Returns the token state before the input stage and the first layer.

        Args:
            hidden_states: (B, N, C) embeddings.
            track: Whether a trace is requested.
            position: (1, N, A) or (B, N, A) float positions, for models that need them in every layer.
            index: (B, N) int64, index of each token within the clip, if these are not all of its tokens.

        Raises:
            ValueError: If the scope needs all tokens of the clip, but some are missing.
        """
        batch_size, num_tokens = hidden_states.shape[:2]
        device, layout = hidden_states.device, self.layout
        if num_tokens != layout.num_tokens and self.settings.scope != "clip":
            raise ValueError(
                f"token_merging_scope={self.settings.scope!r} needs all {layout.num_tokens} tokens of the clip, "
                f"got {num_tokens}; use 'clip' for masked inputs and other sizes"
            )
        inputs = self.settings.inputs
        if index is None:
            index = layout.token_index(device).expand(batch_size, -1)
        segments, group = self.settings.num_segments, None
        if segments is not None and "segments" in inputs:
            group = index // layout.num_patches * segments // layout.num_frames
        track = track or self.reads == "grid"
        tokens = initial_tokens(batch_size, num_tokens, device, track, position)
        return tokens._replace(index=index if "index" in inputs else None, group=group)

    def enter(
        self, hidden_states: Tensor, tokens: Tokens, pixel_values: Tensor | None = None
    ) -> tuple[Tensor, Tokens]:
        """Runs the input stage, if there is one.

        Args:
            hidden_states: (B, N, C) embeddings, including position embeddings.
            tokens: Result of `start`.
            pixel_values: (B, T, C, H, W) float, the clips.

        Returns:
            The embeddings (B, K, C) and the tokens that enter the first layer.

        Raises:
            ValueError: If the embeddings do not cover a whole clip.
        """
        if self.input_stage is None:
            return hidden_states, tokens
        layout = self.layout
        if hidden_states.shape[1] != layout.num_tokens:
            raise ValueError(
                f"token_merging_input={self.input_stage!r} needs all {layout.num_tokens} tokens of the clip, "
                f"got {hidden_states.shape[1]}: it does not support masked inputs"
            )
        assert self.input_keep is not None  # set with the stage
        context = InputContext(
            embeddings=hidden_states[:, layout.num_prefix_tokens :].detach(),
            pixel_values=None if pixel_values is None else pixel_values.detach(),
            layout=layout,
            keep=self.input_keep,
            threshold=self.input_threshold,
            tubelet_shape=self.tubelet_shape,
        )
        assignment = INPUT_STAGES[self.input_stage].assign(context)
        if assignment.num_slots is None and assignment.owner.shape[-1] != self.input_keep:
            raise ValueError(
                f"token_merging_input={self.input_stage!r} must keep exactly {self.input_keep} tokens, or set "
                f"num_slots, got {assignment.owner.shape[-1]}"
            )
        assignment = assignment.without_empty_slots(
            f"token_merging_input={self.input_stage!r} keeps a number of tokens that depends on the clip: models are "
            "compiled and exported with a fixed number"
        )
        reduction = reduce_tokens(
            assignment.behind(layout.num_prefix_tokens),
            tokens,
            layout,
            "clip",
            torch.promote_types(hidden_states.dtype, torch.float32),
        )
        return reduction.apply(hidden_states), reduction.tokens

    def step(self, layer: int, removed: int, tokens: Tokens) -> Step:
        """Returns the step of one layer.

        Args:
            layer: Number of the layer, from 0.
            removed: Number of tokens that it removes from each matched set: see `removals`.
            tokens: The tokens that enter the layer.
        """
        num_layers = len(self.requested)
        kept = self.layout.num_prefix_tokens if self.reads == "prefix" and layer == num_layers - 1 else None
        return Step(
            removed,
            tokens,
            self.layout,
            self.settings,
            layer,
            num_layers,
            num_kept=kept,
            requested=self.requested[layer],
        )

    def leave(self, hidden_states: Tensor, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """Returns the output of an encoder: the remaining tokens and their sizes, or the full grid.

        Args:
            hidden_states: (B, M, C) final states.
            tokens: The tokens after the last layer.

        Returns:
            (B, M, C) and the sizes (B, M), None if all are one; or (B, N0, C), zero for dropped tokens, and None.
        """
        if self.reads == "grid":
            assert tokens.source is not None  # tracked for this
            return unmerge(hidden_states, tokens.source), None
        return hidden_states, None if self.reads == "prefix" else tokens.size

    def pooling_weights(self, size: Tensor | None) -> Tensor | None:
        """Returns the weights for a mean over the final tokens.

        Args:
            size: (B, N) float, number of original tokens that each token stands for, 0 for padding; None if all are 1.

        Returns:
            (B, N) float, or None for a plain mean.
        """
        if size is None or self.settings.pooling == "weighted":
            return size
        return (size > 0).to(size.dtype) if self.may_pad else None

    @property
    def may_pad(self) -> bool:
        """Whether the clips of a batch may have different numbers of tokens."""
        return self.mode.adaptive or self.input_stage is not None
