"""Which token is merged into which."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.benchmark import peak_memory
from hf_video_tome.merging import (
    MODES,
    Context,
    TokenLayout,
    Tokens,
    aggregate_heads,
    bipartite_soft_matching,
    cosine_matching,
    cosine_scores,
    max_removable,
    random_matching,
    random_scores,
)

from . import reference
from .mode_families import ALL_MODES


def _metric(batch: int, sets: int, num_tokens: int, dim: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        batch, sets, num_tokens, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


class TestScores:
    def test_even_tokens_are_compared_with_odd_ones_by_their_cosine(self):
        metric = _metric(2, 3, 7)
        scores = cosine_scores(metric)
        assert scores.shape == (2, 3, 4, 3)
        for b in range(2):
            for s in range(3):
                expected = torch.tensor(reference.score_matrix(metric[b, s].tolist()), dtype=torch.float64)
                torch.testing.assert_close(scores[b, s], expected)

    def test_shared_scores_are_the_mean_over_the_sets(self):
        metric = _metric(2, 3, 6)
        torch.testing.assert_close(cosine_scores(metric, shared=True), cosine_scores(metric).mean(1, keepdim=True))

    def test_the_length_of_the_vectors_does_not_count(self):
        metric = _metric(1, 1, 8)
        longer = metric * torch.rand(1, 1, 8, 1, dtype=torch.float64).add(0.1)
        torch.testing.assert_close(cosine_scores(metric), cosine_scores(longer))

    def test_a_zero_vector_is_like_nothing_rather_than_nan(self):
        metric = _metric(1, 1, 4)
        metric[0, 0, 2] = 0
        scores = cosine_scores(metric)
        assert scores.isfinite().all()
        assert scores[0, 0, 1].tolist() == [0.0, 0.0]

    def test_autocast_does_not_lower_their_precision(self):
        metric = _metric(1, 1, 8).float()
        with torch.autocast("cpu", torch.bfloat16):
            scores = cosine_scores(metric)
        assert scores.dtype == torch.float32
        assert torch.equal(scores, cosine_scores(metric))

    @pytest.mark.parametrize(("shared", "sets"), [(False, 3), (True, 1)])
    def test_random_scores_have_the_same_shape_and_follow_their_generator(self, shared, sets):
        metric = _metric(2, 3, 7)
        first, again = (random_scores(metric, shared, torch.Generator().manual_seed(4)) for _ in range(2))
        assert first.shape == (2, sets, 4, 3)
        assert torch.equal(first, again)
        assert first.min() >= 0
        assert first.max() < 1
        assert not torch.equal(first, random_scores(metric, shared, torch.Generator().manual_seed(5)))

    def test_random_scores_take_the_global_generator_without_one(self):
        metric = _metric(1, 1, 8)
        torch.manual_seed(3)
        first = random_scores(metric)
        torch.manual_seed(3)
        assert torch.equal(first, random_scores(metric))


class TestAggregateHeads:
    keys = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))

    def test_mean_averages_the_heads(self):
        torch.testing.assert_close(
            aggregate_heads(self.keys, "mean"), torch.stack([self.keys[:, head] for head in range(3)]).mean(0)
        )

    def test_concat_lines_the_heads_up(self):
        expected = torch.cat([self.keys[:, head] for head in range(3)], dim=-1)
        assert torch.equal(aggregate_heads(self.keys, "concat"), expected)

    @pytest.mark.parametrize("aggregation", ["mean", "concat"])
    @pytest.mark.parametrize(
        ("dtype", "expected"),
        [
            (torch.bfloat16, torch.float32),
            (torch.float16, torch.float32),
            (torch.float32, torch.float32),
            (torch.float64, torch.float64),
        ],
    )
    def test_the_metric_has_at_least_float32_and_no_gradient(self, aggregation, dtype, expected):
        metric = aggregate_heads(self.keys.to(dtype).requires_grad_(), aggregation)
        assert metric.dtype == expected
        assert not metric.requires_grad


class TestBipartiteSoftMatching:
    @given(num_tokens=st.integers(2, 21), r=st.integers(0, 15), protect=st.booleans(), seed=st.integers(0, 2**16))
    def test_equals_brute_force(self, num_tokens, r, protect, seed):
        metric = _metric(2, 2, num_tokens, seed=seed)
        matching = bipartite_soft_matching(cosine_scores(metric), r, int(protect))
        for b in range(2):
            for s in range(2):
                scores = reference.score_matrix(metric[b, s].tolist())
                pairs, kept = reference.match(scores, num_tokens, r, protect)
                assert matching.kept[b, s].tolist() == kept
                assert matching.source[b, s].tolist() == list(pairs)
                assert matching.destination[b, s].tolist() == [destination for destination, _ in pairs.values()]
                assert matching.score[b, s].tolist() == pytest.approx([score for _, score in pairs.values()])

    @given(num_tokens=st.integers(2, 30), r=st.integers(0, 40), protect=st.booleans(), seed=st.integers(0, 2**16))
    def test_every_token_is_either_source_or_kept(self, num_tokens, r, protect, seed):
        matching = bipartite_soft_matching(cosine_scores(_metric(1, 1, num_tokens, seed=seed)), r, int(protect))
        source, kept = matching.source[0, 0].tolist(), matching.kept[0, 0].tolist()
        assert sorted(source + kept) == list(range(num_tokens))
        assert len(source) == min(r, max_removable(num_tokens, int(protect)))
        assert set(matching.destination[0, 0].tolist()) <= set(kept)

    @given(num_tokens=st.integers(2, 30), r=st.integers(0, 40), seed=st.integers(0, 2**16))
    def test_a_protected_first_token_is_neither_source_nor_destination_and_stays_first(self, num_tokens, r, seed):
        matching = bipartite_soft_matching(cosine_scores(_metric(1, 1, num_tokens, seed=seed)), r, num_protected=1)
        assert 0 not in matching.source
        assert 0 not in matching.destination
        assert matching.kept[0, 0, 0] == 0

    def test_a_protected_token_is_not_merged_even_if_it_is_the_most_alike(self):
        scores = torch.tensor([[0.99, 0.98], [0.1, 0.2]])
        matching = bipartite_soft_matching(scores, r=1, num_protected=1)
        assert matching.source.tolist() == [2]
        assert matching.destination.tolist() == [3]

    def test_order_with_a_protected_token_is_by_position(self):
        # Tokens 2 and 6 stay: 6 is the better match, and still comes second.
        scores = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.9, 0.0, 0.0], [0.5, 0.0, 0.0]])
        assert bipartite_soft_matching(scores, r=1, num_protected=1).kept.tolist() == [0, 2, 6, 1, 3, 5]

    def test_order_without_one_is_by_score_from_high_to_low(self):
        scores = torch.tensor([[0.2, 0.0, 0.0], [0.1, 0.0, 0.0], [0.9, 0.0, 0.0], [0.5, 0.0, 0.0]])
        assert bipartite_soft_matching(scores, r=1).kept.tolist() == [6, 0, 2, 1, 3, 5]

    def test_several_sources_may_share_a_destination(self):
        scores = torch.tensor([[0.9, 0.0], [0.8, 0.0]])
        assert bipartite_soft_matching(scores, r=2).destination.tolist() == [1, 1]

    @pytest.mark.parametrize(("protected", "removed"), [(0, 4), (1, 4)])
    def test_more_than_half_is_capped(self, protected, removed):
        scores = torch.rand(5, 4)
        assert bipartite_soft_matching(scores, 10**6, protected).source.shape == (removed,)

    def test_the_scores_are_left_as_they_are(self):
        scores = torch.rand(2, 1, 5, 4)
        before = scores.clone()
        bipartite_soft_matching(scores, 2, num_protected=1)
        assert torch.equal(scores, before)

    @given(num_tokens=st.integers(2, 16), num_protected=st.integers(0, 6), seed=st.integers(0, 1000))
    def test_protected_tokens_stay_in_front_and_take_no_part(self, num_tokens, num_protected, seed):
        metric = _metric(2, 1, num_tokens, seed=seed)
        matching = cosine_matching(metric, num_tokens, num_protected)
        removed = max(num_tokens - num_protected, 0) // 2
        front = list(range(min(num_protected, num_tokens)))
        assert matching.source.shape == (2, 1, removed)
        assert matching.kept[..., : len(front)].tolist() == [[front]] * 2
        assert (torch.cat((matching.source, matching.destination), dim=-1) >= num_protected).all()
        every = torch.cat((matching.kept, matching.source), dim=-1).sort(dim=-1).values
        assert torch.equal(every, torch.arange(num_tokens).expand(2, 1, -1))
        by_scores = bipartite_soft_matching(cosine_scores(metric), num_tokens, num_protected)
        assert torch.equal(by_scores.kept, matching.kept)
        assert torch.equal(by_scores.destination, matching.destination)

    def test_a_negative_number_of_protected_tokens_is_refused(self):
        with pytest.raises(ValueError, match=r"num_protected must be an int >= 0, got -1"):
            bipartite_soft_matching(torch.rand(2, 2), 1, -1)


@pytest.mark.parametrize("num_tokens", [2, 9, 30])
@pytest.mark.parametrize("block_size", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("num_protected", [0, 1])
def test_matching_in_blocks_is_matching(num_tokens, block_size, shared, num_protected):
    torch.manual_seed(0)
    metric = torch.randn(2, 3, num_tokens, 5, dtype=torch.float64)
    expected = bipartite_soft_matching(cosine_scores(metric, shared), 4, num_protected)
    actual = cosine_matching(metric, 4, num_protected, shared, block_size)
    for name in ("source", "destination", "kept"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))
    torch.testing.assert_close(actual.score, expected.score)


@pytest.mark.parametrize("mode", [*ALL_MODES, "absorb"])
@pytest.mark.parametrize(
    ("batch_size", "sets", "tokens", "shared"),
    [(1, 1, 8192, False), (1, 2, 8192, True), (24, 1, 2048, False), (4, 12, 1024, False), (24, 2, 2048, True)],
)
def test_no_mode_ever_holds_all_scores_whatever_the_batch(mode, batch_size, sets, tokens, shared):
    """They would be 48 to 96 MiB; a block of them, of all clips and sets together, is 16."""
    context = Context(
        keys=torch.randn(batch_size, sets, tokens, 4),
        tokens=Tokens(),
        layout=TokenLayout(0, sets, tokens),
        r=100,
        shared=shared,
        threshold=0.5,
        options=MODES[mode].complete_options(None),
    )
    peak = peak_memory(lambda: MODES[mode].assign(context), torch.device("cpu"))
    assert peak is not None
    assert 4 << 20 < peak < 24 << 20


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("block_size", [1, 7, 40, 1000, 1 << 20])
def test_random_matching_in_blocks_is_that_of_the_random_scores(shared, block_size):
    metric = torch.zeros(3, 2, 11, 1, dtype=torch.float64)
    generator = torch.Generator()
    expected = bipartite_soft_matching(random_scores(metric, shared, generator.manual_seed(5)), 4)
    actual = random_matching(metric, 4, 0, shared, generator.manual_seed(5), block_size)
    for name in ("source", "destination", "score", "kept", "moved"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))
