"""Motionformer as transformers would have it: nothing here knows of token merging, or of this package."""

from .configuration_motionformer import MotionformerConfig
from .modeling_motionformer import MotionformerForVideoClassification, MotionformerModel, MotionformerPreTrainedModel

__all__ = [
    "MotionformerConfig",
    "MotionformerForVideoClassification",
    "MotionformerModel",
    "MotionformerPreTrainedModel",
]
