"""How many tokens each layer removes."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_video_tome.merging import (
    MAX_LAYERS,
    MAX_R,
    TokenLayout,
    check_r,
    check_schedule,
    max_removable,
    removals_per_layer,
    requested_removals,
    shown,
)

from .counts import token_counts

R = st.integers(0, 400)
LAYERS = st.integers(1, 48)
INFLECTION = st.floats(-1, 1)


class TestRequestedRemovals:
    def test_constant_removes_r_in_every_layer(self):
        assert requested_removals(150, "constant", num_layers=12, num_tokens=1568) == [150] * 12

    def test_decreasing_falls_from_2r_to_0(self):
        assert requested_removals(10, "decreasing", num_layers=5, num_tokens=100) == [20, 15, 10, 5, 0]

    def test_increasing_rises_from_0_to_2r(self):
        assert requested_removals(10, "increasing", num_layers=5, num_tokens=100) == [0, 5, 10, 15, 20]

    def test_names_stand_for_inflections(self):
        for name, inflection in (("constant", 0), ("decreasing", -1), ("increasing", 1)):
            by_name = requested_removals(17, name, num_layers=12, num_tokens=1568)
            assert by_name == requested_removals(17, inflection, num_layers=12, num_tokens=1568)

    def test_an_inflection_between_the_names_follows_its_formula(self):
        # lo = int(10 * 0.5) = 5, hi = 15, and four equal steps between them, rounded down
        assert requested_removals(10, 0.5, num_layers=5, num_tokens=100) == [5, 7, 10, 12, 15]
        assert requested_removals(10, -0.5, num_layers=5, num_tokens=100) == [15, 12, 10, 7, 5]

    def test_a_share_counts_the_initial_tokens(self):
        assert requested_removals(0.1, "constant", num_layers=3, num_tokens=1568) == [156] * 3
        assert requested_removals(0.5, "constant", num_layers=2, num_tokens=7) == [3, 3]

    def test_a_share_goes_with_a_schedule(self):
        assert requested_removals(0.1, "decreasing", num_layers=5, num_tokens=100) == [20, 15, 10, 5, 0]

    def test_a_list_is_padded_with_zeros(self):
        assert requested_removals([9, 0, 18], "constant", num_layers=5, num_tokens=64) == [9, 0, 18, 0, 0]
        assert requested_removals([], "constant", num_layers=3, num_tokens=64) == [0, 0, 0]

    def test_a_list_longer_than_the_layers_is_refused(self):
        with pytest.raises(ValueError, match=r"at most 2 .*got 3"):
            requested_removals([1, 2, 3], "constant", num_layers=2, num_tokens=64)

    @pytest.mark.parametrize("schedule", ["increasing", "decreasing", 0.3])
    def test_a_list_with_a_schedule_is_refused(self, schedule):
        with pytest.raises(ValueError, match=rf"with schedule={schedule!r} \(a list .*'constant'.*got \[1, 2\]"):
            requested_removals([1, 2], schedule, num_layers=2, num_tokens=64)

    @pytest.mark.parametrize("schedule", ["constant", "decreasing", "increasing", -0.7])
    def test_one_layer_removes_r_whatever_the_schedule(self, schedule):
        assert requested_removals(9, schedule, num_layers=1, num_tokens=64) == [9]

    @given(r=R, inflection=INFLECTION, num_layers=st.integers(2, 48))
    def test_every_layer_follows_the_formula(self, r, inflection, num_layers):
        low = int(r * (1 - inflection))
        high = 2 * r - low
        assert requested_removals(r, inflection, num_layers, num_tokens=1568) == [
            int(low + (high - low) / (num_layers - 1) * layer) for layer in range(num_layers)
        ]

    @given(r=R, inflection=INFLECTION, num_layers=LAYERS)
    def test_values_are_ints_between_0_and_2r_and_monotonic(self, r, inflection, num_layers):
        removals = requested_removals(r, inflection, num_layers, num_tokens=1568)
        assert len(removals) == num_layers
        assert all(type(removed) is int and 0 <= removed <= 2 * r for removed in removals)
        assert removals == sorted(removals, reverse=inflection < 0)

    @given(r=R, inflection=INFLECTION, num_layers=LAYERS)
    def test_every_schedule_removes_about_the_same_in_total(self, r, inflection, num_layers):
        total = sum(requested_removals(r, inflection, num_layers, num_tokens=1568))
        assert abs(total - r * num_layers) <= num_layers

    @given(num_layers=st.integers(2, 48), r=R)
    def test_decreasing_mirrors_increasing_at_its_ends(self, num_layers, r):
        decreasing = requested_removals(r, "decreasing", num_layers, num_tokens=1568)
        increasing = requested_removals(r, "increasing", num_layers, num_tokens=1568)
        assert decreasing[0] == 2 * r
        assert decreasing[-1] == 0 == increasing[0]


class TestCaps:
    def test_videomae_base_at_r_150(self):
        counts = token_counts([150] * 12, TokenLayout(0, 8, 196), "clip")
        assert counts == [1568, 1418, 1268, 1118, 968, 818, 668, 518, 368, 218, 109, 55, 28]

    def test_vivit_base_at_r_300_keeps_its_cls(self):
        counts = token_counts([300] * 12, TokenLayout(1, 16, 196), "clip")
        assert counts[:3] == [3137, 2837, 2537]
        assert token_counts([10**6] * 30, TokenLayout(1, 16, 196), "clip")[-1] == 2  # CLS and the last patch

    @pytest.mark.parametrize("scope", ["frame", "tube"])
    def test_timesformer_base_counts_r_per_frame(self, scope):
        counts = token_counts([18] * 12, TokenLayout(1, 8, 196, patch_major=True), scope)
        assert counts[:2] == [1 + 8 * 196, 1 + 8 * 178]
        assert all((count - 1) % 8 == 0 for count in counts)

    @pytest.mark.parametrize(
        ("num_tokens", "num_protected", "most"),
        [(8, 0, 4), (9, 0, 4), (9, 1, 4), (8, 1, 3), (2, 1, 0), (1, 0, 0), (1, 1, 0), (0, 0, 0)],
    )
    def test_at_most_half_of_the_unprotected_tokens_go(self, num_tokens, num_protected, most):
        assert max_removable(num_tokens, num_protected) == most

    @given(
        requested=st.lists(st.integers(0, 10**6), max_size=24),
        num_tokens=st.integers(1, 2000),
        num_protected=st.integers(0, 1),
    )
    def test_each_layer_removes_what_was_asked_or_half(self, requested, num_tokens, num_protected):
        removals = removals_per_layer(requested, num_tokens, num_protected)
        assert len(removals) == len(requested)
        left = num_tokens
        for asked, removed in zip(requested, removals, strict=True):
            assert removed == min(asked, (left - num_protected) // 2)
            left -= removed
            assert left >= 1

    @given(requested=st.lists(st.integers(0, 50), max_size=12), frames=st.integers(1, 8), patches=st.integers(1, 40))
    def test_counts_start_with_all_tokens_and_never_grow(self, requested, frames, patches):
        for scope in ("clip", "frame", "tube", "time"):
            layout = TokenLayout(1, frames, patches)
            counts = token_counts(requested, layout, scope)
            assert len(counts) == len(requested) + 1
            assert counts[0] == 1 + frames * patches
            assert counts == sorted(counts, reverse=True)


class TestChecks:
    @pytest.mark.parametrize("r", [0, 1, 10**9, 0.5, 1e-9, [], [0], [3, 0, 5], [0.5, 2]])
    def test_allowed_r_comes_back_as_it_is(self, r):
        assert check_r(r) == r
        assert type(check_r(r)) is type(r)

    @pytest.mark.parametrize(
        "r", [-1, 0.0, -0.1, 0.51, 1.0, float("nan"), float("inf"), True, None, "8", [1, -1], [0.51]]
    )
    def test_other_r_is_refused_and_says_what_is_allowed(self, r):
        with pytest.raises(ValueError, match=r"int >= 0.*\(0, 0\.5\].*list") as error:
            check_r(r)
        assert repr(r) in str(error.value)

    @pytest.mark.parametrize("schedule", ["constant", "decreasing", "increasing", 0.3])
    def test_any_r_up_to_the_limit_goes_with_any_schedule(self, schedule):
        assert requested_removals(MAX_R, schedule, num_layers=12, num_tokens=1568)[6] > 1568

    @pytest.mark.parametrize(
        "r",
        [10**400, 10**5000, MAX_R + 1, [3, 10**400], [10**5000], Fraction(10**400)],
        ids=["int", "int that Python does not print", "one more", "list", "list of such", "fraction"],
    )
    def test_numbers_without_end_are_refused_and_not_printed(self, r):
        with pytest.raises(ValueError, match=r"must be an int >= 0, .*, got ") as error:
            check_r(r)
        assert len(str(error.value)) < 250
        assert (f"no int above {MAX_R}" in str(error.value)) is not isinstance(r, Fraction)

    def test_lists_without_end_are_refused_before_anybody_looks_at_them_all(self):
        with pytest.raises(ValueError, match=rf"at most {MAX_LAYERS} entries, one per layer, got 1000000000"):
            check_r(range(10**9))

    @pytest.mark.parametrize("num_layers", [MAX_LAYERS + 1, 10**9, 10**400], ids=["one more", "many", "more"])
    def test_no_list_is_made_for_layers_without_end(self, num_layers):
        with pytest.raises(ValueError, match=rf"at most {MAX_LAYERS} layers can merge tokens, got 1"):
            requested_removals(3, "constant", num_layers, num_tokens=64)

    @pytest.mark.parametrize("schedule", [10**400, -(10**400), Fraction(10**400)], ids=["int", "negative", "fraction"])
    def test_schedules_without_end_are_refused(self, schedule):
        with pytest.raises(ValueError, match=r"an inflection in \[-1, 1\], got .*characters\)"):
            check_schedule(schedule)

    @given(value=st.integers() | st.floats() | st.text(max_size=200) | st.lists(st.integers(), max_size=60))
    def test_values_are_shown_as_they_are_unless_they_are_long(self, value):
        assert shown(value) == repr(value) or len(repr(value)) > 80 > len(shown(value)) - 30

    @pytest.mark.parametrize("schedule", ["constant", "decreasing", "increasing", -1.0, 0.0, 0.25, 1.0])
    def test_allowed_schedules_come_back_as_they_are(self, schedule):
        assert check_schedule(schedule) == schedule

    @pytest.mark.parametrize("schedule", ["linear", "", 1.01, -1.01, float("nan"), True, None, [0.5]])
    def test_other_schedules_are_refused_and_say_what_is_allowed(self, schedule):
        with pytest.raises(ValueError, match=r"constant.*decreasing.*increasing.*\[-1, 1\]") as error:
            check_schedule(schedule)
        assert repr(schedule) in str(error.value)
