"""`absorb`: which tokens go, and where to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import (
    MODES,
    AttentionStatistics,
    MergeSettings,
    SettingError,
    TokenLayout,
    Tokens,
    merge_tokens,
)

from .one_layer import assign, check_partition, directions, draw, energies, groups, merged_into_nearest

SCORES = ("energy", "norm", "attention", "random")


def absorb(keys: torch.Tensor, r: int, score: str, seed: int = 0, **context: Any) -> Any:
    states, queries = draw(len(keys), seed + 1), draw(len(keys), seed + 2)
    return assign(
        "absorb",
        keys,
        r,
        options={"score": score},
        hidden_states=states.view(1, 1, *states.shape),
        attention=AttentionStatistics(queries[None, None], keys[None, None], 1.0),
        generator=torch.Generator().manual_seed(seed),
        **context,
    )


def scores(keys: torch.Tensor, score: str, seed: int, first: int = 0) -> list[float]:
    """The score of each token after the first ones, straight from its definition."""
    if score == "energy":
        return [-value for value in energies(keys[first:].tolist(), 0.9)]
    if score == "norm":
        return draw(len(keys), seed + 1)[first:].norm(dim=-1).tolist()
    if score == "attention":
        weights = (draw(len(keys), seed + 2) @ keys.T).softmax(dim=-1)
        return weights.mean(dim=0)[first:].tolist()
    return torch.rand(len(keys) - first, dtype=keys.dtype, generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("score", SCORES)
@given(num_tokens=st.integers(3, 12), first=st.integers(0, 2), r=st.integers(1, 11), seed=st.integers(0, 2**16))
def test_it_is_the_definition(score: str, num_tokens: int, first: int, r: int, seed: int) -> None:
    keys, r = draw(first + num_tokens, seed), min(r, num_tokens - 1)
    assignment = absorb(keys, r, score, seed, num_protected=first)
    check_partition(assignment, first + num_tokens, r, first)
    values = scores(keys, score, seed, first)
    ranked = sorted(range(num_tokens), key=lambda i: values[i])
    expected = merged_into_nearest(keys[first:].tolist(), ranked[:r], ranked[r:])
    assert groups(assignment)[first:] == [[first + i for i in group] for group in expected]


@pytest.mark.parametrize("r", range(1, 7))
def test_a_token_unlike_all_others_is_the_last_to_go(r: int) -> None:
    assert 2 not in assign("absorb", directions(0, 2, 90, 1, 3, 4, 5), r).moved[0, 0].tolist()


def test_copies_in_the_largest_group_go_first() -> None:
    keys = directions(0, 90, 0, 180, 0, 90, 0)
    assert assign("absorb", keys, 3).moved[0, 0].tolist() == [0, 2, 4]
    assert groups(assign("absorb", keys, 3)) == [[1], [3], [5], [6, 0, 2, 4]]


@pytest.mark.parametrize("score", ["energy", "norm", "random"])
def test_all_but_one_leave_the_mean_of_all_by_size(score: str) -> None:
    x, size = torch.randn(1, 6, 3, dtype=torch.float64), torch.tensor([[1.0, 2.0, 3.0, 1.0, 5.0, 1.0]]).double()
    settings = MergeSettings("absorb", options={"score": score})
    merged, tokens = merge_tokens(x, x, 99, Tokens(size=size), TokenLayout(0, 2, 3), settings)
    torch.testing.assert_close(merged, (x * size.unsqueeze(-1)).sum(1, keepdim=True) / size.sum())
    assert tokens.size.tolist() == [[13.0]]


@pytest.mark.parametrize("scope", ["frame", "tube", "time"])
@pytest.mark.parametrize("score", ["energy", "norm", "random"])
def test_every_scope(scope: str, score: str) -> None:
    x, layout = torch.randn(2, 1 + 4 * 5, 3), TokenLayout(1, 4, 5)
    settings = MergeSettings("absorb", scope=scope, options={"score": score})
    merged, tokens = merge_tokens(x, x, 2, Tokens(), layout, settings)
    assert merged.shape[1] == 1 + (2 * 5 if scope == "time" else 4 * 3)
    assert tokens.size.sum(dim=1).tolist() == [21.0] * 2
    assert torch.equal(merged[:, 0], x[:, 0])


def test_norms_of_sets_that_share_an_assignment_are_averaged() -> None:
    keys, states = torch.stack((draw(6, 0), draw(6, 1))), torch.stack((draw(6, 2), draw(6, 3)))
    assignment = assign("absorb", keys, 2, shared=True, options={"score": "norm"}, hidden_states=states[None])
    expected = states.norm(dim=-1).mean(dim=0).argsort()[:2].sort().values
    assert assignment.moved[0, 0].tolist() == expected.tolist()


def test_it_reads_what_its_score_needs() -> None:
    reads = {score: MODES["absorb"].inputs({"score": score}) for score in SCORES}
    assert reads == {
        "energy": ("keys",),
        "norm": ("keys", "hidden_states"),
        "attention": ("keys", "attention"),
        "random": ("keys",),
    }


def test_other_scores_are_refused() -> None:
    with pytest.raises(SettingError, match=r"mode_options\['score'\] must be one of 'energy', 'norm'.*got 'size'"):
        MODES["absorb"].complete_options({"score": "size"})
