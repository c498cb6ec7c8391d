"""VideoPrism (https://arxiv.org/abs/2402.13217): spatial and temporal encoder, merging in the spatial encoder."""

from ..architecture import register_architecture
from ..encoder import Encoder
from .configuration_videoprism import VideoPrismVisionConfig
from .mac_count_videoprism import mac_count_videoprism
from .modeling_videoprism import VideoPrismForVideoClassification, VideoPrismVisionModel

register_architecture(
    Encoder(
        VideoPrismVisionModel,
        mac_count_videoprism,
    ),
    VideoPrismForVideoClassification,
    video_processor_only=True,
)

__all__ = ["VideoPrismForVideoClassification", "VideoPrismVisionConfig", "VideoPrismVisionModel"]
