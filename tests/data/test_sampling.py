from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_video_tome.data.sampling import ClipSampling, sample_frame_indices, sampling_preset

COUNT = st.integers(1, 2000)
RATE = st.integers(1, 64)
STRATEGY = st.sampled_from(["start", "center", "uniform", "random"])


@settings(deadline=None)  # the machine may be busy
@given(total=COUNT, num=st.integers(1, 128), rate=RATE, strategy=STRATEGY)
def test_indices_are_in_range_ascending_and_as_many_as_asked(total, num, rate, strategy):
    indices = sample_frame_indices(total, num, rate, strategy, np.random.default_rng(0))
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
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        sample_frame_indices(**{**arguments, name: 0})
    with pytest.raises(TypeError, match=f"{name} must be an integer, got 2.5"):
        sample_frame_indices(**{**arguments, name: 2.5})
    with pytest.raises(TypeError, match=f"{name} must be an integer, got True"):
        sample_frame_indices(**{**arguments, name: True})


def test_unknown_strategy_names_the_known_ones():
    message = r"strategy must be one of 'start', 'center', 'uniform', 'random', got 'middle'"
    with pytest.raises(ValueError, match=message):
        sample_frame_indices(10, 4, strategy="middle")
    with pytest.raises(ValueError, match=message):
        ClipSampling(4, strategy="middle")


def test_random_clips_start_everywhere_equally_often():
    rng = np.random.default_rng(0)
    starts = Counter(sample_frame_indices(13, 4, 2, "random", rng)[0] for _ in range(6000))
    assert sorted(starts) == list(range(6))  # the last clip that spans 4 * 2 frames starts at frame 5
    assert all(abs(count - 1000) < 150 for count in starts.values())
    assert sample_frame_indices(5, 4, 2, "random", rng) == [0, 2, 4, 4]


def test_random_needs_a_generator_and_is_reproducible():
    sampling = ClipSampling(4, 2, "random", num_clips=3)
    clips = sampling.sample(1000, np.random.default_rng(5))
    assert clips == sampling.sample(1000, np.random.default_rng(5))
    assert clips != sampling.sample(1000, np.random.default_rng(6))
    assert len({clip[0] for clip in clips}) == 3
    for sample in (lambda rng: sampling.sample(9, rng), lambda rng: sample_frame_indices(9, 4, 1, "random", rng)):
        with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator with .* 'random', got None"):
            sample(None)
        with pytest.raises(TypeError, match=r"rng must be a numpy.random.Generator, got 3"):
            sample(3)


# Several clips


@st.composite
def samplings(draw):
    strategy = draw(STRATEGY)
    return ClipSampling(
        num_frames=draw(st.integers(1, 40)),
        sampling_rate=1 if strategy == "uniform" else draw(RATE),
        strategy=strategy,
        num_clips=1 if strategy == "start" else draw(st.integers(1, 12)),
        num_crops=draw(st.sampled_from([1, 3])),
    )


@given(sampling=samplings(), total=COUNT)
def test_clips_are_in_range_ascending_and_as_many_as_asked(sampling, total):
    clips = sampling.sample(total, np.random.default_rng(0))
    assert len(clips) == sampling.num_clips
    assert sampling.num_views == sampling.num_clips * sampling.num_crops
    for clip in clips:
        assert len(clip) == sampling.num_frames
        assert all(isinstance(index, int) and 0 <= index < total for index in clip)
        assert clip == sorted(clip)
    if sampling.strategy != "random":
        assert clips == sorted(clips)


@given(sampling=samplings(), total=COUNT)
def test_one_clip_is_what_sample_frame_indices_gives(sampling, total):
    one = replace(sampling, num_clips=1)
    expected = sample_frame_indices(total, one.num_frames, one.sampling_rate, one.strategy, np.random.default_rng(0))
    assert one.sample(total, np.random.default_rng(0)) == [expected]


@given(num=st.integers(1, 40), rate=RATE, clips=st.integers(2, 12), extra=st.integers(0, 2000))
def test_centred_clips_spread_from_the_first_start_to_the_last(num, rate, clips, extra):
    sampling = ClipSampling(num, rate, "center", num_clips=clips)
    starts = [clip[0] for clip in sampling.sample(num * rate + extra)]
    assert (starts[0], starts[-1]) == (0, extra)
    gaps = [after - before for before, after in pairwise(starts)]
    assert max(gaps) - min(gaps) <= 1
    if clips % 2:
        centre = replace(sampling, num_clips=1).sample(num * rate + extra)[0]
        assert sampling.sample(num * rate + extra)[clips // 2] == centre


def test_centred_clips_of_a_short_video_are_all_the_same():
    assert ClipSampling(4, 2, "center", num_clips=3).sample(5) == [[0, 2, 4, 4]] * 3


@given(num=st.integers(1, 40), clips=st.integers(1, 12), repeat=st.integers(1, 9))
def test_uniform_clips_interleave_to_the_uniform_clip_of_all_their_frames(num, clips, repeat):
    total = num * clips * repeat
    found = ClipSampling(num, num_clips=clips).sample(total)
    together = [clip[i] for i in range(num) for clip in found]
    assert together == sample_frame_indices(total, num * clips, strategy="uniform")


@given(num=st.integers(1, 40), clips=st.integers(1, 12), total=COUNT)
def test_uniform_clips_take_their_fraction_of_each_segment(num, clips, total):
    for j, clip in enumerate(ClipSampling(num, num_clips=clips).sample(total)):
        for i, index in enumerate(clip):
            point = (i + (j + 0.5) / clips) * total / num
            assert point - 1 - 1e-6 <= index <= point + 1e-6


def test_to_dict_is_json_safe_and_complete():
    sampling = ClipSampling(8, 4, "center", 5, 3, 29.97)
    assert ClipSampling(**json.loads(json.dumps(sampling.to_dict()))) == sampling


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"num_frames": 0}, ValueError, "num_frames must be at least 1, got 0"),
        ({"num_frames": 1.0}, TypeError, r"num_frames must be an integer, got 1.0 \(float\)"),
        ({"num_clips": 0}, ValueError, "num_clips must be at least 1, got 0"),
        ({"num_crops": 2}, ValueError, "num_crops must be 1 or 3, got 2"),
        ({"sampling_rate": 2}, ValueError, "sampling_rate must be 1 with the strategy 'uniform'.* got 2"),
        ({"strategy": "start", "num_clips": 2}, ValueError, "num_clips must be 1 with the strategy 'start'.* got 2"),
        ({"target_fps": 0}, ValueError, "target_fps must be a finite number above 0 .* got 0"),
        ({"target_fps": float("nan")}, ValueError, "target_fps must be .* got nan"),
        ({"target_fps": "30"}, ValueError, "target_fps must be .* got '30'"),
    ],
)
def test_fields_are_validated(fields, error, message):
    with pytest.raises(error, match=message):
        ClipSampling(**{"num_frames": 8, **fields})


def test_frames_of_the_video_are_validated():
    with pytest.raises(ValueError, match="total_frames must be at least 1, got 0"):
        ClipSampling(8).sample(0)


# Presets

PAPER = {"videomae": (16, 1), "vivit": (32, 2), "timesformer": (8, 32), "motionformer": (16, 4)}
BY_RATE = ["kinetics400", "epic-kitchens-100"]
BY_SEGMENT = ["something-something-v2", "class-folders"]


@pytest.mark.parametrize("model_type", PAPER)
def test_presets_of_the_paper(model_type):
    num_frames, rate = PAPER[model_type]
    for dataset in BY_RATE:
        assert sampling_preset(model_type, dataset) == ClipSampling(num_frames, rate, "center")
    for dataset in BY_SEGMENT:
        assert sampling_preset(model_type, dataset) == ClipSampling(num_frames, 1, "uniform")


@pytest.mark.parametrize("model_type", PAPER)
def test_full_presets(model_type):
    num_frames, rate = PAPER[model_type]
    rate = 4 if model_type == "videomae" else rate  # as it was trained
    for dataset in BY_RATE:
        full = sampling_preset(model_type, dataset, protocol="full")
        assert full == ClipSampling(num_frames, rate, "center", num_clips=5, num_crops=3)
    for dataset in BY_SEGMENT:
        full = sampling_preset(model_type, dataset, protocol="full")
        assert full == ClipSampling(num_frames, 1, "uniform", num_clips=2, num_crops=3)


@given(
    model_type=st.sampled_from(list(PAPER)),
    num_frames=st.integers(1, 300),
    protocol=st.sampled_from(["paper", "full"]),
)
def test_another_number_of_frames_keeps_the_span(model_type, num_frames, protocol):
    usual = sampling_preset(model_type, "kinetics400", protocol=protocol)
    span = usual.num_frames * usual.sampling_rate
    found = sampling_preset(model_type, "kinetics400", num_frames=num_frames, protocol=protocol)
    assert found == replace(usual, num_frames=num_frames, sampling_rate=found.sampling_rate)
    if num_frames <= span:
        assert span - num_frames < num_frames * found.sampling_rate <= span
    else:
        assert found.sampling_rate == 1


@pytest.mark.parametrize("num_frames", [1, 2, 4, 8, 16])
def test_moving_digits_are_seen_from_start_to_end(num_frames):
    sampling = sampling_preset("videomae", "moving-digits", num_frames=num_frames)
    assert sampling.sample(16) == [list(range(0, 16, 16 // num_frames))]


def test_an_architecture_that_is_not_in_the_table():
    assert sampling_preset("vjepa2", "class-folders", num_frames=64) == ClipSampling(64)
    known = r"model_type must be one .* \('motionformer', 'timesformer', 'videomae', 'vivit'\), got 'vjepa2'"
    with pytest.raises(ValueError, match=known + r".*sampling_preset\(..., num_frames=...\)"):
        sampling_preset("vjepa2", "class-folders")
    with pytest.raises(ValueError, match=known + r".*ClipSampling\(...\)"):
        sampling_preset("vjepa2", "kinetics400", num_frames=64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "kinetics-400"}, "dataset must be one of 'kinetics400', .* got 'kinetics-400'"),
        ({"protocol": "half"}, "protocol must be one of 'paper', 'full', got 'half'"),
        ({"num_frames": 0}, "num_frames must be at least 1, got 0"),
        (
            {"dataset": "moving-digits", "num_frames": 32},
            "num_frames must be at most 16 on 'moving-digits'.* got 32",
        ),
        (
            {"dataset": "moving-digits", "protocol": "full"},
            "protocol must be 'paper' on 'moving-digits', got 'full'",
        ),
    ],
)
def test_arguments_of_presets_are_validated(arguments, message):
    with pytest.raises(ValueError, match=message):
        sampling_preset("videomae", **{"dataset": "kinetics400", **arguments})
