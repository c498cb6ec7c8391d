"""`time_pairs`: two consecutive frames become their mean."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome import SettingError, VideoMAEConfig, VideoPrismVisionConfig, token_counts
from hf_video_tome.merging import MODES, Context, MergeSettings, TokenLayout, Tokens, merge_tokens


def slots(num_frames: int, r: int) -> list[int]:
    context = Context(torch.zeros(2, 3, num_frames, 4), Tokens(), TokenLayout(0, num_frames, 3), r, shared=True)
    assignment = MODES["time_pairs"].assign(context)
    assert torch.equal(assignment.slot[0], assignment.slot[1])
    return assignment.slot[0, 0].tolist()


def test_half_of_the_frames_are_all_pairs() -> None:
    assert slots(8, 4) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert slots(5, 2) == [0, 0, 1, 1, 2]


def test_fewer_pairs_are_spread_over_time() -> None:
    assert slots(8, 1) == [0, 1, 2, 3, 4, 4, 5, 6]
    assert slots(8, 2) == [0, 1, 2, 2, 3, 4, 5, 5]


@given(num_frames=st.integers(2, 40), data=st.data())
def test_r_different_pairs_merge(num_frames: int, data: st.DataObject) -> None:
    r = data.draw(st.integers(1, num_frames // 2))
    found = slots(num_frames, r)
    pairs = [t for t in range(num_frames - 1) if found[t] == found[t + 1]]
    assert len(pairs) == r
    assert all(t % 2 == 0 for t in pairs)
    assert found == sorted(found)
    assert found[-1] == num_frames - r - 1
    gaps = {b - a for a, b in itertools.pairwise(pairs)}
    assert not gaps or max(gaps) - min(gaps) <= 2  # one pair


def test_equal_frames_merge_without_loss() -> None:
    frame = torch.randn(1, 3, 4, dtype=torch.float64)
    x = torch.cat((frame, frame, 2 * frame, 3 * frame), dim=1)
    settings = MergeSettings(mode="time_pairs", scope="time")
    merged, tokens = merge_tokens(x, x, 2, Tokens(), TokenLayout(0, 4, 3), settings)
    torch.testing.assert_close(merged, torch.cat((frame, 2.5 * frame), dim=1))
    assert tokens.size.tolist() == [[2.0] * 6]


def test_r_counts_frames_of_layer_0() -> None:
    assert token_counts(VideoMAEConfig(token_merging_mode="time_pairs", token_merging_r=0.5)) == [1568] + [784] * 12
    config = VideoMAEConfig(token_merging_mode="time_pairs", token_merging_r=[0, 4, 2])
    assert token_counts(config)[:4] == [1568, 1568, 784, 392]
    with pytest.raises(SettingError, match=r"\(0, 0.5\]"):
        VideoMAEConfig(token_merging_mode="time_pairs", token_merging_r=0.6)


def test_a_model_without_the_scope_refuses_it() -> None:
    with pytest.raises(SettingError, match="videoprism_vision_model does not support it"):
        VideoPrismVisionConfig(token_merging_mode="time_pairs", token_merging_r=2)
