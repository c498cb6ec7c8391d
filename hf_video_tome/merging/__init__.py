"""Token merging in plain PyTorch, independent of transformers.

Names are imported on first use: the settings and their checks do not need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .assignment import Assignment, assign_kept, assign_neighbours, assign_pairs
    from .attention_statistics import AttentionStatistics
    from .input_stages import INPUT_STAGES, InputContext, keep_changed, keep_tokens, register_input_stage
    from .layout import TokenLayout
    from .matching import (
        Matching,
        aggregate_heads,
        bipartite_soft_matching,
        cosine_matching,
        cosine_scores,
        random_matching,
        random_scores,
    )
    from .modes import MODES, Context, Mode, ModeOption, SetShape, all_but, half_at_most, register_mode
    from .plan import Plan
    from .pooling import mean_pool
    from .proportional import append_size_channel, log_size, size_bias
    from .reduction import Reduction, reduce_tokens
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
    from .scopes import SCOPES
    from .setting_error import SettingError
    from .settings import SETTINGS, Check, SettingInfo, TokenMergingSettings, are_off, is_off
    from .slot_means import keep_states, merge_sizes, merge_states
    from .step import MergeSettings, Step, merge_tokens
    from .tokens import Tokens, initial_tokens, is_real
    from .trace import TokenMergingTrace, build_trace, unmerge
    from .values import is_between, shown

__all__ = [
    "INPUT_STAGES",
    "MAX_LAYERS",
    "MAX_R",
    "MAX_SHARE",
    "MODES",
    "SCHEDULE_INFLECTIONS",
    "SCOPES",
    "SETTINGS",
    "Assignment",
    "AttentionStatistics",
    "Check",
    "Context",
    "InputContext",
    "Matching",
    "MergeSettings",
    "Mode",
    "ModeOption",
    "Plan",
    "Reduction",
    "SetShape",
    "SettingError",
    "SettingInfo",
    "Step",
    "TokenLayout",
    "TokenMergingSettings",
    "TokenMergingTrace",
    "Tokens",
    "aggregate_heads",
    "all_but",
    "append_size_channel",
    "are_off",
    "assign_kept",
    "assign_neighbours",
    "assign_pairs",
    "bipartite_soft_matching",
    "build_trace",
    "check_r",
    "check_schedule",
    "cosine_matching",
    "cosine_scores",
    "half_at_most",
    "initial_tokens",
    "is_between",
    "is_off",
    "is_real",
    "keep_changed",
    "keep_states",
    "keep_tokens",
    "log_size",
    "max_removable",
    "mean_pool",
    "merge_sizes",
    "merge_states",
    "merge_tokens",
    "random_matching",
    "random_scores",
    "reduce_tokens",
    "register_input_stage",
    "register_mode",
    "removals_per_layer",
    "requested_removals",
    "shown",
    "size_bias",
    "tokens_of_share",
    "unmerge",
]

__getattr__, __dir__ = lazy_names(__name__)
