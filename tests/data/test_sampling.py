from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_video_tome.data.sampling import sample_frame_indices

COUNT = st.integers(1, 2000)
RATE = st.integers(1, 64)
STRATEGY = st.sampled_from(["start", "center", "uniform"])


@settings(deadline=None)  # the machine may be busy
@given(total=COUNT, num=st.integers(1, 128), rate=RATE, strategy=STRATEGY)
def test_indices_are_in_range_ascending_and_as_many_as_asked(total, num, rate, strategy):
    indices = sample_frame_indices(total, num, rate, strategy)
    assert len(indices) == num
    assert all(isinstance(index, int) and 0 <= index < total for index in indices)
    assert indices == sorted(indices)


@settings(deadline=None)
@given(num=st.integers(1, 64), rate=RATE, extra=st.integers(0, 500))
def test_clip_that_fits_has_even_steps_and_sits_in_the_middle(num, rate, extra):
    total = num * rate + extra
    indices = sample_frame_indices(total, num, rate, "center")
    assert {b - a for a, b in pairwise(indices)} <= {rate}
    before, after = indices[0], total - (indices[0] + num * rate)
    assert 0 <= after - before <= 1
    assert sample_frame_indices(total, num, rate, "start") == [i * rate for i in range(num)]


@settings(deadline=None)
@given(total=COUNT, num=st.integers(1, 64))
def test_uniform_takes_one_frame_from_every_segment(total, num):
    for i, index in enumerate(sample_frame_indices(total, num, strategy="uniform")):
        centre = (i + 0.5) * total / num
        assert centre - 1 - 1e-6 <= index <= centre + 1e-6


def test_start_is_what_the_pipeline_does():
    assert sample_frame_indices(100, 16, strategy="start") == list(range(16))


@pytest.mark.parametrize("strategy", ["start", "center"])
def test_short_video_repeats_its_last_frame(strategy):
    assert sample_frame_indices(3, 5, 1, strategy) == [0, 1, 2, 2, 2]
    assert sample_frame_indices(5, 4, 2, strategy) == [0, 2, 4, 4]
    assert sample_frame_indices(1, 4, 4, strategy) == [0, 0, 0, 0]


def test_short_video_uniform_repeats_frames_evenly():
    assert sample_frame_indices(2, 4, strategy="uniform") == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["total_frames", "num_frames", "sampling_rate"])
def test_counts_are_validated(name):
    arguments = {"total_frames": 10, "num_frames": 4, "sampling_rate": 1}
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        sample_frame_indices(**{**arguments, name: 0})
    with pytest.raises(TypeError, match=f"`{name}` must be an integer, got 2.5"):
        sample_frame_indices(**{**arguments, name: 2.5})
    with pytest.raises(TypeError, match=f"`{name}` must be an integer, got True"):
        sample_frame_indices(**{**arguments, name: True})


def test_unknown_strategy_names_the_known_ones():
    with pytest.raises(ValueError, match=r"`strategy` must be one of 'start', 'center', 'uniform', got 'random'"):
        sample_frame_indices(10, 4, strategy="random")
