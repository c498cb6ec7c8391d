"""What becomes of redundant tokens: one file per mode, a pure function that registers itself under its name."""

from .drop import drop as drop
from .dymu import dymu as dymu
from .hybrid import hybrid as hybrid
from .merge import merge as merge
from .random_drop import random_drop as random_drop
from .random_merge import random_merge as random_merge
from .registry import (
    MODES,
    READABLE,
    Context,
    Mode,
    ModeOption,
    Removals,
    SetShape,
    all_but,
    half_at_most,
    register_mode,
)

__all__ = [
    "MODES",
    "READABLE",
    "Context",
    "Mode",
    "ModeOption",
    "Removals",
    "SetShape",
    "all_but",
    "half_at_most",
    "register_mode",
]
