"""What merged tokens have in common, and what chance would give: the latter against all permutations there are."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from hf_video_tome.analysis import partner_means, random_partner_mean
from hf_video_tome.analysis.estimates import Estimate, estimate
from hf_video_tome.analysis.partners import matched_sets, partner_mean
from hf_video_tome.merging import TokenLayout


def pair_values(count: int) -> np.ndarray:
    values = np.random.default_rng(0).random((count, count))
    return values + values.T


def test_every_merged_token_counts_once_whatever_the_size_of_its_group() -> None:
    values = np.zeros((6, 6))
    values[0, 1] = values[1, 0] = 6.0  # one pair of a group of three
    means = partner_means([4, 4, 4, 7, 7, 9], values)
    assert means[:5].tolist() == [3.0, 3.0, 0.0, 0.0, 0.0]
    assert np.isnan(means[5])
    assert partner_mean([4, 4, 4, 7, 7, 9], values) == pytest.approx(6 / 5)


def test_dropped_tokens_have_no_partners() -> None:
    assert np.isnan(partner_means([-1, -1, 0], np.ones((3, 3)))).all()
    assert np.isnan(partner_mean([-1, -1, 0], np.ones((3, 3))))
    assert np.isnan(random_partner_mean([-1, -1, 0], [0, 0, 0], np.ones((3, 3))))


@pytest.mark.parametrize("groups", [[0, 0, 1, 2, 3], [0, 0, 0, 1, 1], [0, 0, 0, 0, -1], [2, 0, 2, 0, 2]])
def test_the_random_mean_is_that_over_all_permutations(groups: list[int]) -> None:
    values = pair_values(5)
    every = [partner_mean([groups[place] for place in order], values) for order in permutations(range(5))]
    assert random_partner_mean(groups, [0] * 5, values) == pytest.approx(np.mean(every))


def test_the_random_mean_stays_inside_the_matched_sets() -> None:
    groups, sets, values = [0, 0, 1, 2, 2, 2, 3], [0, 0, 0, 1, 1, 1, 1], pair_values(7)
    every = [
        partner_mean([groups[place] for place in (*first, *second)], values)
        for first, second in product(permutations(range(3)), permutations(range(3, 7)))
    ]
    assert random_partner_mean(groups, sets, values) == pytest.approx(np.mean(every))
    assert random_partner_mean(groups, sets, values) != pytest.approx(random_partner_mean(groups, [0] * 7, values))


def test_matched_sets_are_those_of_the_scope() -> None:
    layout = TokenLayout(1, num_frames=2, num_patches=2)
    assert matched_sets(layout, "clip").tolist() == [[0, 0], [0, 0]]
    assert matched_sets(layout, "frame").tolist() == [[0, 0], [1, 1]]
    assert matched_sets(layout, "time").tolist() == [[0, 1], [0, 1]]


def test_an_estimate_leaves_out_clips_without_a_value() -> None:
    assert estimate([2.0, np.nan]) == Estimate(2.0, None, 1)
    assert estimate([np.nan]) == Estimate(None, None, 0)
