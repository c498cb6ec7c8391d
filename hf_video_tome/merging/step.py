"""Merging step of one layer: its inputs and its decision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import TokenLayout
from .matching import aggregate_heads
from .modes import MODES, Context, Mode
from .reduction import Reduction, reduce_tokens
from .scopes import SHARED_SCOPES
from .settings import TokenMergingSettings
from .tokens import Tokens


class MergeSettings(NamedTuple):
    """Settings of a merge, apart from the number of tokens.

    Attributes:
        mode: Name of an entry of `MODES`.
        threshold: Threshold of the mode, or None.
        scope: "clip", "frame", "tube" or "time".
        head_aggregation: "mean" or "concat" of the heads' keys.
        proportional_attention: Whether log(size) is added to the attention logits.
        pooling: "weighted" or "mean": whether a mean over the final tokens weighs them by size.
        position: "destination" or "centroid", where merged tokens are located; unused if tokens have no positions.
    """

    mode: str = TokenMergingSettings.mode
    threshold: float | None = TokenMergingSettings.threshold
    scope: str = "clip"
    head_aggregation: str = TokenMergingSettings.head_aggregation
    proportional_attention: bool = True
    pooling: str = TokenMergingSettings.pooling
    position: str = TokenMergingSettings.position


class Step(NamedTuple):
    """Merging step of one layer.

    A layer passes it to its attention, which weighs keys by `attention_size`, calls `decide` and applies the reduction
    before its output projection. After the residual, the layer calls `complete`.

    Attributes:
        r: Number of tokens to remove from each matched set, capped at the limit of the mode.
        tokens: The tokens that enter the layer.
        layout: Token layout of a clip before any merging.
        settings: How to merge.
        layer: Number of the layer, from 0.
        num_layers: Number of layers that can merge.
        num_kept: Number of tokens at the start if only these are read from the output of the layer; it then returns
            no others and merges nothing. None for all.
        generator: Random number generator of the random modes; the global one when None.
    """

    r: int
    tokens: Tokens
    layout: TokenLayout
    settings: MergeSettings
    layer: int = 0
    num_layers: int = 1
    num_kept: int | None = None
    generator: torch.Generator | None = None

    @property
    def mode(self) -> Mode:
        """The mode of the settings."""
        return MODES[self.settings.mode]

    @property
    def attention_size(self) -> Tensor | None:
        """(B, N) sizes by which keys are weighed, 0 for padding; None if all keys weigh the same."""
        size = self.tokens.size
        if self.settings.proportional_attention or size is None:
            return size
        return None if self.tokens.length is None else (size > 0).to(size.dtype)

    @property
    def set_sizes(self) -> Tensor | None:
        """`attention_size` split into matched sets, (B, S, n)."""
        return None if self.attention_size is None else self.layout.split(self.attention_size, self.settings.scope)[1]

    @property
    def merges_frames(self) -> bool:
        """Whether whole frames merge (scope "time") rather than patches within frames."""
        return self.settings.scope == "time"

    def grid(self, num_tokens: int) -> tuple[int, int]:
        """Returns the number of frames, and of patches per frame, of a sequence: see `TokenLayout.grid`."""
        return self.layout.grid(num_tokens, self.settings.scope)

    def queries(self, hidden_states: Tensor) -> Tensor:
        """Returns the states (B, n, C) that need queries: all, or those of the first `num_kept` tokens."""
        return hidden_states if self.num_kept is None else hidden_states[:, : self.num_kept]

    def decide(self, keys: Tensor, num_frames: int | None = None) -> Reduction:
        """Decides which tokens merge, based on the attention keys of the layer.

        Args:
            keys: (B, H, N, D) float; with `num_frames`, (B * num_frames, H, P, D) without prefix tokens.
            num_frames: Number of frames of a clip, if attention ran separately on each frame.

        Returns:
            The reduction. For modes that read hidden states, it removes nothing yet: `complete` decides.
        """
        if self.r == 0 or self.num_kept is not None:
            return Reduction(self.tokens, self.layout, self.settings.scope, num_kept=self.num_kept)
        metric = aggregate_heads(keys, self.settings.head_aggregation)
        if num_frames is not None:
            metric = metric.unflatten(0, (-1, num_frames))
            metric = metric.transpose(1, 2) if self.merges_frames else metric
        if "hidden_states" in self.mode.reads:
            return Reduction(self.tokens, self.layout, self.settings.scope, undecided=metric)
        return self.reduce(metric)

    def complete(self, hidden_states: Tensor, reduction: Reduction) -> tuple[Tensor, Tokens]:
        """Merges tokens for modes that read hidden states; all other modes have already merged them.

        Args:
            hidden_states: (B, M, C) states after the residual connection of the attention.
            reduction: Result of `decide`.

        Returns:
            The states (B, M', C) and the tokens for the rest of the layer.
        """
        if reduction.undecided is not None:
            reduction = self.reduce(reduction.undecided, hidden_states)
            hidden_states = reduction.apply(hidden_states)
        return hidden_states, reduction.tokens

    def reduce(self, metric: Tensor, hidden_states: Tensor | None = None) -> Reduction:
        """Decides which tokens merge, based on a metric.

        Args:
            metric: Vector per token in float32 or better: (B, N, D) in the order of the sequence, or (B, S, n, D) if
                already split into matched sets.
            hidden_states: (B, N, C) states, for modes that read them.

        Returns:
            The reduction.

        Raises:
            ValueError: If the model is compiled or exported and the mode is adaptive.
        """
        context = self._context(metric, hidden_states)
        if self.r == 0 or context.keys.shape[2] - context.num_protected < 2:
            return Reduction(self.tokens, self.layout, self.settings.scope)
        assignment = self.mode.assign(context)
        if context.tokens.length is not None and assignment.num_slots is None:
            raise ValueError(
                f"token_merging_mode={self.settings.mode!r} must set num_slots for each clip of a padded batch: its "
                "function does not read tokens.length"
            )
        if not self.mode.adaptive:
            removed = context.keys.shape[2] - assignment.owner.shape[-1]
            if removed != context.r or (assignment.num_slots is not None and context.tokens.length is None):
                raise ValueError(
                    f"token_merging_mode={self.settings.mode!r} must remove exactly {context.r} tokens of each set, "
                    f"unless it is registered as adaptive, got {removed}"
                )
        else:
            assignment = assignment.without_empty_slots(
                "token_merging_mode must be one that removes a fixed number of tokens to compile or export a model, "
                f"got {self.settings.mode!r}, which removes a number that depends on the clip"
            )
        dtype = torch.promote_types(metric.dtype, torch.float32)
        position = self.settings.position
        return reduce_tokens(assignment, self.tokens, self.layout, self.settings.scope, dtype, position)

    def _context(self, metric: Tensor, hidden_states: Tensor | None) -> Context:
        scope = self.settings.scope

        def sets(x: Tensor | None) -> Tensor | None:
            return None if x is None else self.layout.split(x, scope)[1]

        if metric.ndim == 3:
            _, metric = self.layout.split(metric, scope)
        tokens, num_protected, r = self.tokens, self.layout.set_size(scope)[1], self.r
        if self.mode.adaptive:
            [r] = self.mode.removals([r], metric.shape[2], num_protected, self.layout)
        # Detaches instead of using `no_grad`: torch.export cannot save programs that switch gradients off.
        return Context(
            keys=metric.detach(),
            tokens=Tokens(sets(tokens.size), index=sets(tokens.index), group=sets(tokens.group), length=tokens.length),
            layout=self.layout,
            r=r,
            hidden_states=sets(None if hidden_states is None else hidden_states.detach()),
            layer=self.layer,
            num_layers=self.num_layers,
            num_protected=num_protected,
            shared=scope in SHARED_SCOPES,
            threshold=self.settings.threshold,
            generator=self.generator,
        )


def merge_tokens(
    hidden_states: Tensor,
    metric: Tensor,
    r: int,
    tokens: Tokens,
    layout: TokenLayout,
    settings: MergeSettings,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tokens]:
    """Removes r tokens from each matched set of a sequence.

    Args:
        hidden_states: (B, N, C) float.
        metric: As for `Step.reduce`.
        r: Number of tokens to remove from each set, capped at the limit of the mode. 0 changes nothing.
        tokens: The tokens before the merge.
        layout: Token layout of a clip.
        settings: How to merge.
        generator: Random number generator of the random modes; the global one when None.

    Returns:
        The states (B, M, C), differentiable in `hidden_states`, and the tokens after the merge.

    Examples:
        >>> x = torch.randn(2, 17, 8)
        >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=4, num_patches=4)
        >>> merged, tokens = merge_tokens(x, x, 5, Tokens(), layout, MergeSettings())
        >>> merged.shape, tokens.size.sum(dim=1).tolist()
        (torch.Size([2, 12, 8]), [17.0, 17.0])
    """
    num_tokens = layout.split(metric, settings.scope)[1].shape[2] if metric.ndim == 3 else metric.shape[2]
    num_protected = layout.set_size(settings.scope)[1]
    [r] = MODES[settings.mode].removals([r], num_tokens, num_protected, layout)
    step = Step(r, tokens, layout, settings, generator=generator)
    reduction = step.reduce(metric, hidden_states if "hidden_states" in step.mode.reads else None)
    return reduction.apply(hidden_states), reduction.tokens
