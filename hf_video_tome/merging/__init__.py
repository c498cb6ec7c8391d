"""Token merging in plain PyTorch: nothing here knows of transformers."""

from .assignment import Assignment, assign, keep_states, merge_sizes, merge_states
from .attention import append_size_channel, size_bias
from .functional import (
    MergeSettings,
    TokenMerge,
    TokenMergingPlan,
    TokenMergingStep,
    decide_merge,
    mean_pool,
    merge_tokens,
    token_counts,
)
from .layout import SCOPES, TokenLayout
from .matching import (
    Matching,
    aggregate_heads,
    bipartite_soft_matching,
    cosine_matching,
    cosine_scores,
    random_matching,
    random_scores,
)
from .modes import MODES, Mode, ModeInputs, register_mode
from .schedule import (
    MAX_LAYERS,
    MAX_R,
    MAX_SHARE,
    SCHEDULE_INFLECTIONS,
    check_r,
    check_schedule,
    max_removable,
    removals_per_layer,
    requested_removals,
    tokens_of_share,
)
from .setting_error import SettingError
from .settings import CHECKS, POSITIONS, Check, TokenMergingSettings, is_off
from .state import TokenMergingState, TokenMergingTrace, build_trace, initial_state, unmerge
from .values import is_between, shown

__all__ = [
    "CHECKS",
    "MAX_LAYERS",
    "MAX_R",
    "MAX_SHARE",
    "MODES",
    "POSITIONS",
    "SCHEDULE_INFLECTIONS",
    "SCOPES",
    "Assignment",
    "Check",
    "Matching",
    "MergeSettings",
    "Mode",
    "ModeInputs",
    "SettingError",
    "TokenLayout",
    "TokenMerge",
    "TokenMergingPlan",
    "TokenMergingSettings",
    "TokenMergingState",
    "TokenMergingStep",
    "TokenMergingTrace",
    "aggregate_heads",
    "append_size_channel",
    "assign",
    "bipartite_soft_matching",
    "build_trace",
    "check_r",
    "check_schedule",
    "cosine_matching",
    "cosine_scores",
    "decide_merge",
    "initial_state",
    "is_between",
    "is_off",
    "keep_states",
    "max_removable",
    "mean_pool",
    "merge_sizes",
    "merge_states",
    "merge_tokens",
    "random_matching",
    "random_scores",
    "register_mode",
    "removals_per_layer",
    "requested_removals",
    "shown",
    "size_bias",
    "token_counts",
    "tokens_of_share",
    "unmerge",
]
