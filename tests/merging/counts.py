"""Numbers of tokens, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

from hf_video_tome.merging import MODES, MergeSettings, Plan, TokenLayout


def token_counts(requested: Sequence[int], layout: TokenLayout, scope: str, mode: str = "merge") -> list[int]:
    threshold = 0.5 if MODES[mode].needs_threshold else None
    return Plan(list(requested), layout, MergeSettings(mode, threshold, scope)).token_counts()
