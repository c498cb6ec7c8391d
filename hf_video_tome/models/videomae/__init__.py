"""VideoMAE (https://arxiv.org/abs/2203.12602): one matched set per clip, mean-pooled head."""

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_videomae import VideoMAEConfig
from .mac_count_videomae import mac_count_videomae
from .modeling_videomae import VideoMAEForVideoClassification, VideoMAEModel

register_architecture(
    Encoder(
        VideoMAEModel,
        mac_count_videomae,
        weight_conversions=("videomae",),
    ),
    VideoMAEForVideoClassification,
    paper_settings=paper_settings(r=150, scope="clip", proportional_attention=False),
)

__all__ = ["VideoMAEConfig", "VideoMAEForVideoClassification", "VideoMAEModel"]
