"""`representation_shift`: the tokens that the MLP changes most stay."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification, mac_count, token_counts
from hf_video_tome.merging import MODES, Assignment, Context, MergeSettings, Step, TokenLayout, Tokens

Mlp = Callable[[Tensor], Tensor]


def assign(
    states: Tensor, mlp: Mlp, r: int, prefix: int = 0, shift: str = "update", shared: bool = False
) -> Assignment:
    """States (S, N, C) of one clip."""
    context = Context(
        states[None],
        Tokens(),
        TokenLayout(prefix, 1, states.shape[1] - prefix),
        r,
        states[None],
        num_protected=prefix,
        options={"shift": shift},
        mlp=mlp,
        shared=shared,
    )
    return MODES["representation_shift"].assign(context)


@given(
    seed=st.integers(0, 2**32 - 1),
    num_tokens=st.integers(2, 9),
    prefix=st.integers(0, 1),
    shift=st.sampled_from(["update", "branch"]),
    data=st.data(),
)
def test_exactly_the_largest_shifts_stay_in_order(
    seed: int, num_tokens: int, prefix: int, shift: str, data: st.DataObject
) -> None:
    r = data.draw(st.integers(1, num_tokens - 1))
    generator = torch.Generator().manual_seed(seed)
    states = torch.randint(-2, 3, (2, prefix + num_tokens, 3), generator=generator).double()  # with ties
    matrix = torch.randint(-2, 3, (3, 3), generator=generator).double()
    assignment = assign(states, lambda x: x @ matrix, r, prefix, shift)
    for index, tokens in enumerate(states):
        changes = {}
        for i, x in enumerate(tokens[prefix:].tolist()):
            branch = [sum(a * b for a, b in zip(x, column, strict=True)) for column in matrix.T.tolist()]
            old = [0.0] * 3 if shift == "update" else x
            changes[prefix + i] = math.hypot(*(a - b for a, b in zip(branch, old, strict=True)))
        kept = sorted(sorted(changes, key=lambda i: -changes[i])[: num_tokens - r])
        owner, slot = assignment.owner[0, index], assignment.slot[0, index]
        assert owner.tolist() == [*range(prefix), *kept]
        assert torch.equal(slot[owner], torch.arange(len(owner)))
        assert (slot[assignment.moved[0, index]] == -1).all()
    assert (assignment.content, assignment.sizes) == ("owner", "owner")


@pytest.mark.parametrize("shift", ["update", "branch"])
def test_tokens_that_do_not_change_go_first(shift: str) -> None:
    unchanged = torch.tensor([False, True, False, True])[:, None]

    def mlp(x: Tensor) -> Tensor:  # the branch gives the token itself, or nothing is added to it
        return torch.where(unchanged, x if shift == "branch" else 0 * x, x + 9)

    assert assign(torch.ones(1, 4, 2), mlp, 2, shift=shift).moved.tolist() == [[[1, 3]]]


def test_sets_with_one_assignment_go_by_their_mean() -> None:
    states = torch.tensor([[[5.0], [1.0], [3.0]], [[1.0], [1.0], [4.0]]])
    assert assign(states, lambda x: x, 1, shared=True).owner.tolist() == [[[0, 2]]]
    assert assign(states, lambda x: x, 2, shared=True).owner.tolist() == [[[2]]]


def test_one_token_is_left_at_least() -> None:
    fields = {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 2}
    fields |= {"num_attention_heads": 4, "intermediate_size": 48, "token_merging_mode": "representation_shift"}
    config = VideoMAEConfig(**fields, token_merging_r=10**6)
    assert token_counts(config) == [32, 1, 1]
    assert VideoMAEForVideoClassification(config).eval()(torch.randn(1, 4, 3, 32, 32)).logits.isfinite().all()
    assert token_counts(VideoMAEConfig(**fields, token_merging_r=[0.75])) == [32, 8, 8]


def test_the_mlp_on_all_tokens_is_counted() -> None:
    fields = {"image_size": 32, "patch_size": 8, "num_frames": 4, "hidden_size": 32, "num_hidden_layers": 1}
    fields |= {"num_attention_heads": 4, "intermediate_size": 48, "token_merging_mode": "representation_shift"}
    [layer] = mac_count(VideoMAEConfig(**fields, token_merging_r=8)).layers
    assert (layer.matching, layer.mlp) == (2 * 32 * 32 * 48, 2 * 24 * 32 * 48)


def test_without_a_layer_there_is_no_mlp() -> None:
    step = Step(1, Tokens(), TokenLayout(0, 1, 4), MergeSettings(mode="representation_shift"))
    with pytest.raises(ValueError, match=r"'representation_shift' reads mlp of the layer"):
        step.reduce(torch.randn(1, 4, 3), torch.randn(1, 4, 3))
