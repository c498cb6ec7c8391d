"""Merging step of one layer: its inputs and its decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from .assignment import Assignment, Content, refuse_to_compile
from .attention_statistics import AttentionStatistics
from .each_clip import assign_each_clip
from .layout import TokenLayout
from .matching import aggregate_heads
from .modes import MODES, Context, Mode, SetShape
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
        average: "mean", "norm_preserving" or "owner", content of the slots of modes that average.
        thresholds: Thresholds of the mode, one per layer, or None.
        segments: Number of runs of time within which tokens merge, or None.
        options: Options of the mode; those not given have their defaults.
    """

    mode: str = TokenMergingSettings.mode
    threshold: float | None = TokenMergingSettings.threshold
    scope: str = "clip"
    head_aggregation: str = TokenMergingSettings.head_aggregation
    proportional_attention: bool = True
    pooling: str = TokenMergingSettings.pooling
    position: str = TokenMergingSettings.position
    average: str = TokenMergingSettings.average
    thresholds: tuple[float, ...] | None = None
    segments: int | None = None
    options: Mapping[str, Any] = {}

    @property
    def num_segments(self) -> int | None:
        """Number of runs of time within which tokens merge; the default of the mode, for clips, if none is set."""
        if self.segments is None and self.scope == "clip":
            return MODES[self.mode].default_segments
        return self.segments

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that the mode reads: see `READABLE`."""
        mode = MODES[self.mode]
        return mode.inputs(mode.complete_options(self.options))

    @property
    def decides_late(self) -> bool:
        """Whether tokens merge after the residual connection of the attention, not before its output projection."""
        late = {"hidden_states", "mlp"}.intersection(self.inputs)
        return bool(late) or (self.average == "norm_preserving" and MODES[self.mode].averages)

    def shape_of(self, num_tokens: int, num_protected: int, layout: TokenLayout) -> SetShape:
        """Returns the shape of a matched set, for the number of tokens that a mode removes.

        Args:
            num_tokens: Number of tokens of a set, including protected ones.
            num_protected: Number of tokens that never merge.
            layout: Token layout of a clip before any merging.
        """
        options = MODES[self.mode].complete_options(self.options)
        return SetShape(num_tokens, num_protected, layout, self.scope, options, self.num_segments)


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
        requested: Number of tokens to remove from each matched set before the cap, for clips that have a limit of
            their own in a padded batch; r when None.
    """

    r: int
    tokens: Tokens
    layout: TokenLayout
    settings: MergeSettings
    layer: int = 0
    num_layers: int = 1
    num_kept: int | None = None
    generator: torch.Generator | None = None
    requested: int | None = None

    @property
    def mode(self) -> Mode:
        """The mode of the settings."""
        return MODES[self.settings.mode]

    @property
    def removes_nothing(self) -> bool:
        """Whether no token of any clip is removed."""
        if self.requested is not None and self.tokens.length is not None:
            return self.requested == 0
        return self.r == 0

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

    def decide(
        self, keys: Tensor, num_frames: int | None = None, attention: AttentionStatistics | None = None
    ) -> Reduction:
        """Decides which tokens merge, based on the attention keys of the layer.

        Args:
            keys: (B, H, N, D) float; with `num_frames`, (B * num_frames, H, P, D) without prefix tokens.
            num_frames: Number of frames of a clip, if attention ran separately on each frame.
            attention: Statistics of the attention, if all tokens of a clip attend to each other.

        Returns:
            The reduction. If the decision needs the states after the residual connection, it removes nothing yet:
            `complete` decides.
        """
        if self.removes_nothing or self.num_kept is not None:
            return Reduction(self.tokens, self.layout, self.settings.scope, num_kept=self.num_kept)
        metric = aggregate_heads(keys, self.settings.head_aggregation)
        if num_frames is not None:
            metric = metric.unflatten(0, (-1, num_frames))
            metric = metric.transpose(1, 2) if self.merges_frames else metric
        context = self.context(metric, attention)
        if self.settings.decides_late:
            return Reduction(self.tokens, self.layout, self.settings.scope, undecided=context)
        return self._reduce(context)

    def complete(
        self, hidden_states: Tensor, reduction: Reduction, mlp: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, Tokens]:
        """Merges tokens if the decision needs the states after the residual connection; else, they have merged before.

        Args:
            hidden_states: (B, M, C) states after the residual connection of the attention.
            reduction: Result of `decide`.
            mlp: The normalisation and MLP of the layer without its residual connection, (B, N, C) -> (B, N, C).

        Returns:
            The states (B, M', C) and the tokens for the rest of the layer.
        """
        if reduction.undecided is not None:
            reduction = self._reduce(self.with_states(reduction.undecided, hidden_states, mlp))
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
        return self._reduce(self.with_states(self.context(metric), hidden_states))

    def _reduce(self, context: Context) -> Reduction:
        if self.removes_nothing or context.keys.shape[2] - context.num_protected < 2:
            return Reduction(self.tokens, self.layout, self.settings.scope)
        refusal = (
            "token_merging_mode must be one that removes a fixed number of tokens to compile or export a model, "
            f"got {self.settings.mode!r}, which removes a number that depends on the clip"
        )
        if self.mode.adaptive:  # first of all: the mode may run on the host
            refuse_to_compile(refusal)
        found = {
            "attention": context.attention,
            "mlp": context.mlp,
            "hidden_states": context.hidden_states,
            "index": context.tokens.index,
        }
        for name in self.settings.inputs:
            if name in found and found[name] is None:
                raise ValueError(f"token_merging_mode={self.settings.mode!r} reads {name} of the layer, got none")
        if context.tokens.length is not None and not self.mode.handles_padding:
            requested = self.r if self.requested is None else self.requested
            assignment = assign_each_clip(self.mode, context, self.settings.scope, requested)
        else:
            assignment = self.mode.assign(context)
            self._check(assignment, context)
        if self.mode.adaptive:
            assignment = assignment.without_empty_slots(refusal)
        if self.mode.averages and assignment.content == "mean":
            assignment = assignment._replace(content=cast(Content, self.settings.average))
        dtype = torch.promote_types(context.keys.dtype, torch.float32)
        position = self.settings.position
        return reduce_tokens(assignment, self.tokens, self.layout, self.settings.scope, dtype, position)

    def _check(self, assignment: Assignment, context: Context) -> None:
        """Checks the number of slots that the function of a mode returned."""
        mode, is_padded = self.settings.mode, context.tokens.length is not None
        if is_padded and assignment.num_slots is None:
            raise ValueError(
                f"token_merging_mode={mode!r} must set num_slots for each clip of a padded batch: it is registered "
                "with handles_padding"
            )
        removed = context.keys.shape[2] - assignment.owner.shape[-1]
        if not self.mode.adaptive and (removed != context.r or (assignment.num_slots is not None and not is_padded)):
            raise ValueError(
                f"token_merging_mode={mode!r} must remove exactly {context.r} tokens of each set, unless it is "
                f"registered as adaptive, got {removed}"
            )

    def with_states(
        self, context: Context, hidden_states: Tensor | None, mlp: Callable[[Tensor], Tensor] | None = None
    ) -> Context:
        """Adds hidden states and MLP to the inputs of the mode.

        Args:
            context: Result of `context`.
            hidden_states: (B, N, C) states after the residual connection; ignored by modes that do not read them.
            mlp: As for `complete`.
        """
        if hidden_states is None or "hidden_states" not in self.settings.inputs:
            return context._replace(mlp=mlp)
        states = self.layout.split(hidden_states.detach(), self.settings.scope)[1]
        return context._replace(hidden_states=states, mlp=mlp)

    def _threshold(self) -> float | None:
        """Returns the threshold of the layer, or the one of all layers."""
        if not self.mode.needs_thresholds:
            return self.settings.threshold
        thresholds = self.settings.thresholds
        if thresholds is None or len(thresholds) <= self.layer:
            raise ValueError(
                f"token_merging_mode={self.mode.name!r} needs one threshold per layer, got {thresholds} in layer "
                f"{self.layer}"
            )
        return thresholds[self.layer]

    def context(self, metric: Tensor, attention: AttentionStatistics | None = None) -> Context:
        """Returns the inputs of the mode, apart from hidden states and MLP.

        Args:
            metric: As for `reduce`.
            attention: As for `decide`.
        """
        scope, settings = self.settings.scope, self.settings

        def sets(x: Tensor | None) -> Tensor | None:
            return None if x is None else self.layout.split(x, scope)[1]

        if metric.ndim == 3:
            _, metric = self.layout.split(metric, scope)
        tokens, num_protected, r = self.tokens, self.layout.set_size(scope)[1], self.r
        if self.mode.adaptive:
            [r] = self.mode.removals([r], settings.shape_of(metric.shape[2], num_protected, self.layout))
        # Detaches instead of using `no_grad`: torch.export cannot save programs that switch gradients off.
        return Context(
            keys=metric.detach(),
            tokens=Tokens(sets(tokens.size), index=sets(tokens.index), group=sets(tokens.group), length=tokens.length),
            layout=self.layout,
            r=r,
            layer=self.layer,
            num_layers=self.num_layers,
            num_protected=num_protected,
            shared=scope in SHARED_SCOPES,
            threshold=self._threshold(),
            generator=self.generator,
            options=self.mode.complete_options(settings.options),
            segments=settings.num_segments,
            attention=attention,
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
    [r] = MODES[settings.mode].removals([r], settings.shape_of(num_tokens, num_protected, layout))
    step = Step(r, tokens, layout, settings, generator=generator)
    reduction = step.reduce(metric, hidden_states)
    return reduction.apply(hidden_states), reduction.tokens
