"""ViViT, the joint space-time variant (https://arxiv.org/abs/2103.15691): all tokens are one set, CLS head."""

from transformers.models.vivit import modeling_vivit as stock

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_vivit import VivitConfig
from .mac_count_vivit import mac_count_vivit
from .modeling_vivit import MODULE_CLASSES, VivitForVideoClassification, VivitModel

register_architecture(
    Encoder(
        model_type="vivit",
        config_class=VivitConfig,
        stock_config_class=stock.VivitConfig,
        model_class=VivitModel,
        stock_model_class=stock.VivitModel,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_vivit,
        weight_conversions=("VivitModel",),
    ),
    stock_head_class=stock.VivitForVideoClassification,
    head_class=VivitForVideoClassification,
    paper_settings=paper_settings(r=300, scope="clip", proportional_attention=True),
)

__all__ = ["VivitConfig", "VivitForVideoClassification", "VivitModel"]
