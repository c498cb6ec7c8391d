"""`temporal_difference`: keeps tubelets that changed since the previous slot, by all of their frames."""

from __future__ import annotations

from ..assignment import Assignment
from ..tubelet_changes import same_frame_change
from .registry import InputContext, keep_changed, register_input_stage


@register_input_stage("temporal_difference", takes_threshold=True)
def temporal_difference(context: InputContext) -> Assignment:
    """Keeps tubelets whose frames differ most from the same frames of the previous tubelet.

    From "TimeChat-Online: 80% Visual Tokens are Naturally Redundant in Streaming Videos" (2025),
    https://arxiv.org/abs/2504.17343, in its pixel form as described there. Adapted: tubelets instead of frames, the
    mean of absolute differences, before the encoder instead of after it, run lengths as sizes, and a fixed number of
    tubelets unless a threshold is set.
    """
    return keep_changed(context, same_frame_change(context.clips, context.tubelet_shape))
