"""Numbers of tokens, layer by layer, of modes that remove half of them at most."""

from __future__ import annotations

from collections.abc import Sequence

from hf_video_tome.merging import MergeSettings, Plan, TokenLayout


def token_counts(requested: Sequence[int], layout: TokenLayout, scope: str) -> list[int]:
    return Plan(list(requested), layout, MergeSettings(scope=scope)).token_counts()
