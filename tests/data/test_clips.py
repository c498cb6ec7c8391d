from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from video_samples import (
    FORMATS,
    HEIGHT,
    NUM_FRAMES,
    UNEVEN_TIMES,
    WIDTH,
    encode,
    frame_number,
    numbered_frame,
    remux,
    write_pictures,
)

from hf_video_tome.data.sampling import ClipSampling
from hf_video_tome.data.video import seeking, video_file
from hf_video_tome.data.video.clips import VideoSegment, read_clips
from hf_video_tome.data.video.decoding import frame_timestamps, read_frames
from hf_video_tome.data.video.frame_folder import FrameFolder
from hf_video_tome.data.video.types import VideoDecodingError

LONG = 20_000  # frames, at 50 per second: 400 s


def numbers(clips: torch.Tensor) -> list[list[int]]:
    return [[frame_number(frame) for frame in clip] for clip in clips]


@pytest.fixture(scope="session")
def long_file(tmp_path_factory) -> Path:
    """An untrimmed mp4 of 400 s whose frame k carries the number k // 100."""
    pictures = [numbered_frame(number, 32, 64) for number in range(LONG // 100)]
    frames = [pictures[k // 100] for k in range(LONG)]
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return encode(path, frames, "libx264", 50, {"preset": "ultrafast", "g": "100", "bf": "2"})


@lru_cache(maxsize=16)
def all_frames(path: Path) -> torch.Tensor:
    return read_frames(path, range(NUM_FRAMES))


# All of a video


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "sampling",
    [
        ClipSampling(8),
        ClipSampling(4, num_clips=2),
        ClipSampling(5, sampling_rate=3, strategy="start"),
        ClipSampling(4, sampling_rate=2, strategy="center", num_clips=3),
    ],
    ids=["uniform", "uniform2", "start", "center3"],
)
def test_clips_are_the_sampled_frames(video_files, decoded_files, name, sampling):
    clips = read_clips(video_files[name], sampling)
    assert (clips.shape[:2], clips.dtype) == ((sampling.num_clips, sampling.num_frames), torch.uint8)
    assert torch.equal(clips, decoded_files[name][torch.tensor(sampling.sample(NUM_FRAMES))])


def test_random_clips_follow_the_generator(video_files):
    sampling = ClipSampling(4, 2, "random", num_clips=2)
    clips = read_clips(video_files["h264.mp4"], sampling, rng=np.random.default_rng(3))
    assert numbers(clips) == sampling.sample(NUM_FRAMES, np.random.default_rng(3))
    with pytest.raises(TypeError, match="rng"):
        read_clips(video_files["h264.mp4"], sampling)


def test_crops_are_not_for_here(video_files):
    assert read_clips(video_files["h264.mp4"], ClipSampling(2, num_crops=3)).shape == (1, 2, 3, HEIGHT, WIDTH)


def test_every_kind_of_source(video_files, tmp_path):
    path = video_files["h264.mp4"]
    expected = numbers(read_clips(path, ClipSampling(4), segment=VideoSegment(1, 3)))
    data = path.read_bytes()
    with path.open("rb") as file:
        for source in (str(path), data, io.BytesIO(data), file):
            assert numbers(read_clips(source, ClipSampling(4), segment=VideoSegment(1, 3))) == expected
    pictures = write_pictures(tmp_path / "frames", "frame_{:010d}.jpg", range(NUM_FRAMES))
    folder = FrameFolder(pictures, start=0, fps=25)
    assert numbers(read_clips(folder, ClipSampling(4), segment=VideoSegment(1, 3))) == expected
    assert numbers(read_clips(pictures, ClipSampling(4))) == numbers(read_clips(path, ClipSampling(4)))
    with pytest.raises(VideoDecodingError, match="have no times"):
        read_clips(pictures, ClipSampling(4), segment=VideoSegment(1, 3))


def test_wrong_arguments(video_files):
    with pytest.raises(TypeError, match="sampling must be a ClipSampling, got 16"):
        read_clips(video_files["h264.mp4"], 16)
    with pytest.raises(TypeError, match=r"segment must be a VideoSegment or None, got \(1, 2\)"):
        read_clips(video_files["h264.mp4"], ClipSampling(4), segment=(1, 2))


# Videos that are shorter than a clip


@pytest.fixture
def short_file(tmp_path) -> Path:
    return encode(tmp_path / "short.mp4", [numbered_frame(number) for number in range(6)], "libx264")


def test_a_short_video_repeats_its_last_frame(short_file):
    assert numbers(read_clips(short_file, ClipSampling(4, 2, "start"))) == [[0, 2, 4, 5]]
    assert numbers(read_clips(short_file, ClipSampling(8, 1, "center"))) == [[0, 1, 2, 3, 4, 5, 5, 5]]


def test_or_it_is_refused(short_file):
    assert read_clips(short_file, ClipSampling(3, 2, "center"), pad=False).shape[1] == 3  # spans 5 frames
    for sampling in (ClipSampling(4, 2, "center"), ClipSampling(7), ClipSampling(7, 1, "start")):
        with pytest.raises(VideoDecodingError, match=r"short\.mp4: has 6 frames, but a clip spans 7 \(pad=True"):
            read_clips(short_file, sampling, pad=False)
    with pytest.raises(VideoDecodingError, match=r"has 2 frames from 0\.080 to 0\.160 s, but a clip spans 3"):
        read_clips(short_file, ClipSampling(3), segment=VideoSegment(0.08, 0.16), pad=False)
    with pytest.raises(VideoDecodingError, match=r"has 2 frames at 10 per second, but a clip spans 3"):
        read_clips(short_file, ClipSampling(3, target_fps=10), pad=False)


def test_a_last_packet_that_gives_no_picture_is_no_frame(short_file, monkeypatch):
    original = video_file.decode_packet
    monkeypatch.setattr(video_file, "decode_packet", lambda *args: [f for f in original(*args) if f.pts < 5 * 512])
    assert numbers(read_clips(short_file, ClipSampling(6))) == [[0, 1, 2, 2, 3, 4]]
    with pytest.raises(VideoDecodingError, match=r"has 5 frames, but a clip spans 6"):
        read_clips(short_file, ClipSampling(6), pad=False)


def test_a_cut_file_is_never_padded(video_files):
    for name in ("long_gop.mp4", "vp9.webm", "mpeg4.avi"):
        data = video_files[name].read_bytes()
        with pytest.raises(VideoDecodingError, match="truncated"):
            read_clips(data[: len(data) // 2], ClipSampling(4))


# Segments


@pytest.mark.parametrize("name", ["h264.mp4", "open_gop.mkv", "vp9.webm", "mpeg4.avi"])
def test_a_segment_is_the_frames_that_begin_in_it(video_files, name):
    path, every = video_files[name], ClipSampling(25, 1, "start")
    assert numbers(read_clips(path, every, segment=VideoSegment(2, 3))) == [list(range(50, 75))]
    assert numbers(read_clips(path, every, segment=VideoSegment(2.001, 3.0)))[0][0] == 51  # 50 begins before it
    assert numbers(read_clips(path, every, segment=VideoSegment(4, 9))) == [[*range(100, 120), *[119] * 5]]


def test_a_segment_between_two_frames_is_the_one_that_is_shown(uneven_files):
    for path in uneven_files.values():
        start = UNEVEN_TIMES[70] + 0.3  # of a pause of 1.5 s
        assert numbers(read_clips(path, ClipSampling(2), segment=VideoSegment(start, start + 0.5))) == [[70, 70]]


def test_a_segment_after_the_end(video_files):
    for name in ("h264.mp4", "vp9.webm", "mpeg4.avi"):
        with pytest.raises(VideoDecodingError, match=r"ends at 4\.800 s, before the segment, .* at 5\.500 s"):
            read_clips(video_files[name], ClipSampling(4), segment=VideoSegment(5.5, 7))
        assert numbers(read_clips(video_files[name], ClipSampling(2), segment=VideoSegment(4.79, 7))) == [[119, 119]]


@pytest.mark.parametrize("name", ["h264.mp4", "open_gop.mp4", "open_gop.mkv", "fragmented.mp4", "vp9.webm"])
def test_a_segment_is_found_without_the_rest_and_exactly(video_files, decoded_files, name):
    # Around every key frame, and its leading frames.
    for first in [*range(0, 8), *range(24, 36), *range(84, 96), 119]:
        with video_file.open_video(video_files[name]) as video:
            timeline, stretch = seeking.find_stretch(video, first / 25, (first + 3) / 25)
            wanted = timeline.shown_at(np.arange(first, min(first + 3, NUM_FRAMES)) / 25).tolist()
            frames = seeking.read_from_stretch(video, stretch, wanted)
        assert torch.equal(frames, decoded_files[name][first : first + 3])
        assert timeline.times[-1] < (first + 60) / 25
        assert timeline.end == (pytest.approx(NUM_FRAMES / 25) if stretch.packets.at_end else np.inf)


def test_random_clips_of_a_segment_that_cannot_be_seeked_follow_the_generator_too(video_files):
    sampling = ClipSampling(4, 2, "random", num_clips=2)
    path, segment = video_files["intra_refresh.mkv"], VideoSegment(2, 4)
    with video_file.open_video(path) as video:
        timeline, stretch = seeking.find_stretch(video, 2, 4)
        assert seeking.read_from_stretch(video, stretch, [timeline.shown_at(np.array([3.0]))[0]]) is None
    expected = [[50 + index for index in clip] for clip in sampling.sample(50, np.random.default_rng(3))]
    assert numbers(read_clips(path, sampling, segment=segment, rng=np.random.default_rng(3))) == expected


@pytest.mark.parametrize("name", ["long_gop.mp4", "open_gop.mkv", "vp9.webm", "mpeg4.avi"])
def test_a_segment_of_a_cut_file_is_read_whole_or_not_at_all(video_files, name):
    data = video_files[name].read_bytes()
    cut, every = data[: len(data) // 2], ClipSampling(10, 1, "start")
    for start in (0, 1, 1.6, 2, 2.4, 2.8, 4.4, 1e300):
        reason, clip = "", None
        try:
            clip = read_clips(cut, every, segment=VideoSegment(start, max(start + 0.4, 1.1 * start)))
        except VideoDecodingError as error:
            reason = str(error)
        assert "truncated" in reason or numbers(clip) == [list(range(round(25 * start), round(25 * start) + 10))]


@pytest.mark.parametrize(
    ("start", "stop", "error", "message"),
    [
        (-1, 2, ValueError, "start must be finite and 0 or more"),
        (float("nan"), 2, ValueError, "start must be finite"),
        (2, 2, ValueError, r"stop must be finite and above start \(2 s\), got 2"),
        (0, float("inf"), ValueError, "stop must be finite"),
        ("0", 1, TypeError, "start must be a number of seconds, got '0'"),
    ],
)
def test_segments_are_validated(start, stop, error, message):
    with pytest.raises(error, match=message):
        VideoSegment(start, stop)


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_segment_is_the_same_as_slicing_the_decoded_video(video_files, uneven_files, data):
    files = {**video_files, **uneven_files}
    path = files[data.draw(st.sampled_from(sorted(files)))]
    start = data.draw(st.floats(0, 4.7))
    stop = start + data.draw(st.floats(0.2, 3))
    sampling = ClipSampling(
        data.draw(st.integers(1, 6)), data.draw(st.integers(1, 20)), "center", data.draw(st.integers(1, 3))
    )
    times = frame_timestamps(path)
    inside = np.flatnonzero((times >= start - 5.01e-4) & (times < stop - 5.01e-4))
    if not inside.size:
        inside = np.array([np.flatnonzero(times <= start)[-1]])
    part = all_frames(path)[inside]
    expected = part[torch.tensor(sampling.sample(len(inside)))]
    assert torch.equal(read_clips(path, sampling, segment=VideoSegment(start, stop)), expected)


# Rates


def test_a_target_rate_takes_what_is_shown_at_each_tick(uneven_files):
    # 30 per second for 40 frames, 12 for 30 frames, a pause of 1.5 s, 30 again.
    for path in uneven_files.values():
        clip = numbers(read_clips(path, ClipSampling(6, 1, "start", target_fps=10)))[0]
        assert clip == [0, 3, 6, 9, 12, 15]
        slow = ClipSampling(13, 1, "start", target_fps=12)
        assert numbers(read_clips(path, slow, segment=VideoSegment(4 / 3, 9))) == [list(range(40, 53))]
        pause = VideoSegment(UNEVEN_TIMES[70], UNEVEN_TIMES[71])
        assert numbers(read_clips(path, ClipSampling(5, target_fps=20), segment=pause)) == [[70] * 5]


def test_clips_of_any_rate_show_the_same_times(tmp_path):
    # Frames that show their own time in units of 1/20 s; at 8 per second the clips of both rates must agree.
    clips = []
    for fps in (20, 40):
        frames = [numbered_frame(20 * k // fps) for k in range(3 * fps)]
        path = encode(tmp_path / f"{fps}.mp4", frames, "libx264", fps)
        clips.append(numbers(read_clips(path, ClipSampling(4, 2, "center", num_clips=3, target_fps=5))))
    assert clips[0] == clips[1] == [[0, 8, 16, 24], [12, 20, 28, 36], [28, 36, 44, 52]]


def test_a_target_rate_above_the_rate_of_the_video_repeats_frames(short_file):
    assert numbers(read_clips(short_file, ClipSampling(6, 1, "start", target_fps=50))) == [[0, 0, 1, 1, 2, 2]]


def test_a_target_rate_below_one_frame_for_the_video(short_file):
    assert numbers(read_clips(short_file, ClipSampling(2, 1, "start", target_fps=0.5))) == [[0, 0]]


@pytest.mark.parametrize("delay", [0.7, -0.4])
def test_edit_lists(video_files, tmp_path, delay):
    # A delay shifts all; a negative one hides ten frames, and the times count from the first one that is left.
    path = remux(video_files["h264.mp4"], tmp_path / "edited.mp4", delay)
    hidden = 10 if delay < 0 else 0
    clip = numbers(read_clips(path, ClipSampling(4, 5, "start"), segment=VideoSegment(1, 2)))[0]
    assert clip == [hidden + number for number in (25, 30, 35, 40)]
    clip = numbers(read_clips(path, ClipSampling(4, 1, "start", target_fps=5), segment=VideoSegment(1, 2)))[0]
    assert clip == [hidden + number for number in (25, 30, 35, 40)]


# Long untrimmed videos


def test_segments_of_a_long_video(long_file):
    for number in (0, 37, 120, 199):
        clip = read_clips(long_file, ClipSampling(4, 25, "center"), segment=VideoSegment(2 * number, 2 * number + 2))
        assert numbers(clip) == [[number] * 4]
    assert numbers(read_clips(long_file, ClipSampling(8))) == [[(2 * k + 1) * LONG // 1600 for k in range(8)]]


def test_a_clip_of_a_long_video_is_read_from_few_packets(long_file, monkeypatch):
    packets = []
    original = video_file.demux

    def counting(*args):
        for packet in original(*args):
            packets.append(packet.size)
            yield packet

    monkeypatch.setattr(video_file, "demux", counting)
    sampling = ClipSampling(4, 10, "center", target_fps=25)
    assert numbers(read_clips(long_file, sampling, segment=VideoSegment(200, 202))) == [[100] * 4]
    assert len(packets) < 500  # of 20 000
