"""ViViT with joint space-time attention (https://arxiv.org/abs/2103.15691): one matched set per clip, CLS head."""

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_vivit import VivitConfig
from .mac_count_vivit import mac_count_vivit
from .modeling_vivit import VivitForVideoClassification, VivitModel

register_architecture(
    Encoder(
        VivitModel,
        mac_count_vivit,
        weight_conversions=("VivitModel",),
    ),
    VivitForVideoClassification,
    paper_settings=paper_settings(r=300, scope="clip", proportional_attention=True),
)

__all__ = ["VivitConfig", "VivitForVideoClassification", "VivitModel"]
