"""What changed in a clip, and what each kept tubelet stands for."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome.merging import INPUT_STAGES, InputContext, TokenLayout, reduce_tokens
from hf_video_tome.merging.tokens import Tokens
from hf_video_tome.merging.tubelet_changes import (
    assign_runs,
    keep_above,
    keep_largest,
    last_to_first_change,
    same_frame_change,
)

SHAPE = (2, 4, 4)
SLOTS, ROWS, COLUMNS = 4, 2, 3
PATCHES = ROWS * COLUMNS
LAYOUT = TokenLayout(0, SLOTS, PATCHES)
STAGES = {"run_length": last_to_first_change, "temporal_difference": same_frame_change}


def clips(seed: int = 0, batch_size: int = 2) -> Tensor:
    return torch.randn(batch_size, SLOTS * 2, 3, ROWS * 4, COLUMNS * 4, generator=torch.Generator().manual_seed(seed))


def choose(stage: str, pixel_values: Tensor | None, keep: int = 12, threshold: float | None = None, **kwargs):
    batch_size = 2 if pixel_values is None else len(pixel_values)
    embeddings = torch.zeros(batch_size, LAYOUT.num_tokens, 2)
    context = InputContext(embeddings, pixel_values, LAYOUT, keep, threshold=threshold, tubelet_shape=SHAPE, **kwargs)
    return INPUT_STAGES[stage].assign(context)


def sizes_of(assignment) -> list[dict[int, int]]:
    """Size of each kept tubelet, by its position, clip by clip."""
    tokens = reduce_tokens(assignment, Tokens(), LAYOUT, "clip", torch.float32).tokens
    assert tokens.size is not None
    return [
        {position: int(size) for position, size in zip(owners, sizes, strict=True) if size}
        for owners, sizes in zip(assignment.owner[:, 0].tolist(), tokens.size.tolist(), strict=True)
    ]


def runs(kept: set[int]) -> dict[int, int]:
    """The same, tubelet by tubelet."""
    sizes = {}
    for patch in range(PATCHES):
        for slot in range(SLOTS):
            if slot * PATCHES + patch in kept:
                last = slot * PATCHES + patch
                sizes[last] = 0
            sizes[last] += 1
    return dict(sorted(sizes.items()))


def plain_change(stage: str, clip: Tensor, slot: int, patch: int) -> float:
    """Mean absolute difference, pixel by pixel."""
    row, column = patch // COLUMNS * 4, patch % COLUMNS * 4
    frames = clip[..., row : row + 4, column : column + 4].double()
    pairs = [(2 * slot + 1, 2 * slot - 2)]
    if stage == "temporal_difference":
        pairs = [(2 * slot, 2 * slot - 2), (2 * slot + 1, 2 * slot - 1)]
    pixels = [
        abs(float(a) - float(b))
        for now, before in pairs
        for a, b in zip(frames[now].flatten(), frames[before].flatten(), strict=True)
    ]
    return sum(pixels) / len(pixels)


@pytest.mark.parametrize("stage", STAGES)
class TestChange:
    def test_it_is_the_mean_difference_of_the_pixels(self, stage):
        change = STAGES[stage](clips()[:1].double(), SHAPE)
        assert change.shape == (1, SLOTS - 1, PATCHES)
        assert change.dtype == torch.float64
        for slot, patch in [(1, 0), (2, 4), (3, 5)]:
            assert change[0, slot - 1, patch].item() == pytest.approx(plain_change(stage, clips()[0], slot, patch))

    def test_pixels_after_the_last_whole_tubelet_are_ignored(self, stage):
        more = torch.nn.functional.pad(clips(), (0, 3, 0, 2, 0, 0, 0, 1), value=9.0)
        assert torch.equal(STAGES[stage](more, SHAPE), STAGES[stage](clips(), SHAPE))

    def test_half_precision_is_compared_in_float32(self, stage):
        low = clips().bfloat16()
        assert torch.equal(STAGES[stage](low, SHAPE), STAGES[stage](low.float(), SHAPE))

    def test_without_pixels_it_says_what_is_missing(self, stage):
        with pytest.raises(ValueError, match="pixel_values must be the clips"):
            choose(stage, None)


class TestFixedNumber:
    @pytest.mark.parametrize("stage", INPUT_STAGES)
    @pytest.mark.parametrize("keep", [PATCHES, 13, LAYOUT.num_tokens])
    def test_first_slot_and_run_lengths(self, stage, keep):
        assignment = choose(stage, clips(), keep)
        assert assignment.num_slots is None
        for sizes in sizes_of(assignment):
            assert set(range(PATCHES)) <= sizes.keys()
            assert len(sizes) == keep
            assert sum(sizes.values()) == LAYOUT.num_tokens
            assert list(sizes) == sorted(sizes)
            assert sizes == runs(set(sizes))

    @pytest.mark.parametrize("stage", STAGES)
    def test_the_largest_changes_of_the_whole_clip(self, stage):
        for clip, sizes in zip(clips(), sizes_of(choose(stage, clips(), 15)), strict=True):
            later = [(t, p) for t in range(1, SLOTS) for p in range(PATCHES)]
            best = sorted(later, key=lambda it: -plain_change(stage, clip, *it))[: 15 - PATCHES]
            assert set(sizes) == {*range(PATCHES), *(t * PATCHES + p for t, p in best)}

    def test_the_earliest_of_equal_changes(self):
        is_kept = keep_largest(torch.tensor([[[1.0, 2.0, 1.0], [1.0, 2.0, 1.0]]]), 6)
        assert is_kept.flatten(1).nonzero()[:, 1].tolist() == [0, 1, 2, 3, 4, 7]

    def test_nan_displaces_no_first_slot(self):
        is_kept = keep_largest(torch.full((1, 3, 2), torch.nan), 3)
        assert is_kept.flatten().tolist() == [True] * 3 + [False] * 5

    def test_the_control_is_random(self):
        first, second = choose("random", clips(0, 1)).owner, choose("random", clips(0, 1)).owner
        assert not torch.equal(first, second)
        drawn = [choose("random", clips(), generator=torch.Generator().manual_seed(3)).owner for _ in range(2)]
        assert torch.equal(*drawn)
        assert not torch.equal(drawn[0][0], drawn[0][1])


@pytest.mark.parametrize("stage", STAGES)
class TestThreshold:
    def test_a_frozen_clip_keeps_its_first_slot(self, stage):
        frozen = clips()[:, :1].expand(-1, SLOTS * 2, -1, -1, -1)
        for threshold in (0.0, 0.1):
            assignment = choose(stage, frozen, threshold=threshold)
            assert assignment.num_slots.tolist() == [[PATCHES], [PATCHES]]
            assert sizes_of(assignment) == [dict.fromkeys(range(PATCHES), SLOTS)] * 2

    def test_where_all_changes_all_stays(self, stage):
        assert choose(stage, clips(), threshold=0.0).num_slots.tolist() == [[LAYOUT.num_tokens]] * 2

    def test_the_higher_the_fewer(self, stage):
        counts = [int(choose(stage, clips(), threshold=it).num_slots[0]) for it in (0.9, 1.0, 1.1, 1.15, 1.2, 2.0)]
        assert counts == sorted(counts, reverse=True)
        assert len(set(counts)) > 3
        assert counts[-1] == PATCHES

    def test_one_change_splits_one_run(self, stage):
        pixel_values = clips(batch_size=1)[:, :1].repeat(1, SLOTS * 2, 1, 1, 1)
        pixel_values[:, 3 * 2 :, :, :4, 4:8] += 1.0  # patch 1, from slot 3 on
        [sizes] = sizes_of(choose(stage, pixel_values, threshold=0.5))
        assert sizes == {**dict.fromkeys(range(PATCHES), SLOTS), 1: 3, 3 * PATCHES + 1: 1}

    def test_slow_drift_is_not_noticed(self, stage):
        drifting = torch.arange(SLOTS * 2.0).div(10).view(1, -1, 1, 1, 1).expand_as(clips(batch_size=1))
        assert choose(stage, drifting, threshold=0.31).num_slots.item() == PATCHES
        assert choose(stage, drifting, threshold=0.19).num_slots.item() == LAYOUT.num_tokens


def test_only_the_last_and_first_frames_see_a_flicker_within_tubelets():
    flicker = clips(batch_size=1)[:, :2].repeat(1, SLOTS, 1, 1, 1)
    assert choose("run_length", flicker, threshold=0.0).num_slots.item() == LAYOUT.num_tokens
    assert choose("temporal_difference", flicker, threshold=0.0).num_slots.item() == PATCHES


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32), st.floats(0, 1))
@settings(max_examples=40)
def test_each_tubelet_belongs_to_the_last_kept_one_at_its_place(slots, patches, seed, share):
    generator = random.Random(seed)
    is_kept = torch.tensor([[[t == 0 or generator.random() < share for _ in range(patches)] for t in range(slots)]])
    number = int(is_kept.sum())
    for keep in (None, number):
        assignment = assign_runs(is_kept, keep)
        owners = assignment.owner[0, 0, :number].tolist()
        assert owners == is_kept.flatten().nonzero()[:, 0].tolist()
        if keep is not None:
            assert sorted(owners + assignment.moved[0, 0].tolist()) == list(range(slots * patches))
        for t in range(slots):
            for p in range(patches):
                head = max(u for u in range(t + 1) if is_kept[0, u, p])
                assert owners[assignment.slot[0, 0, t * patches + p]] == head * patches + p


def test_keep_above_is_strict():
    assert keep_above(torch.tensor([[[0.5, 0.6]]]), 0.5).tolist() == [[[True, True], [False, True]]]
