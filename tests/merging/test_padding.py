"""Clips of different lengths in one batch, groups that keep apart, and where tokens started."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import (
    MergeSettings,
    Plan,
    TokenLayout,
    Tokens,
    append_size_channel,
    assign_pairs,
    bipartite_soft_matching,
    cosine_matching,
    initial_tokens,
    is_real,
    mean_pool,
    merge_tokens,
    register_mode,
    size_bias,
)
from tests.toys import toy_methods

MODES = [("merge", None), ("drop", None), ("hybrid", 0.2)]


def padded(lengths: list[int], width: int, seed: int, track: bool = True) -> tuple[torch.Tensor, Tokens]:
    """Clips of these lengths with sizes from 1 to 3, padded by numbers that must not matter."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(len(lengths), width, 4, generator=generator, dtype=torch.float64)
    length = torch.tensor(lengths)
    size = torch.randint(1, 4, (len(lengths), width), generator=generator) * is_real(length, width)
    tokens = initial_tokens(len(lengths), width, torch.device("cpu"), track)
    index = torch.arange(width).expand(len(lengths), -1).where(is_real(length, width), -1)
    return x, tokens._replace(size=size.double(), length=length, index=index)


@given(
    lengths=st.lists(st.integers(3, 12), min_size=1, max_size=3),
    extra=st.integers(0, 4),
    r=st.integers(1, 8),
    num_prefix=st.integers(0, 3),
    mode=st.sampled_from(MODES),
    layers=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_each_clip_is_merged_as_if_it_were_alone(lengths, extra, r, num_prefix, mode, layers, seed):
    width = max(lengths) + extra
    layout, settings = TokenLayout(num_prefix, 1, width - num_prefix), MergeSettings(*mode)
    start, tokens = padded(lengths, width, seed)
    x = start
    alone = [
        (start[i : i + 1, :n], Tokens(tokens.size[i : i + 1, :n], tokens.source[i : i + 1, :n]))
        for i, n in enumerate(lengths)
    ]
    for _ in range(layers):
        x, tokens = merge_tokens(x, x, r, tokens, layout, settings)
        alone = [merge_tokens(y, y, r, own, layout, settings) for y, own in alone]
    for i, (y, own) in enumerate(alone):
        count = int(tokens.length[i])
        assert count == y.shape[1]
        torch.testing.assert_close(x[i, :count], y[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(tokens.size[i, :count], own.size[0], rtol=0, atol=0)
        assert torch.equal(tokens.source[i, : lengths[i]], own.source[0])
        assert not tokens.size[i, count:].any()
        assert x is start or not x[i, count:].any()  # where no layer can remove anything, all comes back as it was
        assert (tokens.index[i, count:] == -1).all()


@given(lengths=st.lists(st.integers(3, 12), min_size=1, max_size=3), seed=st.integers(0, 10**6))
def test_where_tokens_started_is_where_their_owners_did(lengths, seed):
    width = max(lengths)
    x, tokens = padded(lengths, width, seed)
    for _ in range(3):
        x, tokens = merge_tokens(x, x, 2, tokens, TokenLayout(0, 1, width), MergeSettings())
    for i, count in enumerate(tokens.length.tolist()):
        assert torch.equal(tokens.source[i][tokens.index[i, :count]], torch.arange(count))


@pytest.mark.parametrize("mode", ["above", "drop_above"])
@pytest.mark.parametrize("scope", ["clip", "tube", "time"])
def test_an_adaptive_mode_leaves_as_many_tokens_as_each_clip_needs(mode, scope):
    torch.manual_seed(0)
    layout = TokenLayout(1, 4, 6)
    x = torch.randn(3, layout.num_tokens, 4, dtype=torch.float64)
    x[0] = x[0, :1] + 0.1 * x[0]
    settings = MergeSettings(mode, threshold=0.5, scope=scope)
    with toy_methods():
        tokens = initial_tokens(3, layout.num_tokens, x.device, track=True)
        together, after = merge_tokens(x, x, 10**6, tokens, layout, settings)
        assert len(set(after.length.tolist())) > 1
        for i in range(3):
            own = initial_tokens(1, layout.num_tokens, x.device, track=True)
            alone, own = merge_tokens(x[i : i + 1], x[i : i + 1], 10**6, own, layout, settings)
            real = after.size[i] > 0
            torch.testing.assert_close(together[i, real], alone[0], rtol=0, atol=1e-12)
            torch.testing.assert_close(after.size[i, real], own.size[0])


@given(
    num_tokens=st.integers(2, 14),
    groups=st.integers(1, 3),
    r=st.integers(1, 7),
    shared=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_pairs_cross_a_border_only_when_none_inside_is_left(num_tokens, groups, r, shared, seed):
    generator = torch.Generator().manual_seed(seed)
    metric = torch.randn(2, 2, num_tokens, 3, generator=generator, dtype=torch.float64)
    group = torch.randint(groups, (2, 1, num_tokens), generator=generator).expand(-1, 2, -1)
    matching = cosine_matching(metric, r, shared=shared, group=group)
    group = group[:, : matching.source.shape[1]]
    crosses = group.gather(-1, matching.source) != group.gather(-1, matching.destination)
    # Pairs inside come first, and a token that crosses has no partner at home.
    assert torch.equal(crosses, crosses.sort(dim=-1).values)
    for clip, matched_set, pair in crosses.nonzero().tolist():
        own = group[clip, matched_set]
        assert own[matching.source[clip, matched_set, pair]] not in own[1::2]
    unit = torch.nn.functional.normalize(metric, dim=-1)
    similarity = unit @ unit.transpose(-1, -2)
    similarity = similarity.mean(dim=1, keepdim=True) if shared else similarity
    rows = similarity.gather(2, matching.source.unsqueeze(-1).expand(*matching.source.shape, num_tokens))
    torch.testing.assert_close(matching.score, rows.gather(-1, matching.destination.unsqueeze(-1)).squeeze(-1))


class TestSizeZero:
    def test_its_bias_is_finite_and_its_weight_is_zero(self):
        size = torch.tensor([[1.0, 0.0, 3.0]])
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            bias = size_bias(size, dtype)
            assert bias.isfinite().all()
            assert bias.softmax(dim=-1)[0, 0, 0, 1] == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_also_as_a_channel(self, dtype):
        torch.manual_seed(0)
        query, key, value = torch.randn(3, 1, 2, 5, 16).to(dtype)
        size = torch.tensor([[1.0, 2.0, 0.0, 1.0, 0.0]])
        q, k, v = append_size_channel(query, key, value, size, 0.25)
        context = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.25)[..., :16]
        real = size[0] > 0
        q, k, v = append_size_channel(query, key[:, :, real], value[:, :, real], size[:, real], 0.25)
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=0.25)[..., :16]
        torch.testing.assert_close(context, expected)

    def test_pooling_does_not_count_it(self):
        x = torch.tensor([[[1.0], [4.0], [100.0]]])
        assert mean_pool(x, torch.tensor([[2.0, 1.0, 0.0]])).item() == 2.0


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 0, 0, 0]])
def test_with_a_threshold_pairs_above_it_are_made_and_no_others(groups):
    unit = torch.tensor([[1.0, 0.0], [0.95, 0.3], [0.0, 1.0], [0.98, 0.2], [1.0, 0.1], [0.99, 0.11]])
    group = None if groups is None else torch.tensor(groups).view(1, 1, -1)
    matching = cosine_matching(unit.view(1, 1, 6, 2).double(), 3, group=group, threshold=0.5)
    made = matching.score[matching.is_pair]
    assert len(made) == int(matching.num_kept.new_tensor(6) - matching.num_kept)
    assert (made > 0.5).all()
    assert (matching.score[~matching.is_pair] <= 0.5).all()


def test_an_adaptive_mode_is_asked_in_every_layer():
    """A clip may become redundant late: earlier layers may have left everything."""
    with toy_methods():
        plan = Plan([16] * 8, TokenLayout(0, 2, 16), MergeSettings("above", threshold=0.9))
        assert plan.removals() == [16] * 8
        assert plan.token_counts() == [32] * 9


def heedless(context):
    scores = context.keys[..., ::2, :] @ context.keys[..., 1::2, :].transpose(-1, -2)
    return assign_pairs(bipartite_soft_matching(scores, context.r))


@pytest.mark.parametrize("lengths", [[5, 8], [8, 3, 2], [7, 7], [1, 8]])
def test_a_mode_that_does_not_heed_padding_gets_each_clip_alone(lengths):
    register_mode("heedless")(heedless)
    x, tokens = padded(lengths, 8, seed=0)
    merged, after = merge_tokens(x, x, 3, tokens, TokenLayout(0, 1, 8), MergeSettings("heedless"))
    for i, n in enumerate(lengths):
        own = Tokens(tokens.size[i : i + 1, :n], tokens.source[i : i + 1, :n])
        alone, own = merge_tokens(
            x[i : i + 1, :n], x[i : i + 1, :n], 3, own, TokenLayout(0, 1, n), MergeSettings("heedless")
        )
        count = int(after.length[i])
        assert count == alone.shape[1]
        assert torch.equal(merged[i, :count], alone[0])
        assert torch.equal(after.size[i, :count], own.size[0])
        assert torch.equal(after.source[i, :n], own.source[0])
        assert not after.size[i, count:].any()
        assert not merged[i, count:].any()


def test_a_mode_that_only_says_that_it_heeds_padding_is_refused():
    register_mode("heedless", handles_padding=True)(heedless)
    x, tokens = padded([5, 8], 8, seed=0)
    with pytest.raises(ValueError, match="'heedless' must set num_slots for each clip of a padded batch"):
        merge_tokens(x, x, 2, tokens, TokenLayout(0, 1, 8), MergeSettings("heedless"))
