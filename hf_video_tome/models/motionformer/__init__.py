"""Motionformer (https://arxiv.org/abs/2106.05392): trajectory attention, merging within frames, CLS head.

transformers has no Motionformer; `plain` takes the role of the stock model.
"""

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_motionformer import MotionformerConfig
from .mac_count_motionformer import mac_count_motionformer
from .modeling_motionformer import MotionformerForVideoClassification, MotionformerModel

register_architecture(
    Encoder(
        MotionformerModel,
        mac_count_motionformer,
    ),
    MotionformerForVideoClassification,
    paper_settings=paper_settings(r=18, scope="frame", proportional_attention=True),
)

__all__ = ["MotionformerConfig", "MotionformerForVideoClassification", "MotionformerModel"]
