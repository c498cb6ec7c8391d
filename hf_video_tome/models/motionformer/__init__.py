"""Motionformer (https://arxiv.org/abs/2106.05392): trajectory attention, merging inside frames, CLS head.

transformers has no Motionformer: `plain` has one, in the place of the stock model.
"""

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from . import plain
from .configuration_motionformer import MotionformerConfig
from .mac_count_motionformer import mac_count_motionformer
from .modeling_motionformer import MODULE_CLASSES, MotionformerForVideoClassification, MotionformerModel

register_architecture(
    Encoder(
        model_type="motionformer",
        config_class=MotionformerConfig,
        stock_config_class=plain.MotionformerConfig,
        model_class=MotionformerModel,
        stock_model_class=plain.MotionformerModel,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_motionformer,
    ),
    stock_head_class=plain.MotionformerForVideoClassification,
    head_class=MotionformerForVideoClassification,
    paper_settings=paper_settings(r=18, scope="frame", proportional_attention=True),
)

__all__ = ["MotionformerConfig", "MotionformerForVideoClassification", "MotionformerModel"]
