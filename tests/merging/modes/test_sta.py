"""`sta` against its description, written once more in loops, and the properties that define it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome import SettingError, VideoMAEConfig, VivitConfig, token_counts
from hf_video_tome.merging import MODES, Assignment, Context, TokenLayout, Tokens

LAYERS = {0: 8, 1: 4, 2: 2}  # of a model of 3 layers


def assign(keys: Tensor, states: Tensor, r: int, layer: int = 0, prefix: int = 0) -> Assignment:
    """Keys and states (N, ...) of one clip; r tokens leave each group."""
    layout = TokenLayout(prefix, 1, len(keys) - prefix)
    context = Context(
        keys[None, None], Tokens(), layout, r * LAYERS[layer], states[None, None], layer, 3, num_protected=prefix
    )
    return MODES["sta"].assign(context)


def slow_sta(keys: list[list[float]], states: list[list[float]], r: int, groups: int, backward: bool) -> list[int]:
    """Positions that are kept."""

    def cosine(i: int, j: int) -> float:
        product = sum(a * b for a, b in zip(keys[i], keys[j], strict=True))
        return product / (math.hypot(*keys[i]) * math.hypot(*keys[j]))

    size = len(keys) // groups
    kept: list[int] = []
    before: dict[int, float] = {}
    for group in reversed(range(groups)) if backward else range(groups):
        tokens = list(range(group * size, (group + 1) * size))
        if not before:
            best = {i: max(cosine(i, j) for j in tokens[1::2]) for i in tokens[::2]}
            pruned = sorted(best, key=lambda i: -best[i])[:r]
            redundancy = dict.fromkeys(tokens, 1.0)
        else:
            redundancy = dict.fromkeys(tokens, 0.0)
            for j, weight in before.items():
                column = {i: math.exp(cosine(i, j)) for i in tokens}
                for i in tokens:
                    redundancy[i] += weight * column[i] / sum(column.values())
            length = {i: sum(map(abs, states[i])) for i in tokens}
            low, high = min(length.values()), max(length.values())
            score = {i: redundancy[i] * (1 - (length[i] - low) / (high - low)) for i in tokens}
            pruned = sorted(tokens, key=lambda i: -score[i])[:r]
        left = [i for i in tokens if i not in pruned]
        before = {i: redundancy[i] / sum(redundancy[j] for j in left) for i in left}
        kept += left
    return sorted(kept)


@given(seed=st.integers(0, 2**32 - 1), layer=st.integers(0, 2), size=st.integers(2, 7), data=st.data())
def test_it_equals_the_description(seed: int, layer: int, size: int, data: st.DataObject) -> None:
    groups, r = LAYERS[layer], data.draw(st.integers(1, size // 2))
    generator = torch.Generator().manual_seed(seed)
    keys, states = (torch.randn(groups * size, 5, generator=generator, dtype=torch.float64) for _ in "ks")
    owner = assign(keys, states, r, layer).owner[0, 0].tolist()
    assert owner == slow_sta(keys.tolist(), states.tolist(), r, groups, backward=layer == 1)


@given(seed=st.integers(0, 2**32 - 1), layer=st.integers(0, 2), prefix=st.integers(0, 2))
def test_every_group_loses_r_tokens_that_belong_to_no_slot(seed: int, layer: int, prefix: int) -> None:
    keys, states = torch.randn(2, prefix + 8 * 6, 4, generator=torch.Generator().manual_seed(seed))
    assignment = assign(keys, states, 2, layer, prefix)
    slot, owner = assignment.slot[0, 0], assignment.owner[0, 0]
    assert owner.tolist() == sorted(owner.tolist())
    assert owner[:prefix].tolist() == list(range(prefix))
    assert torch.equal(slot[owner], torch.arange(len(owner)))
    assert (slot[prefix:].view(LAYERS[layer], -1) < 0).sum(dim=1).tolist() == [2] * LAYERS[layer]
    assert (assignment.content, assignment.sizes) == ("owner", "owner")


def test_in_identical_groups_the_same_number_is_pruned_and_ties_go_to_the_first() -> None:
    keys = torch.ones(32, 3)
    assert assign(keys, keys, 1).moved[0, 0].tolist() == [4 * group for group in range(8)]


def test_the_second_stage_begins_with_the_last_group() -> None:
    """The first group that is visited prunes by similarity within it: here token 0 of its 4, which equals token 1."""
    group = torch.eye(4)[[0, 0, 1, 2]]
    keys, states = group.repeat(8, 1), torch.arange(32.0)[:, None].flip(0)
    # In all other groups, the last token has the smallest state and the first the largest, so that it stays.
    assert assign(keys[:16], states[:16], 1, layer=1).moved[0, 0].max() == 12
    assert assign(keys, states, 1, layer=0).moved[0, 0].min() == 0
    assert assign(keys[:8], states[:8], 1, layer=2).moved[0, 0].min() == 0


def test_a_large_state_stays_although_it_repeats() -> None:
    keys = torch.cat((torch.eye(4), torch.eye(4)[[0, 0, 0, 1]]))
    states = torch.tensor([1.0] * 4 + [1.0, 5.0, 2.0, 3.0])[:, None]
    assert 5 not in assign(keys, states, 2, layer=2).moved[0, 0].tolist()


def test_counts_are_those_of_the_paper() -> None:
    config = VideoMAEConfig(token_merging_mode="sta", token_merging_r=64)
    assert sorted(set(token_counts(config)), reverse=True) == [1568, 1056, 800, 672]
    assert token_counts(config)[0] - token_counts(config)[-1] == 14 * 64
    # Layers 0, L / 3 and 2 L / 3, rounded down.
    shape = config.token_merging_plan().settings.shape_of(1568, 0, config.token_layout)
    removed = MODES["sta"].removals([1] * 8, shape)
    assert removed == [8, 0, 4, 0, 0, 2, 0, 0]


def test_a_share_is_one_of_the_tokens_of_a_group() -> None:
    config = VideoMAEConfig(token_merging_mode="sta", token_merging_r=0.25)  # groups of 196
    assert token_counts(config)[1] == 1568 - 8 * 49
    config = VideoMAEConfig(token_merging_mode="sta", token_merging_r=[0.25])
    assert token_counts(config)[1:] == [1568 - 8 * 49] * 12


def test_r_is_capped_at_half_of_a_group() -> None:
    config = VideoMAEConfig(token_merging_mode="sta", token_merging_r=10**6)
    assert sorted(set(token_counts(config)), reverse=True) == [1568, 784, 392, 196]


def test_groups_must_be_equal() -> None:
    fields = {
        "image_size": 24,
        "tubelet_size": [2, 8, 8],
        "num_frames": 4,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "token_merging_mode": "sta",
    }
    with pytest.raises(SettingError, match=r"another for 18 patch tokens.*8 equal groups"):
        VivitConfig(**fields, token_merging_r=1)
    VivitConfig(**fields)  # r = 0
    with pytest.raises(ValueError, match="multiple of 8, got 17"):
        assign(torch.ones(17, 2), torch.ones(17, 2), 1)


def test_the_tokens_behind_an_input_stage_form_the_groups_if_their_number_is_fixed() -> None:
    fields = {"token_merging_mode": "sta", "token_merging_r": 10, "token_merging_input": "run_length"}
    assert token_counts(VideoMAEConfig(**fields, token_merging_input_keep=800))[:2] == [800, 720]
    with pytest.raises(SettingError, match="another for 801 patch tokens"):
        VideoMAEConfig(**fields, token_merging_input_keep=801)
    with pytest.raises(SettingError, match=r"token_merging_input_threshold must be None .*'sta'"):
        VideoMAEConfig(**fields, token_merging_input_threshold=0.1)
