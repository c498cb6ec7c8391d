"""TimeSformer (https://arxiv.org/abs/2102.05095): divided space-time attention, merging within frames, CLS head."""

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_timesformer import TimesformerConfig
from .mac_count_timesformer import mac_count_timesformer
from .modeling_timesformer import TimesformerForVideoClassification, TimesformerModel

register_architecture(
    Encoder(
        TimesformerModel,
        mac_count_timesformer,
        stock_attn_implementations=("eager",),
    ),
    TimesformerForVideoClassification,
    paper_settings=paper_settings(r=18, scope="frame", proportional_attention=True),
)

__all__ = ["TimesformerConfig", "TimesformerForVideoClassification", "TimesformerModel"]
