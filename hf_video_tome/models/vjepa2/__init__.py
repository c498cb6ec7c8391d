"""V-JEPA 2 (https://arxiv.org/abs/2506.09985): all tokens are one set, rotary positions, attentive pooler."""

from transformers.models.vjepa2 import modeling_vjepa2 as stock

from ..architecture import register_architecture
from ..encoder import Encoder
from .configuration_vjepa2 import VJEPA2Config
from .mac_count_vjepa2 import mac_count_vjepa2
from .modeling_vjepa2 import MODULE_CLASSES, VJEPA2ForVideoClassification, VJEPA2Model

register_architecture(
    Encoder(
        model_type="vjepa2",
        config_class=VJEPA2Config,
        stock_config_class=stock.VJEPA2Config,
        model_class=VJEPA2Model,
        stock_model_class=stock.VJEPA2Model,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_vjepa2,
        stock_attn_implementations=("eager", "sdpa", "flash_attention_2", "flash_attention_3"),
    ),
    stock_head_class=stock.VJEPA2ForVideoClassification,
    head_class=VJEPA2ForVideoClassification,
    video_processor_only=True,
)

__all__ = ["VJEPA2Config", "VJEPA2ForVideoClassification", "VJEPA2Model"]
