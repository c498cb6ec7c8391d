"""One merging step on a sequence, and several in a row: the invariants of token merging over all layouts."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import (
    MODES,
    MergeSettings,
    Reduction,
    Step,
    TokenLayout,
    Tokens,
    initial_tokens,
    max_removable,
    mean_pool,
    merge_tokens,
    reduction,
    unmerge,
)

from . import reference
from .counts import token_counts
from .mode_families import ALL_MODES, DETERMINISTIC_MODES, DROPPING_MODES, MERGING_MODES

THRESHOLD = 0.2


class Case(NamedTuple):
    batch: int
    layout: TokenLayout
    scope: str
    mode: str
    r: int
    dtype: torch.dtype
    seed: int

    @property
    def settings(self) -> MergeSettings:
        return MergeSettings(self.mode, THRESHOLD if MODES[self.mode].needs_threshold else None, self.scope)

    def draw(self, dim: int = 4) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.batch, self.layout.num_tokens, dim, generator=generator).to(self.dtype)

    def start(self) -> Tokens:
        return initial_tokens(self.batch, self.layout.num_tokens, torch.device("cpu"), track=True)

    def metric(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32))

    def step(self, x: torch.Tensor, state: Tokens) -> tuple[torch.Tensor, Tokens]:
        generator = torch.Generator().manual_seed(self.seed)
        return merge_tokens(x, self.metric(x), self.r, state, self.layout, self.settings, generator)

    def run(self, layers: int) -> tuple[list[torch.Tensor], list[Tokens]]:
        states, outputs = [self.start()], [self.draw()]
        for _ in range(layers):
            x, state = self.step(outputs[-1], states[-1])
            outputs.append(x)
            states.append(state)
        return outputs, states

    def sizes(self, state: Tokens, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(x.shape[:2]) if state.size is None else state.size


def cases(
    modes=ALL_MODES,
    dtypes=(torch.float64, torch.float32, torch.bfloat16, torch.float16),
    scopes=("clip", "frame", "tube", "time"),
    max_batch: int = 3,
):
    layouts = st.builds(
        TokenLayout,
        num_prefix_tokens=st.integers(0, 1),
        num_frames=st.integers(1, 5),
        num_patches=st.integers(1, 8),
        patch_major=st.booleans(),
    )
    return st.builds(
        Case,
        batch=st.integers(1, max_batch),
        layout=layouts,
        scope=st.sampled_from(scopes),
        mode=st.sampled_from(modes),
        r=st.integers(0, 14),
        dtype=st.sampled_from(dtypes),
        seed=st.integers(0, 2**16),
    )


LAYERS = st.integers(1, 4)


@given(case=cases(), layers=LAYERS)
def test_lengths_are_those_known_beforehand(case, layers):
    outputs, _ = case.run(layers)
    assert [x.shape[1] for x in outputs] == token_counts([case.r] * layers, case.layout, case.scope, case.mode)


@given(case=cases(), layers=LAYERS)
def test_states_keep_their_dtype_and_stay_finite(case, layers):
    for x in case.run(layers)[0]:
        assert x.dtype == case.dtype
        assert x.isfinite().all()


@given(case=cases(modes=MERGING_MODES), layers=LAYERS)
def test_sizes_sum_to_the_original_tokens(case, layers):
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        assert case.sizes(state, x).sum(1).tolist() == [case.layout.num_tokens] * case.batch


@given(case=cases(modes=MERGING_MODES), layers=LAYERS)
def test_every_original_token_is_held_by_exactly_one_token(case, layers):
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        assert state.source.dtype == torch.int64
        for source, size in zip(state.source, case.sizes(state, x), strict=True):
            assert source.min() >= 0
            # As many original tokens point to a token as its size says, and no token is without one.
            assert source.bincount(minlength=x.shape[1]).tolist() == size.tolist()
            assert size.min() >= 1


@given(case=cases(modes=DROPPING_MODES), layers=LAYERS)
def test_dropping_keeps_tokens_as_they_are_and_forgets_the_others(case, layers):
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        assert state.size is None
        for b in range(case.batch):
            holders = state.source[b]
            kept = (holders >= 0).nonzero().flatten()
            assert sorted(holders[kept].tolist()) == list(range(x.shape[1]))
            assert torch.equal(x[b, holders[kept]], outputs[0][b, kept])


@given(case=cases(modes=("hybrid",)), layers=LAYERS)
def test_hybrid_counts_what_survives(case, layers):
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        for source, size in zip(state.source, case.sizes(state, x), strict=True):
            assert source[source >= 0].bincount(minlength=x.shape[1]).tolist() == size.tolist()
            assert size.min() >= 1


@given(case=cases(), layers=LAYERS)
def test_cls_has_size_one_stays_first_and_is_not_touched(case, layers):
    case = case._replace(layout=case.layout._replace(num_prefix_tokens=1))
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        assert torch.equal(x[:, 0], outputs[0][:, 0])
        assert (case.sizes(state, x)[:, 0] == 1).all()
        assert (state.source[:, 0] == 0).all()
        assert (state.source[:, 1:] != 0).all()


@given(case=cases(modes=(*MERGING_MODES, "hybrid")), layers=LAYERS)
def test_merging_and_unmerging_a_constant_field_is_the_identity(case, layers):
    state = case.start()
    constant = torch.full_like(case.draw(), 1.5)
    x, decisions = constant, case.draw()
    for _ in range(layers):
        generator = torch.Generator().manual_seed(case.seed)
        metric = case.metric(decisions[:, : x.shape[1]])
        x, state = merge_tokens(x, metric, case.r, state, case.layout, case.settings, generator)
    restored = unmerge(x, state.source, fill_value=1.5)
    exact = case.dtype in (torch.float32, torch.float64)
    torch.testing.assert_close(restored, constant, **({} if exact else {"rtol": 2e-2, "atol": 0}))


@given(case=cases(modes=MERGING_MODES, dtypes=(torch.float64,)), layers=LAYERS)
def test_the_weighted_mean_over_all_tokens_never_changes(case, layers):
    outputs, states = case.run(layers)
    for x, state in zip(outputs, states, strict=True):
        torch.testing.assert_close(mean_pool(x, state.size), outputs[0].mean(1))


@given(case=cases(modes=("merge",), dtypes=(torch.float64,)), layers=LAYERS)
def test_each_token_is_the_mean_of_the_original_tokens_that_it_holds(case, layers):
    outputs, states = case.run(layers)
    for b in range(case.batch):
        for slot in range(outputs[-1].shape[1]):
            held = outputs[0][b, states[-1].source[b] == slot]
            torch.testing.assert_close(outputs[-1][b, slot], held.mean(0))


@given(case=cases())
def test_r_zero_is_the_identity(case):
    x, state = case.draw(), case.start()
    output, new_state = case._replace(r=0).step(x, state)
    assert output is x
    assert new_state is state


@given(case=cases(modes=DETERMINISTIC_MODES, dtypes=(torch.float64,)), layers=LAYERS)
def test_a_clip_gets_what_it_would_get_alone(case, layers):
    outputs, states = case.run(layers)
    for b in range(case.batch):
        x, state = outputs[0][b : b + 1], initial_tokens(1, case.layout.num_tokens, torch.device("cpu"), track=True)
        for _ in range(layers):
            x, state = case.step(x, state)
        torch.testing.assert_close(outputs[-1][b : b + 1], x)
        assert torch.equal(states[-1].source[b : b + 1], state.source)


@given(case=cases(scopes=("tube",)), layers=LAYERS)
def test_tubes_assign_all_frames_alike(case, layers):
    _, states = case.run(layers)
    layout = case.layout
    for state, count in zip(states, token_counts([case.r] * layers, layout, "tube", case.mode), strict=True):
        _, source = layout.split(state.source, "tube")
        # Positions in the sequence become places inside a frame, which must agree over the frames.
        per_frame = (count - layout.num_prefix_tokens) // layout.num_frames
        inside = source - layout.num_prefix_tokens
        place = inside // layout.num_frames if layout.patch_major else inside % per_frame
        place = torch.where(source < 0, -1, place)
        assert torch.equal(place, place[:, :1].expand_as(place))


@given(case=cases(scopes=("time",)), layers=LAYERS)
def test_along_time_whole_frames_merge_and_places_stay(case, layers):
    _, states = case.run(layers)
    layout = case.layout
    for state, count in zip(states, token_counts([case.r] * layers, layout, "time", case.mode), strict=True):
        _, source = layout.split(state.source, "time")
        num_frames = (count - layout.num_prefix_tokens) // layout.num_patches
        assert num_frames >= 1
        inside = source - layout.num_prefix_tokens
        place = inside // num_frames if layout.patch_major else inside % layout.num_patches
        frame = inside % num_frames if layout.patch_major else inside // layout.num_patches
        own = torch.arange(layout.num_patches)[:, None].expand_as(place)
        assert torch.equal(torch.where(source < 0, own, place), own)
        frame = torch.where(source < 0, -1, frame)
        assert torch.equal(frame, frame[:, :1].expand_as(frame))
        if state.size is not None:
            _, size = layout.split(state.size, "time")
            assert torch.equal(size, size[:, :1].expand_as(size))


@given(case=cases(scopes=("frame", "tube")), layers=LAYERS)
def test_frames_never_mix(case, layers):
    _, states = case.run(layers)
    layout = case.layout
    counts = token_counts([case.r] * layers, layout, case.scope, case.mode)
    for state, count in zip(states, counts, strict=True):
        _, source = layout.split(state.source, case.scope)
        inside = source - layout.num_prefix_tokens
        per_frame = (count - layout.num_prefix_tokens) // layout.num_frames
        frame = inside % layout.num_frames if layout.patch_major else inside // per_frame
        own = torch.arange(layout.num_frames)[:, None].expand_as(frame)
        assert torch.equal(torch.where(source < 0, own, frame), own)


@given(case=cases(modes=("merge", "drop", "hybrid"), dtypes=(torch.float64,), max_batch=2), layers=LAYERS)
def test_states_sizes_and_sources_equal_brute_force(case, layers):
    outputs, states = case.run(layers)
    for b in range(case.batch):
        tokens = [reference.Token(vector, vector, [i]) for i, vector in enumerate(outputs[0][b].tolist())]
        for x, state in zip(outputs[1:], states[1:], strict=True):
            layout = case.layout
            tokens = reference.reduce_sequence(
                tokens,
                case.r,
                layout.num_prefix_tokens,
                layout.num_sets(case.scope),
                layout.patch_major,
                case.scope,
                case.mode,
                THRESHOLD,
            )
            for token in tokens:
                token.metric = token.state
            expected = torch.tensor([token.state for token in tokens], dtype=torch.float64)
            torch.testing.assert_close(x[b], expected)
            holder = {member: slot for slot, token in enumerate(tokens) for member in token.members}
            assert state.source[b].tolist() == [holder.get(i, -1) for i in range(layout.num_tokens)]
            if case.mode != "drop":
                assert case.sizes(state, x)[b].tolist() == [len(token.members) for token in tokens]


@given(case=cases(), layers=LAYERS)
def test_nothing_that_is_remembered_is_larger_than_the_tokens(case, layers):
    for state in case.run(layers)[1]:
        for tensor in state:
            assert tensor is None or tensor.numel() <= case.batch * case.layout.num_tokens


@given(case=cases())
def test_without_a_trace_the_states_are_the_same_and_nothing_is_tracked(case):
    x = case.draw()
    tracked, _ = case.step(x, case.start())
    untracked, state = case.step(x, Tokens())
    assert torch.equal(tracked, untracked)
    assert state.source is None


@given(case=cases(scopes=("frame", "tube", "time"), dtypes=(torch.float64,)))
def test_a_metric_that_is_split_into_sets_already_gives_the_same(case):
    x = case.draw()
    _, sets = case.layout.split(x, case.scope)
    generator = torch.Generator().manual_seed(case.seed)
    output, _ = merge_tokens(x, sets, case.r, case.start(), case.layout, case.settings, generator)
    assert torch.equal(output, case.step(x, case.start())[0])


@given(case=cases(scopes=("frame", "tube", "time"), dtypes=(torch.float64,)), layers=LAYERS)
def test_keys_of_each_frame_by_itself_give_what_keys_of_the_clip_give(case, layers):
    x, state = case.draw(), case.start()
    for _ in range(layers):
        frames, places = case.layout.grid(x.shape[1], case.scope)
        r = min(case.r, max_removable(frames if case.scope == "time" else places))
        step = Step(r, state, case.layout, case.settings)
        assert x.shape[1] == case.layout.num_prefix_tokens + frames * places
        _, keys = case.layout.split(x, case.scope)
        keys = (keys.transpose(1, 2) if case.scope == "time" else keys).flatten(0, 1).unsqueeze(1)
        assert keys.shape[2] == places
        torch.manual_seed(case.seed)
        expected = step.decide(x.unsqueeze(1))
        torch.manual_seed(case.seed)
        merge = step.decide(keys, num_frames=frames)
        expected_x, x, state = expected.apply(x), merge.apply(x), merge.tokens
        assert torch.equal(x, expected_x)
        assert torch.equal(state.source, expected.tokens.source)


def test_input_tensors_are_left_as_they_are():
    layout = TokenLayout(1, 2, 5)
    x, size = torch.randn(2, 11, 3), torch.randint(1, 4, (2, 11)).float()
    state = Tokens(
        size, torch.arange(11).repeat(2, 1), torch.randn(2, 11, 3), torch.arange(11).repeat(2, 1), torch.ones(2, 11)
    )
    before = [tensor.clone() for tensor in (x, *state[:5])]
    merge_tokens(x, x, 3, state, layout, MergeSettings(position="centroid"))
    assert all(torch.equal(a, b) for a, b in zip(before, (x, *state[:5]), strict=True))


class TestGradients:
    @pytest.mark.parametrize("scope", ["clip", "frame", "tube", "time"])
    @pytest.mark.parametrize(("mode", "threshold"), [("merge", None), ("drop", None), ("hybrid", 0.3)])
    @pytest.mark.parametrize("layout", [TokenLayout(0, 2, 5), TokenLayout(1, 2, 4), TokenLayout(1, 2, 4, True)])
    def test_gradcheck_in_the_states(self, scope, mode, threshold, layout):
        x = torch.randn(2, layout.num_tokens, 2, dtype=torch.float64, requires_grad=True)
        metric = torch.randn(2, layout.num_tokens, 3, dtype=torch.float64)
        size = torch.randint(1, 4, (2, layout.num_tokens)).double()
        settings = MergeSettings(mode, threshold, scope)

        def merged(states):
            return merge_tokens(states, metric, 2, Tokens(size), layout, settings)[0]

        assert torch.autograd.gradcheck(merged, x)

    def test_no_gradient_reaches_the_metric_or_the_sizes(self):
        x = torch.randn(1, 8, 2, requires_grad=True)
        metric = torch.randn(1, 8, 2, requires_grad=True)
        output, state = merge_tokens(x, metric, 3, Tokens(), TokenLayout(0, 1, 8), MergeSettings())
        assert not state.size.requires_grad
        output.sum().backward()
        assert metric.grad is None
        assert x.grad is not None

    def test_each_original_token_gets_its_share(self):
        x = torch.randn(1, 8, 2, requires_grad=True)
        state = initial_tokens(1, 8, torch.device("cpu"), track=True)
        output, state = merge_tokens(x, x, 3, state, TokenLayout(0, 1, 8), MergeSettings())
        output.sum().backward()
        shares = 1 / state.size.gather(1, state.source)
        torch.testing.assert_close(x.grad, shares.unsqueeze(-1).expand_as(x))


class TestMeanPool:
    def test_without_sizes_it_is_the_plain_mean(self):
        x = torch.randn(2, 5, 3)
        assert torch.equal(mean_pool(x), x.mean(1))

    def test_with_sizes_it_is_the_mean_of_the_original_tokens(self):
        x = torch.randn(1, 3, 4, dtype=torch.float64)
        size = torch.tensor([[1.0, 4.0, 2.0]], dtype=torch.float64)
        torch.testing.assert_close(mean_pool(x, size), x[:, [0, 1, 1, 1, 1, 2, 2]].mean(1))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_the_dtype_of_the_states_stays(self, dtype):
        assert mean_pool(torch.ones(1, 2, 3, dtype=dtype), torch.tensor([[1.0, 3.0]])).dtype == dtype


def _scattered(x: torch.Tensor, merge: Reduction) -> torch.Tensor:
    """What `Reduction.apply` computes, one token after the other."""
    output = x.new_zeros(len(x), merge.assignment.owner.shape[-1], x.shape[-1])
    for clip, slots in enumerate(merge.assignment.slot[:, 0].tolist()):
        for token, slot in enumerate(slots):
            if slot >= 0:
                output[clip, slot] += merge.weight[clip, 0, token] * x[clip, token]
    return output


@pytest.mark.parametrize(
    "settings", [MergeSettings(), MergeSettings(mode="hybrid", threshold=0.2)], ids=["merge", "hybrid"]
)
class TestWeightedMeansAsOneKernel:
    @pytest.fixture
    def merge(self, settings):
        torch.manual_seed(0)
        metric = torch.randn(2, 15, 4, dtype=torch.float64)
        state = Tokens(size=torch.randint(1, 5, (2, 15)).double())
        return Step(6, state, TokenLayout(0, 3, 5), settings).reduce(metric)

    @pytest.fixture
    def x(self):
        return torch.randn(2, 15, 3, dtype=torch.float64, requires_grad=True)

    def test_they_are_what_they_should_be(self, merge, x):
        torch.testing.assert_close(merge.apply(x), _scattered(x, merge), rtol=0, atol=1e-14)

    def test_all_derivatives_exist(self, merge, x):
        assert torch.autograd.gradcheck(merge.apply, x, check_forward_ad=True)
        assert torch.autograd.gradgradcheck(merge.apply, x)
        _, tangent = torch.func.jvp(merge.apply, (x.detach(),), (torch.ones_like(x),))
        torch.testing.assert_close(tangent, merge.apply(torch.ones_like(x)))

    def test_what_is_discarded_leaves_no_trace(self, merge, x):
        gone = merge.assignment.slot[:, 0] < 0
        spoilt = torch.where(gone.unsqueeze(-1), torch.inf, x)
        assert torch.equal(merge.apply(spoilt), merge.apply(x))


@pytest.mark.parametrize("layout", [TokenLayout(1, 4, 6, patch_major=True), TokenLayout(0, 4, 6, patch_major=True)])
@pytest.mark.parametrize("mode", ["merge", "drop"])
class TestOneAssignmentForSetsThatLieSideBySide:
    """In TimeSformer the n-th patches of all frames are neighbours: with scope "tube" they merge as one long token."""

    @staticmethod
    def decide(layout: TokenLayout, mode: str, r: int = 2) -> tuple[torch.Tensor, Reduction]:
        torch.manual_seed(0)
        x = torch.randn(2, layout.num_tokens, 3, dtype=torch.float64)
        size = torch.ones(2, layout.num_tokens).double()
        return x, Step(r, Tokens(size), layout, MergeSettings(mode, scope="tube")).reduce(x)

    def test_it_is_what_each_set_by_itself_would_give(self, layout, mode, monkeypatch):
        x, merge = self.decide(layout, mode)
        merged = merge.apply(x)
        monkeypatch.setattr(TokenLayout, "has_aligned_sets", lambda *_: False)
        torch.testing.assert_close(merged, merge.apply(x), rtol=0, atol=1e-14)

    def test_no_set_is_taken_out_of_the_sequence(self, layout, mode, monkeypatch):
        x, merge = self.decide(layout, mode)
        carried_out = []
        original = reduction._merge_sets

        def watched(sets, *args):
            carried_out.append((tuple(sets.shape), sets.data_ptr()))
            return original(sets, *args)

        monkeypatch.setattr(reduction, "_merge_sets", watched)
        merge.apply(x)
        ((shape, address),) = carried_out
        assert shape == (2, 1, layout.num_patches, layout.num_frames * 3)
        assert address == x[:, layout.num_prefix_tokens :].data_ptr()  # a view
