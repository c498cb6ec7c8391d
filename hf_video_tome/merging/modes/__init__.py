"""What becomes of redundant tokens: one file per mode, a pure function that registers itself under its name."""

from .absorb import absorb as absorb
from .drop import drop as drop
from .hybrid import hybrid as hybrid
from .merge import merge as merge
from .pitome import pitome as pitome
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
from .runs import runs as runs
from .static_runs import static_runs as static_runs

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
