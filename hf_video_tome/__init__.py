"""Training-free token merging for Hugging Face video classification models.

Importing this package registers it with the Auto classes of transformers: from then on, `from_pretrained(...,
token_merging_r=...)` makes a stock checkpoint merge tokens. Nothing else changes.
"""

from .api import apply_token_merging, paper_settings, remove_token_merging, set_token_merging, token_counts
from .configuration import TokenMergingConfigMixin
from .merging import TokenMergingTrace
from .models.timesformer import TimesformerConfig, TimesformerForVideoClassification, TimesformerModel
from .models.videomae import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEModel
from .models.vivit import VivitConfig, VivitForVideoClassification, VivitModel
from .registration import register
from .version import __version__

register()

__all__ = [
    "TimesformerConfig",
    "TimesformerForVideoClassification",
    "TimesformerModel",
    "TokenMergingConfigMixin",
    "TokenMergingTrace",
    "VideoMAEConfig",
    "VideoMAEForVideoClassification",
    "VideoMAEModel",
    "VivitConfig",
    "VivitForVideoClassification",
    "VivitModel",
    "__version__",
    "apply_token_merging",
    "paper_settings",
    "remove_token_merging",
    "set_token_merging",
    "token_counts",
]
