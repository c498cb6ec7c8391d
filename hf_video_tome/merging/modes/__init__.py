"""What becomes of redundant tokens: one file per mode, a pure function that registers itself under its name."""

from .absorb import absorb as absorb
from .cluster import cluster as cluster
from .drop import drop as drop
from .dymu import dymu as dymu
from .frame_merge import frame_merge as frame_merge
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
    all_but_one,
    half_at_most,
    register_mode,
)
from .representation_shift import representation_shift as representation_shift
from .runs import runs as runs
from .sta import sta as sta
from .static_runs import static_runs as static_runs
from .time_pairs import time_pairs as time_pairs
from .vid_tldr import vid_tldr as vid_tldr

__all__ = [
    "MODES",
    "READABLE",
    "Context",
    "Mode",
    "ModeOption",
    "Removals",
    "SetShape",
    "all_but",
    "all_but_one",
    "half_at_most",
    "register_mode",
]
