"""What is remembered of a forward call, and how merged tokens go back to their places."""

from __future__ import annotations

import pytest
import torch

from hf_video_tome.merging import TokenMergingTrace, Tokens, build_trace, initial_tokens, unmerge


def _trace() -> TokenMergingTrace:
    return TokenMergingTrace(
        layer_sources=(torch.tensor([[0, 1, 2, 3]]), torch.tensor([[0, 1, 0, -1]])),
        layer_sizes=(torch.ones(1, 4), torch.tensor([[2.0, 1.0]])),
    )


def test_unmerge_gives_every_original_token_the_value_of_its_holder():
    x = torch.tensor([[[1.0, 10.0], [2.0, 20.0]]])
    source = torch.tensor([[1, 0, 1]])
    assert unmerge(x, source).tolist() == [[[2.0, 20.0], [1.0, 10.0], [2.0, 20.0]]]


def test_unmerge_fills_dropped_tokens():
    assert unmerge(torch.tensor([[5.0]]), torch.tensor([[0, -1]])).tolist() == [[5.0, 0.0]]
    assert unmerge(torch.tensor([[5.0]]), torch.tensor([[0, -1]]), fill_value=-7).tolist() == [[5.0, -7.0]]


@pytest.mark.parametrize("trailing", [(), (3,), (3, 2)])
def test_unmerge_takes_values_of_any_shape(trailing):
    assert unmerge(torch.randn(2, 4, *trailing), torch.zeros(2, 9, dtype=torch.int64)).shape == (2, 9, *trailing)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_unmerge_keeps_the_dtype(dtype):
    assert unmerge(torch.ones(1, 2, dtype=dtype), torch.tensor([[0, -1]])).dtype == dtype


def test_unmerge_is_differentiable():
    x = torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: unmerge(value, torch.tensor([[1, 1, 0, -1]])), x)


def test_a_trace_finds_the_layer_by_its_number_of_tokens():
    trace = _trace()
    assert trace.unmerge(torch.tensor([[5.0, 7.0]])).tolist() == [[5.0, 7.0, 5.0, 0.0]]
    assert trace.unmerge(torch.tensor([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_a_trace_refuses_a_number_of_tokens_that_no_layer_has():
    with pytest.raises(ValueError, match=r"\[2, 4\] tokens.*got 3"):
        _trace().unmerge(torch.zeros(1, 3))


def test_a_trace_knows_its_last_layer_and_its_counts():
    trace = _trace()
    assert trace.sources.tolist() == [[0, 1, 0, -1]]
    assert trace.sizes.tolist() == [[2.0, 1.0]]
    assert trace.token_counts == (4, 2)


def test_nothing_is_tracked_unless_asked_for():
    assert initial_tokens(2, 5, torch.device("cpu"), track=False) == Tokens(None, None)
    assert initial_tokens(2, 5, torch.device("cpu"), track=True).source.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_a_trace_of_untracked_states_is_refused():
    with pytest.raises(ValueError, match="tracked"):
        build_trace([Tokens()], [4], torch.float32)


def test_while_nothing_is_merged_sizes_are_one():
    trace = build_trace([initial_tokens(2, 3, torch.device("cpu"), track=True)], [3], torch.float32)
    assert torch.equal(trace.sizes, torch.ones(2, 3))
