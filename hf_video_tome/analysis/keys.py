"""Records the keys by which each layer compares tokens, for any architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..merging.attention_statistics import AttentionStatistics
from ..merging.matching import aggregate_heads
from ..merging.reduction import Reduction
from ..merging.step import Step
from ..models.replace_steps import replaced_steps


class _RecordingStep(Step):
    """Step that records the keys of its layer and merges nothing."""

    recorded: list[Tensor]

    def decide(
        self, keys: Tensor, num_frames: int | None = None, attention: AttentionStatistics | None = None
    ) -> Reduction:
        metric = aggregate_heads(keys, self.settings.head_aggregation)
        if num_frames is not None:
            # Keys per frame without prefix tokens: restores the order of the sequence, with zeros for the prefix.
            frames = metric.unflatten(0, (-1, num_frames))
            prefix = frames.new_zeros(len(frames), self.layout.num_prefix_tokens, frames.shape[-1])
            metric = self.layout.join(prefix, frames, "frame")
        self.recorded.append(metric)
        return Reduction(self.tokens, self.layout, self.settings.scope)


def unmerged_keys(model: Any, pixel_values: Tensor) -> list[Tensor]:
    """Runs a model without merging and records the keys by which each layer would compare tokens.

    Works for every architecture: the `Step` that a layer receives is replaced by one that only records.

    Args:
        model: A classifier that can merge tokens; `token_merging_head_aggregation` applies to its keys.
        pixel_values: (B, T, C, H, W) float, input of the model.

    Returns:
        (B, N, D) float for each layer that can merge, one vector per token in the order of the sequence, without
        gradient. Prefix tokens that are never compared have zeros.

    Raises:
        RuntimeError: If a layer did not pass on its keys.

    Examples:
        >>> from hf_video_tome import TimesformerConfig, TimesformerForVideoClassification
        >>> config = TimesformerConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                            num_attention_heads=2, intermediate_size=32)
        >>> model = TimesformerForVideoClassification(config).eval()
        >>> [tuple(keys.shape) for keys in unmerged_keys(model, torch.zeros(1, 4, 3, 32, 32))]
        [(1, 65, 8), (1, 65, 8)]
    """
    recorded: list[Tensor] = []

    def recording(step: Step) -> Step:
        # r = 1, because layers may skip the call if there is nothing to remove.
        replacement = _RecordingStep(1, *step[1:])
        replacement.recorded = recorded
        return replacement

    with replaced_steps(model, recording), torch.no_grad():
        model(pixel_values, output_token_merging=True)
    expected = model.config.num_merging_layers
    if len(recorded) != expected:
        raise RuntimeError(f"{expected} layers can merge tokens, but {len(recorded)} of them said what they compare")
    return recorded
