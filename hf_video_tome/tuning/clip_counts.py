"""Number of tokens that each clip loses in each layer, if the layer chooses its threshold from the clips it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..merging.modes import Context
from ..merging.reduction import Reduction
from ..merging.step import Step
from ..models.replace_steps import replaced_steps

Scores = Callable[[], Tensor]
"""Returns the similarities of all pairs of a batch that a layer could merge, (n,) float."""

Choose = Callable[[int, Scores, int], float]
"""`(layer, scores, number of clips) -> threshold`."""


class ClipCounts(NamedTuple):
    """Number of tokens of a matched set in each layer, clip by clip.

    Attributes:
        entering: (n,) float, number of tokens that enter the first layer.
        removed: (n, L) float, number of tokens that each layer removes.
    """

    entering: Tensor
    removed: Tensor

    @property
    def left(self) -> Tensor:
        """(n, L + 1) float, number of tokens before the first layer and after each layer."""
        return self.entering.unsqueeze(1) - torch.nn.functional.pad(self.removed, (1, 0)).cumsum(dim=1)


class _ChoosingStep(Step):
    """Step that chooses the threshold of its layer, and records how many tokens each clip has and loses."""

    choose: Choose
    recorded: dict[int, tuple[Tensor, Tensor]]

    def _reduce(self, context: Context) -> Reduction:
        clips, _, num_tokens, _ = context.keys.shape

        def scores() -> Tensor:
            if num_tokens - context.num_protected < 2:
                return context.keys.new_empty(0)
            matching = context._replace(r=num_tokens).cosine_matching()
            return matching.score.flatten() if matching.is_pair is None else matching.score[matching.is_pair]

        chosen = context._replace(threshold=self.choose(self.layer, scores, clips))
        reduction = super()._reduce(chosen)
        length = context.tokens.length
        before = torch.full((clips,), num_tokens) if length is None else length.cpu()
        assignment = reduction.assignment
        after = before if assignment is None or assignment.num_slots is None else assignment.num_slots[:, 0].cpu()
        self.recorded[self.layer] = before, before - after
        return reduction


def count_tokens(model: nn.Module, batch: Any, num_layers: int, choose: Choose) -> ClipCounts:
    """Runs an adaptive model on a batch, with thresholds that are chosen layer by layer.

    Only the tokens that a layer leaves go on to the next one.

    Args:
        model: A model that merges tokens with the mode dymu.
        batch: (B, T, C, H, W) float, or all inputs of the model by name.
        num_layers: Number of layers that can merge.
        choose: Chooses the threshold of a layer.

    Returns:
        The counts of the batch.

    Raises:
        RuntimeError: If no layer asked for a decision.
    """
    recorded: dict[int, tuple[Tensor, Tensor]] = {}

    def choosing(step: Step) -> Step:
        replacement = _ChoosingStep(*step)
        replacement.choose, replacement.recorded = choose, recorded
        return replacement

    with replaced_steps(model, choosing), torch.no_grad():
        if isinstance(batch, dict):
            model(**batch)
        else:
            model(batch)
    if not recorded:
        raise RuntimeError(f"none of the {num_layers} layers that can merge tokens said what it would merge")
    entering = recorded[min(recorded)][0]
    none = torch.zeros_like(entering)
    removed = torch.stack([recorded.get(layer, (none, none))[1] for layer in range(num_layers)], dim=1)
    return ClipCounts(entering.double(), removed.double())
