"""`runs` and `static_runs`: tokens that stay similar over time."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import MODES, Context, MergeSettings, SetShape, SettingError, TokenLayout, Tokens
from hf_video_tome.merging.static_segments import best_segments, static_tokens
from tests.merging import reference

from .one_layer import assign, check_partition, draw, groups

FRAMES, ROWS, COLUMNS = 5, 2, 3
PATCHES = ROWS * COLUMNS
LAYOUT = TokenLayout(0, FRAMES, PATCHES, num_columns=COLUMNS)
EVERY = list(range(FRAMES * PATCHES))


def tokens_left(seed: int, num_tokens: int) -> list[int]:
    """The indices of some tokens, out of order, as earlier layers may leave them."""
    return torch.randperm(FRAMES * PATCHES, generator=torch.Generator().manual_seed(seed))[:num_tokens].tolist()


def neighbours(keys: torch.Tensor, index: list[int], window: int) -> dict[int, tuple[int, float]]:
    """Earlier neighbour of each token that has one, and their similarity, by looking at all tokens."""
    found = {}
    for token, own in enumerate(index):
        (time, patch), candidates = divmod(own, PATCHES), {}
        for other, its in enumerate(index):
            earlier, place = divmod(its, PATCHES)
            rows, columns = place // COLUMNS - patch // COLUMNS, place % COLUMNS - patch % COLUMNS
            if earlier < time and abs(rows) <= window and abs(columns) <= window:
                latest = candidates.get((rows, columns))
                if latest is None or index[latest] < its:
                    candidates[rows, columns] = other
        if candidates:
            by_score = {
                other: reference.cosine(keys[token].tolist(), keys[other].tolist()) for other in candidates.values()
            }
            best = max(by_score, key=by_score.get)
            found[token] = best, by_score[best]
    return found


def joined(num_tokens: int, links: dict[int, int]) -> list[list[int]]:
    runs: dict[int, list[int]] = {}
    for token in range(num_tokens):
        first = token
        while first in links:
            first = links[first]
        runs.setdefault(first, []).append(token)
    return [[first, *(i for i in runs[first] if i != first)] for first in sorted(runs)]


@pytest.mark.parametrize("window", [0, 1, 2])
@given(seed=st.integers(0, 2**16), num_tokens=st.integers(PATCHES + 1, FRAMES * PATCHES), r=st.integers(1, 30))
def test_it_is_the_definition(window: int, seed: int, num_tokens: int, r: int) -> None:
    keys, index = draw(num_tokens, seed), tokens_left(seed, num_tokens)
    found = neighbours(keys, index, window)
    r = min(r, num_tokens - PATCHES)
    assignment = assign("runs", keys, r, index=index, layout=LAYOUT, options={"window": window})
    check_partition(assignment, num_tokens, r)
    best = sorted(found, key=lambda token: -found[token][1])[:r]
    assert groups(assignment) == joined(num_tokens, {token: found[token][0] for token in best})


@given(seed=st.integers(0, 2**16), r=st.integers(1, 24))
def test_a_cumulative_sum_of_cuts_gives_the_same(seed: int, r: int) -> None:
    """The definition for full grids: sort by patch and time, join the best consecutive ones, number the runs."""
    keys = draw(FRAMES * PATCHES, seed)
    order = sorted(EVERY, key=lambda i: (i % PATCHES, i))
    unit = keys[order] / keys[order].norm(dim=-1, keepdim=True)
    score = (unit[1:] * unit[:-1]).sum(-1).masked_fill(torch.tensor(order[1:]) < PATCHES, -torch.inf)
    cut = torch.ones(len(order), dtype=torch.int64)
    cut[1 + score.argsort(descending=True)[:r]] = 0
    members: dict[int, list[int]] = {}
    for token, number in zip(order, cut.cumsum(0).tolist(), strict=True):
        members.setdefault(number, []).append(token)
    assert groups(assign("runs", keys, r, layout=LAYOUT)) == sorted(members.values())


def test_a_frozen_patch_becomes_one_token_and_one_that_changes_once_two() -> None:
    keys = draw(FRAMES * PATCHES, 0).view(FRAMES, PATCHES, -1)
    keys[:, 4] = keys[0, 4]
    keys[:3, 1], keys[3:, 1] = keys[0, 1].clone(), keys[3, 1].clone()
    members = groups(assign("runs", keys.flatten(0, 1), 4 + 2 + 1, layout=LAYOUT))
    assert [4 + PATCHES * t for t in range(FRAMES)] in members
    assert [1 + PATCHES * t for t in range(3)] in members
    assert [1 + PATCHES * t for t in (3, 4)] in members


def test_patches_never_merge_with_others_without_a_window() -> None:
    keys = torch.ones(FRAMES * PATCHES, 2)
    members = groups(assign("runs", keys, FRAMES * PATCHES - PATCHES, layout=LAYOUT))
    assert members == [[patch + PATCHES * t for t in range(FRAMES)] for patch in range(PATCHES)]


def test_of_equal_pairs_the_first_tokens_join() -> None:
    assert groups(assign("runs", torch.ones(12, 2), 2, layout=TokenLayout(0, 3, 4)))[:4] == [[0, 4], [1, 5], [2], [3]]


def moving(frames: int = 3, side: int = 3) -> torch.Tensor:
    """An object that moves one patch down and right per frame, before a background of noise."""
    keys = torch.eye(frames * side * side + 1, dtype=torch.float64)[: frames * side * side]
    for frame in range(frames):
        keys[frame * side * side + frame * (side + 1)] = torch.eye(len(keys) + 1, dtype=torch.float64)[-1]
    return keys


@pytest.mark.parametrize("window", [0, 1, 5])
def test_a_window_follows_what_moves(window: int) -> None:
    layout = TokenLayout(0, 3, 9, num_columns=3)
    members = groups(assign("runs", moving(), 2, layout=layout, options={"window": window}))
    assert ([0, 9 + 4, 18 + 8] in members) == (window > 0)


def test_equal_neighbours_in_a_window_stay_where_they_are() -> None:
    keys, layout = torch.ones(18, 2), TokenLayout(0, 2, 9, num_columns=3)
    assert groups(assign("runs", keys, 9, layout=layout, options={"window": 2})) == [[i, i + 9] for i in range(9)]


def test_a_window_needs_rows_and_columns() -> None:
    with pytest.raises(ValueError, match="window must be 0, as the patches of a frame form no grid, got 1"):
        assign("runs", torch.ones(8, 2), 1, layout=TokenLayout(0, 2, 4), options={"window": 1})


@pytest.mark.parametrize("value", [-1, 0.5, True, "1", None])
def test_other_windows_are_refused(value: Any) -> None:
    with pytest.raises(SettingError, match=r"mode_options\['window'\] must be an int >= 0"):
        MODES["runs"].complete_options({"window": value})


@pytest.mark.parametrize("mode", ["runs", "static_runs"])
def test_as_many_tokens_as_a_frame_has_are_left(mode: str) -> None:
    shape = SetShape(1 + FRAMES * PATCHES, 1, TokenLayout(1, FRAMES, PATCHES))
    assert MODES[mode].removals([10**6, 5], shape) == [(FRAMES - 1) * PATCHES, 0]


@pytest.mark.parametrize("mode", ["runs", "static_runs"])
def test_prefix_tokens_stay_alone(mode: str) -> None:
    keys = torch.ones(2 + FRAMES * PATCHES, 3)
    assignment = assign(
        mode,
        keys,
        24,
        index=[-1, -1, *EVERY],
        layout=LAYOUT._replace(num_prefix_tokens=2),
        num_protected=2,
        threshold=0.5,
    )
    check_partition(assignment.without_empty_slots(""), 2 + FRAMES * PATCHES, 24, 2)
    assert groups(assignment)[2] == [2 + PATCHES * t for t in range(FRAMES)]


def total(gains: list[list[int]], segments: list[tuple[int, int]]) -> int:
    return sum(gains[first][end - first - 1] for first, end in segments)


def segmentations(frames: int) -> list[list[tuple[int, int]]]:
    cuts = [c for n in range(frames) for c in itertools.combinations(range(1, frames), n)]
    return [list(itertools.pairwise((0, *cut, frames))) for cut in cuts]


@given(data=st.data(), frames=st.integers(1, 6))
def test_no_segmentation_is_better(data: st.DataObject, frames: int) -> None:
    gains = [data.draw(st.lists(st.integers(0, 20), min_size=n, max_size=n)) for n in range(frames, 0, -1)]
    segments = best_segments(gains)
    assert segments in segmentations(frames)
    assert total(gains, segments) == max(total(gains, other) for other in segmentations(frames))


def test_two_segments_may_be_better_than_one() -> None:
    gains = [[0, 0, 30, 45], [0, 0, 0], [0, 28], [0]]
    assert best_segments(gains) == [(0, 4)]
    gains[0][1] = 30
    assert best_segments(gains) == [(0, 2), (2, 4)]  # 30 + 28 > 45


@given(seed=st.integers(0, 2**16), frames=st.integers(1, 6), similar=st.floats(0.2, 0.95))
def test_no_segmentation_saves_more_tokens(seed: int, frames: int, similar: float) -> None:
    """g(a, e) = (number of positions static in all frames from a to e - 1) * (e - a - 1)."""
    generator = torch.Generator().manual_seed(seed)
    is_similar = torch.rand(2, frames, 4, generator=generator) < similar
    merges = static_tokens(torch.ones_like(is_similar), is_similar)
    for clip, own in zip(is_similar.tolist(), merges, strict=True):
        saved = [
            sum(
                sum(all(clip[m][p] for m in range(first + 1, end)) for p in range(4)) * (end - first - 1)
                for first, end in segments
            )
            for segments in segmentations(frames)
        ]
        assert int(own.sum()) == max(saved)
        assert not (own & ~torch.tensor(clip)).any()
        assert not own[0].any()


def static(keys: torch.Tensor, r: int = 100, **context: Any) -> list[list[int]]:
    return groups(assign("static_runs", keys, r, layout=LAYOUT, threshold=0.8, **context))


def test_patches_merge_that_are_static_in_a_whole_segment() -> None:
    keys = draw(FRAMES * PATCHES, 0, dim=64).view(FRAMES, PATCHES, -1)
    keys[:, :4] = keys[:1, :4]  # static throughout: 4 * 4 tokens saved
    keys[:3, 4] = keys[0, 4]  # in the first frames only, so not in the one segment
    members = static(keys.flatten(0, 1))
    assert members[:4] == [[patch + PATCHES * t for t in range(FRAMES)] for patch in range(4)]
    assert all(len(group) == 1 for group in members[4:])
    keys[3:] = keys[3:] + 10 * draw(PATCHES, 1, dim=64)  # a cut
    assert [4, 4 + PATCHES, 4 + 2 * PATCHES] in static(keys.flatten(0, 1))


def test_of_more_than_r_tokens_the_most_similar_merge() -> None:
    keys = torch.ones(FRAMES, PATCHES, 2, dtype=torch.float64)
    keys[:, 1:, 1] += 0.1 * torch.arange(FRAMES).view(-1, 1)
    members = static(keys.flatten(0, 1), 4)
    assert members[0] == [PATCHES * t for t in range(FRAMES)]
    assert all(len(group) == 1 for group in members[1:])


def test_where_tokens_are_missing_those_before_stand_for_them() -> None:
    keys = torch.ones(FRAMES * PATCHES - 8, 2)
    members = static(keys, index=[*range(PATCHES), *range(PATCHES + 8, FRAMES * PATCHES)])
    assert len(members) == PATCHES


def test_clips_have_their_own_numbers_of_tokens() -> None:
    still, noise = torch.ones(FRAMES * PATCHES, 8), draw(FRAMES * PATCHES, 0, dim=8).float()
    together = MODES["static_runs"].assign(
        Context(
            keys=torch.stack((still, noise)).unsqueeze(1),
            tokens=Tokens(index=torch.tensor([EVERY, EVERY]).unsqueeze(1)),
            layout=LAYOUT,
            r=100,
            threshold=0.8,
        )
    )
    assert together.num_slots.tolist() == [[PATCHES], [len(static(noise))]]


def test_it_needs_a_threshold_and_fits_a_step() -> None:
    with pytest.raises(ValueError, match="threshold must be a cosine similarity"):
        assign("static_runs", torch.ones(8, 2), 1, layout=TokenLayout(0, 2, 4))
    assert MergeSettings("static_runs").decides_late is False
