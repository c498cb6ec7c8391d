"""What becomes of the matched tokens: mode by mode, on sets small enough to follow by eye, and against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import (
    MODES,
    MergeSettings,
    TokenLayout,
    initial_tokens,
    merge_tokens,
    register_mode,
)

from . import reference
from .mode_families import ALL_MODES, assign

DETERMINISTIC = [("merge", None), ("drop", None), ("hybrid", 0.3)]


def run(
    mode: str, x: torch.Tensor, metric: torch.Tensor, r: int, size=None, threshold=None, prefix: int = 0, **kwargs
):
    layout = TokenLayout(prefix, 1, x.shape[1] - prefix)
    state = initial_tokens(x.shape[0], x.shape[1], x.device, track=True)._replace(size=size)
    return merge_tokens(x, metric, r, state, layout, MergeSettings(mode=mode, threshold=threshold), **kwargs)


def unit(*degrees: float) -> torch.Tensor:
    """One clip of tokens whose metrics point in these directions."""
    angles = torch.tensor([degrees], dtype=torch.float64).deg2rad()
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


# Tokens 0, 2 and 4 look for partners among 1, 3 and 5: 0 and 2 find 1 (cosine 0.98 and 0.94), 4 finds 5 (0.5).
METRIC = unit(0, 10, 30, 180, 90, 150)
X = torch.tensor([[[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]], dtype=torch.float64)


class TestMerge:
    def test_a_destination_becomes_the_mean_of_itself_and_its_sources(self):
        merged, state = run("merge", X, METRIC, 2)
        assert merged.squeeze().tolist() == pytest.approx([5.0, 2.0, 4.0, 6.0])
        assert state.size.tolist() == [[1.0, 3.0, 1.0, 1.0]]
        assert state.source.tolist() == [[1, 1, 1, 2, 0, 3]]

    def test_the_mean_is_weighted_by_size(self):
        size = torch.tensor([[2.0, 1.0, 5.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
        merged, state = run("merge", X, METRIC, 2, size)
        assert merged[0, 1, 0].item() == pytest.approx((2 * 1 + 1 * 2 + 5 * 3) / 8)
        assert state.size.tolist() == [[1.0, 8.0, 1.0, 1.0]]


class TestDrop:
    def test_sources_vanish_and_destinations_stay(self):
        kept, state = run("drop", X, METRIC, 2)
        assert kept.squeeze().tolist() == [5.0, 2.0, 4.0, 6.0]
        assert state.source.tolist() == [[-1, 1, -1, 2, 0, 3]]

    def test_sizes_stay_one_so_nothing_is_kept_of_them(self):
        assert run("drop", X, METRIC, 3)[1].size is None

    def test_sizes_that_came_from_earlier_merging_go_along(self):
        size = torch.tensor([[2.0, 1.0, 5.0, 7.0, 9.0, 3.0]])
        assert run("drop", X, METRIC, 2, size)[1].size.tolist() == [[9.0, 1.0, 7.0, 3.0]]


class TestHybrid:
    def test_above_the_threshold_it_merges(self):
        merged, state = run("hybrid", X, METRIC, 2, threshold=0.9)
        assert merged.squeeze().tolist() == pytest.approx([5.0, 2.0, 4.0, 6.0])
        assert state.size.tolist() == [[1.0, 3.0, 1.0, 1.0]]

    def test_one_weak_source_is_enough_to_discard_the_destination(self):
        merged, state = run("hybrid", X, METRIC, 2, threshold=0.95)  # token 2 reaches token 1 with 0.94
        assert merged.squeeze().tolist() == pytest.approx([5.0, (1 + 3) / 2, 4.0, 6.0])
        assert state.size.tolist() == [[1.0, 2.0, 1.0, 1.0]]
        assert state.source.tolist() == [[1, -1, 1, 2, 0, 3]]

    def test_a_discarded_destination_takes_its_size_along(self):
        size = torch.tensor([[2.0, 9.0, 5.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
        merged, state = run("hybrid", X, METRIC, 2, size, threshold=0.95)
        assert merged[0, 1, 0].item() == pytest.approx((2 * 1 + 5 * 3) / 7)
        assert state.size.tolist() == [[1.0, 7.0, 1.0, 1.0]]

    def test_a_score_of_just_the_threshold_is_enough(self):
        metric = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])  # cosines of exactly 1
        merged, state = run("hybrid", X[:, :4], metric, 2, threshold=1.0)
        assert merged.squeeze().tolist() == [1.5, 3.5]
        assert state.source.tolist() == [[0, 0, 1, 1]]

    def test_destinations_without_sources_are_never_discarded(self):
        merged, state = run("hybrid", X, METRIC, 3, threshold=1.0)
        assert merged.squeeze().tolist() == pytest.approx([(1 + 3) / 2, 4.0, 5.0])
        assert state.source.tolist() == [[0, -1, 0, 1, 2, -1]]

    @pytest.mark.parametrize(("threshold", "same_as"), [(-1.0, "merge")])
    def test_a_threshold_that_all_pairs_reach_makes_it_merge(self, threshold, same_as):
        hybrid, other = run("hybrid", X, METRIC, 3, threshold=threshold), run(same_as, X, METRIC, 3)
        assert torch.equal(hybrid[0], other[0])
        assert torch.equal(hybrid[1].size, other[1].size)


class TestRandomModes:
    @pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
    def test_the_metric_has_no_say(self, mode):
        x = torch.randn(1, 12, 3)
        outputs = [
            run(mode, x, torch.randn(1, 12, 4), 4, generator=torch.Generator().manual_seed(1))[0] for _ in range(2)
        ]
        assert torch.equal(*outputs)

    @pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
    def test_another_seed_gives_other_tokens(self, mode):
        x = torch.randn(1, 32, 3)
        outputs = [run(mode, x, x, 8, generator=torch.Generator().manual_seed(seed))[0] for seed in range(2)]
        assert not torch.equal(*outputs)

    @pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
    def test_every_even_token_can_go(self, mode):
        torch.manual_seed(0)
        gone = torch.zeros(8)
        for _ in range(60):
            source = run(mode, torch.randn(1, 8, 2), torch.randn(1, 8, 2), 1)[1].source[0]
            held = source.bincount(minlength=7) if mode == "random_merge" else None
            gone[::2] += (source[::2] == -1) if held is None else (source[::2] >= 3)  # slots 3.. are the odd tokens
        assert (gone[::2] > 0).all()
        assert (gone[1::2] == 0).all()

    def test_clips_of_a_batch_get_random_numbers_of_their_own(self):
        x = torch.randn(1, 32, 3).repeat(2, 1, 1)
        source = run("random_drop", x, x, 8)[1].source
        assert not torch.equal(source[0], source[1])


@pytest.mark.parametrize(("mode", "threshold"), DETERMINISTIC)
@given(num_tokens=st.integers(2, 16), prefix=st.integers(0, 1), r=st.integers(0, 10), seed=st.integers(0, 2**16))
def test_deterministic_modes_equal_brute_force(mode, threshold, num_tokens, prefix, r, seed):
    generator = torch.Generator().manual_seed(seed)
    x, metric = (torch.randn(1, num_tokens, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    # Tokens that have been merged before: of random sizes.
    sizes = torch.randint(1, 5, (1, num_tokens), generator=generator)
    if mode == "drop":
        sizes = torch.ones_like(sizes)
    tokens = [
        reference.Token(state, vector, [position] * size)
        for position, (state, vector, size) in enumerate(
            zip(x[0].tolist(), metric[0].tolist(), sizes[0].tolist(), strict=True)
        )
    ]
    expected = reference.reduce_sequence(tokens, r, prefix, 1, False, "clip", mode, threshold)
    output, state = run(mode, x, metric, r, sizes.double(), threshold, prefix)
    torch.testing.assert_close(output[0], torch.tensor([token.state for token in expected], dtype=torch.float64))
    assert state.size[0].tolist() == [len(token.members) for token in expected]
    holder = {member: slot for slot, token in enumerate(expected) for member in token.members}
    assert state.source[0].tolist() == [holder.get(position, -1) for position in range(num_tokens)]


@pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
@given(num_tokens=st.integers(2, 16), prefix=st.integers(0, 1), r=st.integers(0, 10), seed=st.integers(0, 2**16))
def test_random_modes_equal_brute_force_on_the_same_noise(mode, num_tokens, prefix, r, seed):
    x = torch.randn(1, num_tokens, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = torch.rand(
        (1, 1, (num_tokens + 1) // 2, num_tokens // 2), generator=torch.Generator().manual_seed(seed), dtype=x.dtype
    )
    tokens = [reference.Token(state, [], [position]) for position, state in enumerate(x[0].tolist())]
    expected = reference.reduce_sequence(
        tokens, r, prefix, 1, False, "clip", mode, random_scores=[noise[0, 0].tolist()]
    )
    output, _ = run(mode, x, x, r, prefix=prefix, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(output[0], torch.tensor([token.state for token in expected], dtype=torch.float64))


class TestRegistry:
    def test_the_modes_of_the_papers_are_there(self):
        assert {"merge", "drop", "hybrid", "random_merge", "random_drop"} <= set(MODES)

    @pytest.mark.parametrize("mode", [*ALL_MODES, "static_runs"])
    def test_a_mode_says_whether_it_needs_a_threshold(self, mode):
        if MODES[mode].needs_threshold:
            with pytest.raises(ValueError, match=f"threshold must be .* with mode='{mode}', got None"):
                assign(mode, threshold=None)
        else:
            assert (assign(mode, threshold=None).owner >= 0).all()

    def test_a_registered_mode_runs_by_its_name(self):
        @register_mode("test_drop")
        def test_drop(inputs):
            return MODES["drop"].assign(inputs)

        assert torch.equal(run("test_drop", X, METRIC, 2)[0], run("drop", X, METRIC, 2)[0])

    def test_a_name_can_be_taken_once_only(self):
        with pytest.raises(ValueError, match="'merge' is registered already"):
            register_mode("merge")(lambda inputs: None)

    def test_registering_the_same_function_again_is_harmless(self):
        before = dict(MODES)
        register_mode("merge", reads=MODES["merge"].reads, handles_padding=True)(MODES["merge"].assign)
        assert before == MODES
