"""VideoPrism (https://arxiv.org/abs/2402.13217): spatial, then temporal encoder, merging in the spatial one."""

from transformers.models.videoprism import modeling_videoprism as stock

from ..architecture import register_architecture
from ..encoder import Encoder
from .configuration_videoprism import VideoPrismVisionConfig
from .mac_count_videoprism import mac_count_videoprism
from .modeling_videoprism import MODULE_CLASSES, VideoPrismForVideoClassification, VideoPrismVisionModel

register_architecture(
    Encoder(
        model_type="videoprism_vision_model",
        config_class=VideoPrismVisionConfig,
        stock_config_class=stock.VideoPrismVisionConfig,
        model_class=VideoPrismVisionModel,
        stock_model_class=stock.VideoPrismVisionModel,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_videoprism,
    ),
    stock_head_class=stock.VideoPrismForVideoClassification,
    head_class=VideoPrismForVideoClassification,
    video_processor_only=True,
)

__all__ = ["VideoPrismForVideoClassification", "VideoPrismVisionConfig", "VideoPrismVisionModel"]
