"""Training-free token merging for Hugging Face video classification models.

Importing this package registers it with the Auto classes of transformers: from then on, `from_pretrained(...,
token_merging_r=...)` makes a stock checkpoint merge tokens. Without that argument, the loaded models behave like the
stock models, with three exceptions: TimeSformer runs on fused attention, VideoPrism returns logits of shape (batch,
labels) rather than (batch, 1, labels), and clips that do not fit the checkpoint raise an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy_names
from ._own_command import is_own_command
from .version import __version__

if TYPE_CHECKING:
    from .api import (
        apply_token_merging,
        mac_count,
        paper_settings,
        remove_token_merging,
        set_token_merging,
        token_counts,
        token_merging,
    )
    from .configuration import TokenMergingConfigMixin
    from .data.processor import ClipProcessor
    from .merging.setting_error import SettingError
    from .merging.trace import TokenMergingTrace
    from .models.mac_count import MacCount
    from .models.motionformer import MotionformerConfig, MotionformerForVideoClassification, MotionformerModel
    from .models.timesformer import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel
    from .models.videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel
    from .models.videoprism import VideoPrismForVideoClassification, VideoPrismVisionConfig, VideoPrismVisionModel
    from .models.vivit import VivitConfig, VivitForVideoClassification, VivitModel
    from .models.vjepa2 import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2Model
    from .presets import preset
    from .registration import register as register
    from .tuning.calibration import calibrate
    from .tuning.search import tune

__all__ = [
    "ClipProcessor",
    "MacCount",
    "MotionformerConfig",
    "MotionformerForVideoClassification",
    "MotionformerModel",
    "SettingError",
    "TimesformerConfig",
    "TimesformerForVideoClassification",
    "TimesformerModel",
    "TokenMergingConfigMixin",
    "TokenMergingTrace",
    "VJEPA2Config",
    "VJEPA2ForVideoClassification",
    "VJEPA2Model",
    "VideoMAEConfig",
    "VideoMAEForVideoClassification",
    "VideoMAEModel",
    "VideoPrismForVideoClassification",
    "VideoPrismVisionConfig",
    "VideoPrismVisionModel",
    "VivitConfig",
    "VivitForVideoClassification",
    "VivitModel",
    "__version__",
    "apply_token_merging",
    "calibrate",
    "mac_count",
    "paper_settings",
    "preset",
    "remove_token_merging",
    "set_token_merging",
    "token_counts",
    "token_merging",
    "tune",
]

__getattr__, __dir__ = lazy_names(__name__)

if not is_own_command():  # its subcommands register once they need a model
    from . import registration

    registration.register()
