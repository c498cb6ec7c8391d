"""Modes, which decide what to do with redundant tokens: one file each, a pure function in the registry."""

from .drop import drop
from .hybrid import hybrid
from .merge import merge
from .random_drop import random_drop
from .random_merge import random_merge
from .registry import MODES, READABLE, Context, Mode, Removals, half_at_most, register_mode

__all__ = [
    "MODES",
    "READABLE",
    "Context",
    "Mode",
    "Removals",
    "drop",
    "half_at_most",
    "hybrid",
    "merge",
    "random_drop",
    "random_merge",
    "register_mode",
]
