"""Contents of slots: means by size, on every device alike, and means with the norm of the longest token."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome.merging import Assignment, Tokens, merge_sizes, merge_states, reduce_tokens
from hf_video_tome.merging.assignment import assign_heirs
from hf_video_tome.merging.layout import TokenLayout
from hf_video_tome.merging.slot_means import merge_states_with_norm


def preserving(x: Tensor, heir: list[int], size: list[float] | None = None) -> Tensor:
    assignment = assign_heirs(torch.tensor([[heir]]), len(set(heir)))
    sizes = None if size is None else torch.tensor([[size]], dtype=x.dtype)
    _, weight = merge_sizes(sizes, assignment, x.dtype)
    return merge_states_with_norm(x.view(1, 1, *x.shape), weight, assignment)[0, 0]


class TestMeanThatPreservesNorms:
    def test_a_token_alone_is_unchanged(self) -> None:
        x = torch.randn(5, 3)
        assert torch.equal(preserving(x, [0, 1, 2, 3, 1])[[0, 2, 3]], x[[0, 2, 3]])

    def test_equal_tokens_are_unchanged(self) -> None:
        x = torch.randn(1, 3, dtype=torch.float64).expand(4, 3)
        torch.testing.assert_close(preserving(x, [0, 0, 0, 0], [1, 5, 2, 3]), x[:1])

    def test_opposite_tokens_leave_their_owner(self) -> None:
        x = torch.tensor([[-1.0, 2.0], [1.0, -2.0], [3.0, 0.0]])
        assert preserving(x, [1, 1, 2]).tolist() == [[1.0, -2.0], [3.0, 0.0]]

    @given(seed=st.integers(0, 2**16), num_tokens=st.integers(1, 12))
    def test_it_is_the_mean_by_size_at_the_length_of_the_longest(self, seed: int, num_tokens: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(num_tokens, 3, generator=generator, dtype=torch.float64)
        size = torch.randint(1, 5, (num_tokens,), generator=generator).double()
        owners = torch.randint(0, num_tokens, (num_tokens,), generator=generator)
        heir = [position if position in owners else int(owners[position]) for position in range(num_tokens)]
        result = preserving(x, heir, size.tolist())
        for slot, owner in enumerate(sorted(set(heir))):
            members = [position for position in range(num_tokens) if heir[position] == owner]
            mean = sum(size[i] * x[i] for i in members) / sum(size[i] for i in members)
            longest = max(float(x[i].norm()) for i in members)
            torch.testing.assert_close(result[slot], mean / mean.norm() * longest)

    def test_its_gradient_is_that_of_the_formula(self) -> None:
        x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: preserving(x, [0, 1, 0, 1, 1], [1, 2, 3, 1, 1]), (x,))

    def test_sizes_and_positions_are_those_of_the_plain_mean(self) -> None:
        assignment = assign_heirs(torch.tensor([[[0, 1, 0, 0]]]), 2)
        layout, position = TokenLayout(0, 1, 4), torch.arange(4.0).view(1, 4, 1)
        plain, kept = (
            reduce_tokens(
                assignment._replace(content=content),
                Tokens(position=position),
                layout,
                "clip",
                torch.float32,
                "centroid",
            ).tokens
            for content in ("mean", "norm_preserving")
        )
        assert torch.equal(plain.size, kept.size)
        assert torch.equal(plain.position, kept.position)


def fixed() -> Assignment:
    return assign_heirs(torch.tensor([[[0, 0, 0, 3, 3]], [[0, 1, 1, 1, 0]]]), 2)


def padded() -> Assignment:
    """A clip with two slots next to one with four: a token that merged is listed as owner of an empty slot."""
    return assign_heirs(torch.tensor([[[0, 0, 0, 3, 3]], [[0, 1, 2, 3, 3]]])).without_empty_slots("")


@pytest.mark.parametrize("assignment", [fixed(), padded()], ids=["fixed", "padded"])
def test_other_devices_than_cpus_compute_the_same(assignment: Assignment) -> None:
    x = torch.randn(2, 1, 5, 3, dtype=torch.float64)
    _, weight = merge_sizes(None, assignment, x.dtype)
    expected = merge_states(x, weight, assignment)
    with mock.patch("torch.jit.is_tracing", return_value=True):  # takes their path
        torch.testing.assert_close(merge_states(x, weight, assignment), expected)
