"""TimeSformer (https://arxiv.org/abs/2102.05095): divided space-time attention, merging inside frames, CLS head."""

from transformers.models.timesformer import modeling_timesformer as stock

from ..architecture import paper_settings, register_architecture
from ..encoder import Encoder
from .configuration_timesformer import TimesformerConfig
from .mac_count_timesformer import mac_count_timesformer
from .modeling_timesformer import MODULE_CLASSES, TimesformerForVideoClassification, TimesformerModel

register_architecture(
    Encoder(
        model_type="timesformer",
        config_class=TimesformerConfig,
        stock_config_class=stock.TimesformerConfig,
        model_class=TimesformerModel,
        stock_model_class=stock.TimesformerModel,
        module_classes=MODULE_CLASSES,
        mac_count=mac_count_timesformer,
        stock_attn_implementations=("eager",),
    ),
    stock_head_class=stock.TimesformerForVideoClassification,
    head_class=TimesformerForVideoClassification,
    paper_settings=paper_settings(r=18, scope="frame", proportional_attention=True),
)

__all__ = ["TimesformerConfig", "TimesformerForVideoClassification", "TimesformerModel"]
