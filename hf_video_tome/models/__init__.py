"""The architectures that can merge tokens: one folder each, and one line here."""

from . import motionformer, timesformer, videomae, videoprism, vivit, vjepa2
from .architecture import ARCHITECTURES, Architecture, register_architecture

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "motionformer",
    "register_architecture",
    "timesformer",
    "videomae",
    "videoprism",
    "vivit",
    "vjepa2",
]
