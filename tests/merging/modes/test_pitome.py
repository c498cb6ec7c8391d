"""`pitome`: energy, ranks and matching."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging.energy import energy, margin_of_layer
from hf_video_tome.merging.similarity import unit_vectors

from .one_layer import assign, check_partition, directions, draw, energies, groups, merged_into_nearest


def by_definition(keys: torch.Tensor, r: int, margin: float) -> list[list[int]]:
    vectors = keys.tolist()
    score = energies(vectors, margin)
    ranked = sorted(range(len(vectors)), key=lambda i: -score[i])
    return merged_into_nearest(vectors, ranked[: 2 * r : 2], ranked[1 : 2 * r : 2])


@given(num_tokens=st.integers(3, 14), seed=st.integers(0, 2**16), r=st.integers(1, 7), layer=st.integers(0, 3))
def test_it_is_the_definition(num_tokens: int, seed: int, r: int, layer: int) -> None:
    keys, r = draw(num_tokens, seed), min(r, num_tokens // 2)
    assignment = assign("pitome", keys, r, layer=layer, num_layers=4)
    check_partition(assignment, num_tokens, r)
    assert groups(assignment) == by_definition(keys, r, 0.9 - 0.9 * layer / 4)


@given(num_tokens=st.integers(3, 12), seed=st.integers(0, 2**16), protected=st.integers(1, 2))
def test_protected_tokens_are_out_of_it(num_tokens: int, seed: int, protected: int) -> None:
    keys = draw(num_tokens + protected, seed)
    r = num_tokens // 3
    assignment = assign("pitome", keys, r, num_protected=protected)
    check_partition(assignment, num_tokens + protected, r, protected)
    shifted = [[i + protected for i in group] for group in by_definition(keys[protected:], r, 0.9)]
    assert groups(assignment)[protected:] == shifted


def test_the_margin_falls_from_layer_to_layer() -> None:
    assert margin_of_layer(0, 12) == 0.9
    assert margin_of_layer(11, 12) == pytest.approx(0.075)


@pytest.mark.parametrize("r", [1, 2, 3])
def test_a_token_unlike_all_others_is_kept_while_there_are_others(r: int) -> None:
    assignment = assign("pitome", directions(0, 2, 90, 1, 3, 4, 5), r)
    assert [2] in groups(assignment)


def test_half_of_all_tokens_is_every_second_rank() -> None:
    keys = draw(10, 0)
    score = energies(keys.tolist(), 0.9)
    ranked = sorted(range(10), key=lambda i: -score[i])
    assert sorted(assign("pitome", keys, 5).moved[0, 0].tolist()) == sorted(ranked[::2])


def test_of_equal_tokens_the_first_merge_into_the_first() -> None:
    assert groups(assign("pitome", directions(*[0] * 6), 2)) == [[1, 0, 2], [3], [4], [5]]


def test_sets_that_share_an_assignment_are_compared_by_their_mean() -> None:
    keys = torch.stack((draw(8, 0), 100 * draw(8, 1)))
    joined = (keys / keys.norm(dim=-1, keepdim=True)).transpose(0, 1).flatten(1)
    assignment = assign("pitome", keys, 3, shared=True)
    assert assignment.slot.shape == (1, 1, 8)
    assert groups(assignment) == by_definition(joined, 3, 0.9)


@pytest.mark.parametrize("block_size", [1, 7, 50, 10**6])
def test_energy_in_blocks_is_energy(block_size: int) -> None:
    keys = torch.randn(3, 2, 9, 4, dtype=torch.float64)
    actual = energy(unit_vectors(keys), 0.3, block_size)
    expected = [[energies(vectors, 0.3) for vectors in clip] for clip in keys.tolist()]
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))
