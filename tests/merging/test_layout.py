"""Where the tokens of a clip lie, and which are matched with each other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import SCOPES, TokenLayout

LAYOUTS = st.builds(
    TokenLayout,
    num_prefix_tokens=st.integers(0, 1),
    num_frames=st.integers(1, 4),
    num_patches=st.integers(1, 6),
    patch_major=st.booleans(),
)


def test_frame_major_sets_are_runs_of_the_sequence():
    prefix, sets = TokenLayout(1, 2, 3).split(torch.arange(7)[None], "frame")
    assert prefix.tolist() == [[0]]
    assert sets.tolist() == [[[1, 2, 3], [4, 5, 6]]]


def test_patch_major_sets_take_every_nth_token():
    prefix, sets = TokenLayout(1, 2, 3, patch_major=True).split(torch.arange(7)[None], "tube")
    assert prefix.tolist() == [[0]]
    assert sets.tolist() == [[[1, 3, 5], [2, 4, 6]]]


@pytest.mark.parametrize("patch_major", [False, True])
def test_sets_along_time_are_the_places_of_the_grid(patch_major):
    layout = TokenLayout(1, 2, 3, patch_major)
    prefix, frames = layout.split(torch.arange(7)[None], "frame")
    assert torch.equal(layout.split(torch.arange(7)[None], "time")[0], prefix)
    assert torch.equal(layout.split(torch.arange(7)[None], "time")[1], frames.transpose(1, 2))


def test_merged_frames_leave_their_places():
    prefix, sets = TokenLayout(1, 4, 3).split(torch.arange(7)[None], "time")
    assert sets.tolist() == [[[1, 4], [2, 5], [3, 6]]]
    assert TokenLayout(1, 4, 3).join(prefix, sets, "time").tolist() == [[0, 1, 2, 3, 4, 5, 6]]


def test_a_clip_is_one_set_with_its_prefix():
    prefix, sets = TokenLayout(1, 2, 3, patch_major=True).split(torch.arange(7)[None], "clip")
    assert prefix is None
    assert sets.tolist() == [[[0, 1, 2, 3, 4, 5, 6]]]


@given(layout=LAYOUTS, scope=st.sampled_from(SCOPES), channels=st.booleans())
def test_join_undoes_split(layout, scope, channels):
    x = torch.randn((2, layout.num_tokens, 3) if channels else (2, layout.num_tokens))
    assert torch.equal(layout.join(*layout.split(x, scope), scope), x)


@given(layout=LAYOUTS, scope=st.sampled_from(SCOPES))
def test_sequence_index_says_where_join_puts_each_token(layout, scope):
    sequence = torch.arange(layout.num_tokens)[None]
    _, sets = layout.split(sequence, scope)
    positions = torch.arange(sets.shape[2]).expand_as(sets)
    assert torch.equal(layout.sequence_index(positions, sets.shape[2], scope), sets)


@given(layout=LAYOUTS, scope=st.sampled_from(SCOPES))
def test_sequence_index_leaves_dropped_tokens_dropped(layout, scope):
    _, sets = layout.split(torch.arange(layout.num_tokens)[None], scope)
    dropped = torch.full_like(sets, -1)
    assert torch.equal(layout.sequence_index(dropped, sets.shape[2], scope), dropped)


@given(layout=LAYOUTS, scope=st.sampled_from(SCOPES))
def test_set_size_and_sequence_length_agree_with_split(layout, scope):
    _, sets = layout.split(torch.zeros(1, layout.num_tokens), scope)
    tokens, protected = layout.set_size(scope)
    assert tokens == sets.shape[2]
    assert protected == (layout.num_prefix_tokens if scope == "clip" else 0)
    assert layout.num_sets(scope) == sets.shape[1]
    assert layout.sequence_length(tokens, scope) == layout.num_tokens


@given(layout=LAYOUTS, scope=st.sampled_from(SCOPES[1:]), left=st.integers(1, 6))
def test_the_grid_of_a_merged_sequence_has_fewer_frames_or_places(layout, scope, left):
    grid = (left, layout.num_patches) if scope == "time" else (layout.num_frames, left)
    assert layout.grid(layout.sequence_length(left, scope), scope) == grid


@pytest.mark.parametrize(("layout", "tokens"), [(TokenLayout(0, 8, 196), 1568), (TokenLayout(1, 16, 196), 3137)])
def test_num_tokens_counts_prefix_and_patches(layout, tokens):
    assert layout.num_tokens == tokens


@pytest.mark.parametrize("patch_major", [False, True])
@pytest.mark.parametrize("scope", ["tube", "time", "frame"])
def test_aligned_sets_are_the_sets_side_by_side(patch_major, scope):
    layout = TokenLayout(1, 2, 3, patch_major)
    x = torch.arange(2 * 7 * 4.0).view(2, 7, 4)
    assert layout.has_aligned_sets(scope) == (patch_major != (scope == "time"))
    if layout.has_aligned_sets(scope):
        prefix, rows = layout.split_aligned(x, scope)
        _, sets = layout.split(x, scope)
        assert torch.equal(rows[:, 0], sets.transpose(1, 2).flatten(2))
        assert torch.equal(layout.join_aligned(prefix, rows, scope), x)


def test_a_clip_has_no_aligned_sets():
    assert not TokenLayout(1, 2, 3).has_aligned_sets("clip")
