"""ViViT, the joint space-time variant (https://arxiv.org/abs/2103.15691): all tokens are one set, CLS head."""

from fractions import Fraction

from transformers.models.vivit import modeling_vivit as stock

from ..architecture import KineticsClip, UsualTransform, paper_settings, register_architecture
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
    usual_transform=UsualTransform(
        enlargement=Fraction(256, 224),
        fields={"rescale_factor": 1 / 127.5, "rescale_offset": -1.0, "mean": None, "std": None},
    ),
    kinetics_clip=KineticsClip(num_frames=32, sampling_rate=2, training_rate=2),
)

__all__ = ["VivitConfig", "VivitForVideoClassification", "VivitModel"]
