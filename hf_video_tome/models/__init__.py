"""Architectures that can merge tokens: one folder each, and one line here."""

from . import motionformer, timesformer, videomae, videoprism, vivit, vjepa2
from .architecture import ARCHITECTURES, Architecture, register_architecture
from .encoder import ENCODERS, Encoder, register_encoder
from .host import HOSTS, Host, register_host

__all__ = [
    "ARCHITECTURES",
    "ENCODERS",
    "HOSTS",
    "Architecture",
    "Encoder",
    "Host",
    "motionformer",
    "register_architecture",
    "register_encoder",
    "register_host",
    "timesformer",
    "videomae",
    "videoprism",
    "vivit",
    "vjepa2",
]
