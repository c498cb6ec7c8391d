"""A token that stands for s tokens weighs like s equal tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import append_size_channel, size_bias


def attention(query, key, value, scaling, bias=None):
    logits = scaling * query @ key.transpose(-1, -2)
    return (logits if bias is None else logits + bias).softmax(-1) @ value


def _draw(num_tokens: int, head_dim: int, seed: int = 0, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, num_tokens, head_dim, generator=generator, dtype=dtype) for _ in range(3)]


def test_a_token_of_size_three_weighs_like_three_equal_tokens():
    query, key, value = _draw(4, 8)
    size = torch.tensor([[1.0, 3.0, 1.0, 1.0]] * 2, dtype=torch.float64)
    repeat = torch.tensor([0, 1, 1, 1, 2, 3])
    expected = attention(query, key[:, :, repeat], value[:, :, repeat], 0.3)
    torch.testing.assert_close(attention(query, key, value, 0.3, size_bias(size, torch.float64)), expected)


@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=7), seed=st.integers(0, 2**16))
def test_the_bias_equals_repeating_every_token(sizes, seed):
    query, key, value = _draw(len(sizes), 4, seed)
    repeat = torch.tensor([token for token, size in enumerate(sizes) for _ in range(size)])
    size = torch.tensor([sizes] * 2, dtype=torch.float64)
    torch.testing.assert_close(
        attention(query, key, value, 0.5, size_bias(size, torch.float64)),
        attention(query, key[:, :, repeat], value[:, :, repeat], 0.5),
    )


def test_sizes_of_one_add_nothing():
    assert torch.equal(size_bias(torch.ones(2, 5), torch.float32), torch.zeros(2, 1, 1, 5))


def test_the_bias_is_one_row_per_sample_in_the_dtype_of_the_queries():
    bias = size_bias(torch.tensor([[1.0, 2.0], [4.0, 1.0]]), torch.bfloat16)
    assert bias.shape == (2, 1, 1, 2)
    assert bias.dtype == torch.bfloat16


@given(
    num_tokens=st.integers(1, 9),
    head_dim=st.sampled_from([1, 4, 7, 8, 16]),
    scaling=st.floats(0.05, 2),
    seed=st.integers(0, 2**16),
)
def test_the_extra_channel_equals_the_bias(num_tokens, head_dim, scaling, seed):
    query, key, value = _draw(num_tokens, head_dim, seed)
    size = torch.randint(1, 9, (2, num_tokens), generator=torch.Generator().manual_seed(seed)).double()
    longer = append_size_channel(query, key, value, size, scaling)
    output = attention(*longer, scaling)
    torch.testing.assert_close(
        output[..., :head_dim], attention(query, key, value, scaling, size_bias(size, torch.float64))
    )
    assert (output[..., head_dim:] == 0).all()


@pytest.mark.parametrize(("head_dim", "padded"), [(1, 8), (6, 8), (7, 16), (8, 16), (64, 72), (80, 88)])
def test_the_head_dimension_grows_to_the_next_multiple_of_eight(head_dim, padded):
    query, key, value = _draw(3, head_dim, dtype=torch.float16)
    for tensor in append_size_channel(query, key, value, torch.ones(2, 3), 0.5):
        assert tensor.shape == (2, 3, 3, padded)
        assert tensor.dtype == torch.float16


def test_gradients_reach_queries_keys_and_values_through_the_extra_channel():
    tensors = [tensor[:1, :1].requires_grad_() for tensor in _draw(3, 2)]
    size = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: attention(*append_size_channel(q, k, v, size, 0.7), 0.7), tensors)
