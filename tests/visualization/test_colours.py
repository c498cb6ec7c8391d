"""Colours: one for each token, stable over time and layers, unlike those of the neighbours."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.visualization.colours import are_shared, token_colours


def random_layers(seed: int, drop: bool) -> list[np.ndarray]:
    """Maps of 4 layers of 3 slots of 4 x 5 patches, each joining (and dropping) tokens of the one before."""
    rng = np.random.default_rng(seed)
    maps = [np.arange(60).reshape(3, 4, 5)]
    for tokens in (30, 14, 6):
        before = maps[-1]
        parents = rng.permutation(np.arange(before.max() + 1) % tokens)
        if drop:
            parents[rng.random(len(parents)) < 0.2] = -1
            kept = np.unique(parents[parents >= 0])
            parents = np.where(parents < 0, -1, np.searchsorted(kept, parents))
        maps.append(np.where(before < 0, -1, parents[before]))
    return maps


@given(seed=st.integers(0, 10_000), drop=st.booleans())
def test_each_token_has_a_colour_of_its_own(seed: int, drop: bool) -> None:
    maps = random_layers(seed, drop)
    for tokens, colours in zip(maps, token_colours(maps), strict=True):
        held = np.unique(tokens[tokens >= 0])
        assert colours.shape == (held.max() + 1, 3)
        assert colours.dtype == np.uint8
        assert len(np.unique(colours[held], axis=0)) == len(held)


@given(seed=st.integers(0, 10_000), drop=st.booleans())
def test_a_group_keeps_the_colour_of_its_largest_part(seed: int, drop: bool) -> None:
    maps = random_layers(seed, drop)
    colours = token_colours(maps)
    for (before, after), (first, last) in zip(pairwise(maps), pairwise(colours), strict=True):
        for group in range(after.max() + 1):
            parts, areas = np.unique(before[after == group], return_counts=True)
            kept = [part for part in parts if (first[part] == last[group]).all()]
            assert len(kept) == 1
            assert areas[parts == kept[0]] == areas.max()


def test_neighbours_are_easy_to_tell_apart() -> None:
    tokens = np.arange(8 * 14 * 14).reshape(8, 14, 14)
    (colours,) = token_colours([tokens])
    picture = colours[tokens].astype(int)
    for axis in range(3):
        difference = np.abs(np.diff(picture, axis=axis)).max(axis=-1)
        assert difference.min() >= 60


def test_few_tokens_are_easy_to_tell_apart_wherever_they_are() -> None:
    """Five tokens that do not touch, in a sea of patches."""
    tokens = np.arange(100).reshape(1, 10, 10) + 5
    for number, (row, column) in enumerate([(0, 0), (0, 7), (4, 4), (7, 0), (7, 7)]):
        tokens[0, row : row + 3, column : column + 3] = number
    (colours,) = token_colours([tokens])
    difference = np.abs(colours[:5, None].astype(int) - colours[None, :5]).max(axis=-1)
    assert difference[np.triu_indices(5, 1)].min() >= 120


def test_a_token_that_holds_no_place_has_no_colour() -> None:
    (colours,) = token_colours([np.array([[[1, 3]]])])
    assert (colours[[0, 2]] == 0).all()
    assert (colours[[1, 3]] > 0).any(axis=1).all()


def test_frames_that_one_matching_divides_alike_share_colours() -> None:
    tube = np.array([[[0, 0, 1]], [[3, 3, 2]], [[4, 4, 5]]])
    (colours,) = token_colours([tube])
    assert (colours[[0, 3, 4]] == colours[0]).all()
    assert (colours[[1, 2, 5]] == colours[1]).all()
    assert (colours[0] != colours[1]).any()


@pytest.mark.parametrize(
    ("tokens", "shared"),
    [
        ([[[0, 0, 1]], [[2, 2, 3]]], True),
        ([[[0, 1, 2]], [[3, 4, 5]]], False),  # nothing was merged
        ([[[0, 0, 1]], [[2, 3, 3]]], False),  # divided in another way
        ([[[0, 0, 1]], [[2, 2, 2]]], False),
        ([[[0, 0, 1]], [[2, 2, 1]]], False),  # a token in two frames
        ([[[0, -1, 1]], [[2, -1, 3]]], True),
        ([[[0, -1, 1]], [[2, 3, -1]]], False),  # other places dropped
    ],
)
def test_shared_matchings_are_recognised(tokens: list[list[list[int]]], shared: bool) -> None:
    assert are_shared([np.array(tokens)]) is shared


def test_colours_are_the_same_in_every_run() -> None:
    maps = random_layers(0, drop=True)
    for first, second in zip(token_colours(maps), token_colours(maps), strict=True):
        np.testing.assert_array_equal(first, second)
