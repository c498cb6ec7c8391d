"""V-JEPA 2 (https://arxiv.org/abs/2506.09985): one matched set per clip, rotary positions, attentive pooler."""

from ..architecture import register_architecture
from ..encoder import Encoder
from .configuration_vjepa2 import VJEPA2Config
from .mac_count_vjepa2 import mac_count_vjepa2
from .modeling_vjepa2 import VJEPA2ForVideoClassification, VJEPA2Model

register_architecture(
    Encoder(
        VJEPA2Model,
        mac_count_vjepa2,
        stock_attn_implementations=("eager", "sdpa", "flash_attention_2", "flash_attention_3"),
    ),
    VJEPA2ForVideoClassification,
    video_processor_only=True,
)

__all__ = ["VJEPA2Config", "VJEPA2ForVideoClassification", "VJEPA2Model"]
