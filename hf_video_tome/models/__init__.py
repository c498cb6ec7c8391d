"""The architectures that can merge tokens: one folder each, and one line here."""

from . import timesformer, videomae, vivit
from .architecture import ARCHITECTURES, Architecture, register_architecture

__all__ = ["ARCHITECTURES", "Architecture", "register_architecture", "timesformer", "videomae", "vivit"]
