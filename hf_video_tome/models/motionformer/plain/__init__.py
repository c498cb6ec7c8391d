"""Motionformer in the style of transformers, independent of token merging and of this package."""

from .configuration_motionformer import MotionformerConfig
from .modeling_motionformer import MotionformerForVideoClassification, MotionformerModel, MotionformerPreTrainedModel

__all__ = [
    "MotionformerConfig",
    "MotionformerForVideoClassification",
    "MotionformerModel",
    "MotionformerPreTrainedModel",
]
