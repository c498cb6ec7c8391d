"""`dymu`: all pairs above the threshold of the layer, and no others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome import SettingError, VideoMAEConfig
from hf_video_tome.merging import MODES, Assignment, Context, MergeSettings, Step, TokenLayout, Tokens
from tests.tiny import TINY_CONFIGS


def assign(keys: torch.Tensor, threshold: float, **fields: object) -> Assignment:
    layout, most = TokenLayout(0, 1, keys.shape[2]), keys.shape[2] // 2
    return MODES["dymu"].assign(Context(keys, Tokens(), layout, **{"r": most, "threshold": threshold, **fields}))


def slow_groups(keys: list[list[float]], threshold: float, protected: int) -> set[frozenset[int]]:
    """Groups of one clip: every even token joins its best odd one, if that is similar enough."""

    def cosine(first: list[float], second: list[float]) -> float:
        norms = sum(x * x for x in first) ** 0.5 * sum(x * x for x in second) ** 0.5
        return sum(x * y for x, y in zip(first, second, strict=True)) / norms

    groups = {i: {i} for i in range(len(keys))}
    odd = [i for i in range(len(keys)) if i % 2 and i >= protected]
    for i in range(0, len(keys), 2):
        if i >= protected and odd:
            best = max(odd, key=lambda j: (cosine(keys[i], keys[j]), -j))
            if cosine(keys[i], keys[best]) > threshold:
                groups[best] |= groups.pop(i)
    return {frozenset(group) for group in groups.values()}


@given(
    clips=st.integers(1, 3),
    num_tokens=st.integers(2, 8).map(lambda half: 2 * half),
    protected=st.integers(0, 2),
    threshold=st.floats(-0.9, 0.9),
    seed=st.integers(0, 10**6),
)
def test_it_merges_what_a_plain_loop_merges(clips, num_tokens, protected, threshold, seed) -> None:
    keys = torch.randn(clips, 1, num_tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assignment = assign(keys, threshold, num_protected=protected)
    for clip in range(clips):
        slots = assignment.slot[clip, 0].tolist()
        groups = {frozenset(i for i, slot in enumerate(slots) if slot == wanted) for wanted in slots}
        assert groups == slow_groups(keys[clip, 0].tolist(), threshold, protected)
        assert assignment.num_slots[clip, 0] == len(groups)
        assert assignment.owner[clip, 0, :protected].tolist() == list(range(protected))
        owners = assignment.owner[clip, 0, : len(groups)].tolist()
        assert [slots[owner] for owner in owners] == list(range(len(groups)))


def test_equal_tokens_merge_and_different_ones_stay() -> None:
    equal, different = torch.ones(1, 1, 8, 4), torch.eye(8).view(1, 1, 8, 8)
    assert assign(equal, 0.9).num_slots.item() == 4
    assert assign(different, 0.1).num_slots.item() == 8


def test_r_is_the_most_that_a_layer_removes() -> None:
    assert assign(torch.ones(1, 1, 8, 4), 0.9, r=3).num_slots.item() == 5


def test_each_layer_has_its_own_threshold() -> None:
    keys = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0], [0.28, -0.96]])[None]  # cosines 0.8 and 0.96
    settings = MergeSettings("dymu", thresholds=(0.97, 0.9, 0.5))
    counts = []
    for layer in range(3):
        reduction = Step(2, Tokens(), TokenLayout(0, 1, 4), settings, layer, 3).reduce(keys)
        counts.append(reduction.apply(keys).shape[1])
    assert counts == [4, 3, 2]


@pytest.mark.parametrize("thresholds", [None, [0.5], [0.5] * 4])
def test_there_must_be_one_threshold_per_layer(thresholds: list[float] | None) -> None:
    config = VideoMAEConfig(**TINY_CONFIGS["videomae"])
    with pytest.raises(SettingError, match="token_merging_thresholds must be a list of 3 cosine similarities"):
        config.update_token_merging(mode="dymu", r=0.5, thresholds=thresholds)


def test_frames_must_stay_equally_long() -> None:
    config = VideoMAEConfig(**TINY_CONFIGS["videomae"])
    with pytest.raises(SettingError, match="token_merging_scope must be another"):
        config.update_token_merging(mode="dymu", r=0.5, thresholds=[0.5] * 3, scope="frame")
