"""VideoMAE (https://arxiv.org/abs/2203.12602): all tokens of a clip are one set, mean-pooled head."""

from transformers.models.videomae import modeling_videomae as stock

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_videomae import VideoMAEConfig
from .mac_count_videomae import mac_count_videomae
from .modeling_videomae import MODULE_CLASSES, VideoMAEForVideoClassification, VideoMAEModel

register_architecture(
    Encoder(
        model_type="videomae",
        config_class=VideoMAEConfig,
        stock_config_class=stock.VideoMAEConfig,
        model_class=VideoMAEModel,
        stock_model_class=stock.VideoMAEModel,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_videomae,
        weight_conversions=("videomae",),
    ),
    stock_head_class=stock.VideoMAEForVideoClassification,
    head_class=VideoMAEForVideoClassification,
    paper_settings=paper_settings(r=150, scope="clip", proportional_attention=False),
)

__all__ = ["VideoMAEConfig", "VideoMAEForVideoClassification", "VideoMAEModel"]
