"""Files of cameras, browsers, recorders and cutting tools, which are not as an encoder writes them."""

from __future__ import annotations

import io
import re
import tracemalloc
from itertools import pairwise
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
    WIDTH,
    encode,
    frame_number,
    numbered_frame,
    remux,
    write_packets,
)

from hf_video_tome.data.sampling import ClipSampling
from hf_video_tome.data.video.clips import VideoSegment, read_clips
from hf_video_tome.data.video.decoding import frame_timestamps, probe_video, read_frames, read_frames_at
from hf_video_tome.data.video.types import VideoDecodingError

H264 = {"g": "30", "bf": "3", "preset": "fast"}
NO_B_FRAMES = {"g": "30", "bf": "0", "preset": "fast"}
VP9 = {"g": "30", "deadline": "realtime", "cpu-used": "8", "b": "500k"}
HEVC = {"x265-params": "log-level=error:keyint=30:min-keyint=30:no-open-gop=1:bframes=2", "preset": "ultrafast"}
OPEN_HEVC = {"x265-params": "log-level=error:keyint=30:min-keyint=30:open-gop=1:bframes=2", "preset": "ultrafast"}
MPEG2 = {"g": "15", "bf": "2", "b": "2M"}


def numbers(frames: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in frames]


def numbered(count: int, first: int = 0, height: int = HEIGHT, width: int = WIDTH) -> list[np.ndarray]:
    return [numbered_frame(number, height, width) for number in range(first, first + count)]


def decoded(path: Path) -> torch.Tensor:
    """Every frame that FFmpeg gives, by the simplest possible loop."""
    import av

    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        for packet in container.demux(stream):
            try:
                frames += [frame.to_ndarray(format="rgb24") for frame in packet.decode()]
            except av.error.InvalidDataError:
                assert not frames  # what comes before the first key frame
                stream.codec_context.flush_buffers()
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)


def check_frames(path: Path, expected: torch.Tensor) -> None:
    """Checks that all that is said of the frames of a video, and all ways to read them, agree."""
    count = len(expected)
    times = frame_timestamps(path)
    assert probe_video(path).num_frames == len(times) == count
    assert np.all(np.diff(times) > 0)
    assert torch.equal(read_frames(path, range(count)), expected)
    for index in range(0, count, 13):
        assert torch.equal(read_frames(path, [index])[0], expected[index])
    for sampling in (ClipSampling(8), ClipSampling(4, 8, "center", 3)):
        clips = read_clips(path, sampling)
        assert torch.equal(clips, expected[torch.tensor(sampling.sample(count))])
    shown = [int(np.flatnonzero(times <= second + 1e-3)[-1]) for second in np.arange(0.3, times[-1], 0.7)]
    assert torch.equal(read_frames_at(path, np.arange(0.3, times[-1], 0.7)), expected[shown])
    with pytest.raises(VideoDecodingError, match=rf"has {count} frames"):
        read_frames(path, [count])


# Which track


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("still", ["mjpeg", "libx264"])
def test_the_track_that_players_show(tmp_path, suffix, still):
    import av
    from av.stream import Disposition

    path = tmp_path / f"two.{suffix}"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream(still, rate=25), container.add_stream("libx264", rate=25, options=H264)]
        for stream, size, default in zip(streams, ((96, 96), (HEIGHT, WIDTH)), (False, True), strict=True):
            stream.height, stream.width = size
            stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
            stream.disposition = Disposition.default if default else Disposition(0)
        frames = [(streams[0], numbered_frame(200, 96, 96)), *((streams[1], frame) for frame in numbered(40))]
        for stream, pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    info = probe_video(path)
    assert (info.num_frames, info.height, info.width, info.codec) == (40, HEIGHT, WIDTH, "h264")
    assert len(frame_timestamps(path)) == 40
    assert numbers(read_frames(path, [0, 39])) == [0, 39]
    assert numbers(read_clips(path, ClipSampling(4))[0]) == [5, 15, 25, 35]


# Which files are broken


def with_duration_tag(data: bytes, duration: str) -> bytes:
    place = data.index(b"DURATION") + len("DURATION")
    begin = data.index(b"00:00:", place)
    return data[:begin] + duration.encode() + data[begin + len(duration) :]


@pytest.fixture(scope="module")
def complete_files(tmp_path_factory, video_files) -> dict[str, Path]:
    """Complete files whose headers announce more frames or a longer time than there are."""
    folder = tmp_path_factory.mktemp("complete")
    mpeg4 = encode(folder / "mpeg4.mp4", numbered(60), "mpeg4", options={"g": "12", "b": "2M"})

    def drop_most(number, packet):
        packet.dts = packet.pts = packet.pts + number // 10 * 512 * 25  # a second without frames after every tenth
        return True

    def linger(number, packet):
        packet.duration = packet.duration if number < NUM_FRAMES - 1 else 25 * packet.duration * 10
        return True

    ivf = bytearray(encode(folder / "wrong.ivf", numbered(60), "libvpx-vp9", options=VP9).read_bytes())
    ivf[24:28] = (25 * 60).to_bytes(4, "little")  # ticks in place of frames
    files = {
        "dropped.avi": remux(mpeg4, folder / "dropped.avi", change=drop_most),
        "double_rate.avi": remux(
            video_files["h264.mp4"], folder / "double_rate.avi", bitstream_filter="h264_mp4toannexb"
        ),
        "ticks.ivf": folder / "ticks.ivf",
        "long_last.mkv": remux(video_files["h264.mp4"], folder / "long_last.mkv", change=linger),
        "stale.mkv": folder / "stale.mkv",
        "stale.webm": folder / "stale.webm",
    }
    files["ticks.ivf"].write_bytes(ivf)
    files["stale.mkv"].write_bytes(with_duration_tag(video_files["open_gop.mkv"].read_bytes(), "01:07:44."))
    files["stale.webm"].write_bytes(with_duration_tag(video_files["vp9.webm"].read_bytes(), "00:00:44."))
    return files


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("dropped.avi", 60),
        ("double_rate.avi", NUM_FRAMES),
        ("ticks.ivf", 60),
        ("long_last.mkv", NUM_FRAMES),
        ("stale.mkv", NUM_FRAMES),
        ("stale.webm", NUM_FRAMES),
    ],
)
def test_a_length_in_a_header_is_no_evidence(complete_files, name, count):
    path = complete_files[name]
    assert probe_video(path).num_frames == len(frame_timestamps(path)) == count
    assert numbers(read_clips(path, ClipSampling(4))[0]) == [count * k // 8 for k in (1, 3, 5, 7)]
    assert numbers(read_frames(path, [count - 1, count], pad=True)) == [count - 1] * 2
    assert numbers(read_clips(path, ClipSampling(3, 1, "start"), segment=VideoSegment(0, 0.1))[0]) == [0, 1, 2]


def test_frames_of_an_avi_that_were_dropped_have_their_time(complete_files):
    times = frame_timestamps(complete_files["dropped.avi"])
    assert times[[0, 9, 10, 59]] == pytest.approx([0, 0.36, 1.4, 7.36])


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory, video_files) -> dict[str, bytes]:
    """Files as encoders and recorders write them, by what their container says of its end."""
    folder = tmp_path_factory.mktemp("whole")
    files = {name: video_files[name].read_bytes() for name in ("long_gop.mp4", "fragmented.mp4", "open_gop.mkv")}
    files |= {name: video_files[name].read_bytes() for name in ("vp9.webm", "mpeg4.avi")}
    for name, codec, options in (("a.ts", "mpeg2video", MPEG2), ("a.mpg", "mpeg2video", MPEG2), ("a.wmv", "wmv2", {})):
        files[name] = encode(folder / name, numbered(60), codec, options=options).read_bytes()
    files["a.flv"] = remux(video_files["h264.mp4"], folder / "a.flv").read_bytes()

    files["piped.mkv"] = piped(video_files["h264.mp4"], "matroska")
    return files


def piped(source: Path, container: str) -> bytes:
    """Copies a video as a browser records: nothing can be filled in afterwards."""
    import av

    class Pipe(io.RawIOBase):
        data = b""

        def write(self, part):
            self.data += bytes(part)
            return len(part)

        def writable(self):
            return True

    pipe = Pipe()
    with av.open(str(source)) as reader, av.open(pipe, "w", format=container) as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                writer.mux(packet)
    return pipe.data


WHOLE = ["long_gop.mp4", "fragmented.mp4", "open_gop.mkv", "vp9.webm", "mpeg4.avi"]
WHOLE += ["a.ts", "a.mpg", "a.wmv", "a.flv", "piped.mkv"]


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_was_cut_off_is_known_by_its_container(whole_files, name):
    data = whole_files[name]
    assert probe_video(data).num_frames in (60, NUM_FRAMES)
    reasons = set()
    for share in (0.4, 0.55, 0.7, 0.85):
        cut = data[: int(share * len(data)) | 1]  # odd, as no transport packet is
        for function in (probe_video, frame_timestamps, lambda source: read_clips(source, ClipSampling(4))):
            with pytest.raises(VideoDecodingError) as caught:
                function(cut)
            reasons.add(caught.value.reason)
    assert all("truncated" in reason and "\n" not in reason for reason in reasons)


@pytest.mark.parametrize("name", [name for name in WHOLE if name not in ("a.flv", "a.mpg")])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_is_cut_off_is_never_replaced_by_something_else(whole_files, name, data):
    whole = whole_files[name]
    cut = whole[: data.draw(st.integers(len(whole) // 4, len(whole) - 200)) | 1]
    with pytest.raises(VideoDecodingError):
        read_clips(cut, ClipSampling(4))


PART = 25


def encoded(folder: Path, name: str, codec: str, height: int = HEIGHT, width: int = WIDTH, pix_fmt="yuv420p") -> bytes:
    return encode(folder / name, numbered(PART, 0, height, width), codec, pix_fmt=pix_fmt).read_bytes()


def y4m(colours: str, length: int) -> bytes:
    frames = (b"FRAME Ip\n" + bytes([number, 128]) * (length // 2) for number in range(PART))
    return f"YUV4MPEG2 W16 H10 F25:1 Ip {colours}\n".replace("  ", " ").encode() + b"".join(frames)


@pytest.mark.parametrize(
    ("make", "zeros_may_follow"),
    [
        pytest.param(lambda folder: encoded(folder, "a.mxf", "mpeg2video"), True, id="mxf"),
        pytest.param(
            lambda folder: encoded(folder, "a.mxf", "prores", pix_fmt="yuv422p10le"), True, id="mxf of prores"
        ),
        pytest.param(lambda folder: y4m("", 240), True, id="y4m"),
        pytest.param(lambda folder: y4m("C422p10", 640), True, id="y4m of 10 bits"),
        pytest.param(lambda folder: y4m("Cmono", 160), True, id="y4m in grey"),
        pytest.param(lambda folder: encoded(folder, "a.dv", "dvvideo", 576, 720), False, id="dv"),
        pytest.param(lambda folder: encoded(folder, "a.dv", "dvvideo", 576, 720, "yuv422p"), False, id="dv50"),
        pytest.param(lambda folder: encoded(folder, "a.ivf", "libvpx"), True, id="ivf"),
        pytest.param(lambda folder: encoded(folder, "a.ivf", "libvpx-vp9"), True, id="ivf of vp9"),
        pytest.param(lambda folder: encoded(folder, "a.apng", "apng", pix_fmt="rgb24"), True, id="apng"),
        pytest.param(lambda folder: encoded(folder, "a.apng", "apng", pix_fmt="gray"), True, id="apng in grey"),
        pytest.param(lambda folder: encoded(folder, "a.swf", "flv"), True, id="swf"),
        pytest.param(lambda folder: encoded(folder, "a.swf", "mjpeg", pix_fmt="yuvj420p"), True, id="swf of mjpeg"),
        pytest.param(lambda folder: encoded(folder, "a.rm", "rv10", 96, 128), True, id="rm"),
        pytest.param(lambda folder: encoded(folder, "a.ogg", "libvpx"), True, id="ogg"),
        pytest.param(lambda folder: encoded(folder, "a.gif", "gif", pix_fmt="rgb8"), True, id="gif"),
        *(
            pytest.param(
                lambda folder, suffix=suffix, codec=codec, form=form: (
                    encoded(folder, f"a.{suffix}", codec) and piped(folder / f"a.{suffix}", form)
                ),
                True,
                id=f"{codec} in {suffix}, through a pipe",
            )
            for suffix, form, codecs in (("avi", "avi", ["mpeg4", "mpeg2video"]), ("wmv", "asf", ["wmv2", "msmpeg4"]))
            for codec in codecs
        ),
    ],
)
def test_a_part_that_is_not_all_there_shows_that_a_file_was_cut_off(tmp_path, make, zeros_may_follow):
    whole = make(tmp_path)
    assert probe_video(whole).num_frames == PART
    if zeros_may_follow:
        assert probe_video(whole + bytes(70_000)).num_frames == PART
    for share in (0.54, 0.62, 0.71, 0.79, 0.87, 0.97):
        with pytest.raises(VideoDecodingError, match="truncated"):
            probe_video(whole[: int(share * len(whole)) | 1])


@pytest.mark.parametrize("appended", [bytes(70_000), b"\r\n", b"\xff" * 5000, b"TAGwhat some tool appended"])
@pytest.mark.parametrize("pix_fmt", ["rgb8", "gray"])
def test_what_follows_the_trailer_of_a_gif_is_no_part_of_it(tmp_path, pix_fmt, appended):
    whole = encoded(tmp_path, "a.gif", "gif", pix_fmt=pix_fmt)
    assert probe_video(whole + appended).num_frames == len(frame_timestamps(whole + appended)) == PART
    with pytest.raises(VideoDecodingError, match=r"truncated.*'trailer'"):
        probe_video(whole[:-1])
    with pytest.raises(VideoDecodingError, match="truncated"):
        probe_video(whole[:-1] + bytes(100))


@pytest.mark.parametrize(("name", "codec", "options"), [("a.ts", "mpeg2video", MPEG2), ("b.ts", "libx264", H264)])
@pytest.mark.parametrize("zeros", [188 * 4, 100_000, 300_000])
def test_zeros_after_the_last_packet_are_no_part_of_a_transport_stream(tmp_path, name, codec, options, zeros):
    data = encode(tmp_path / name, numbered(60), codec, options=options).read_bytes() + bytes(zeros)
    assert probe_video(data).num_frames == len(frame_timestamps(data)) == 60
    assert numbers(read_frames(data, [0, 59])) == [0, 59]
    assert numbers(read_clips(data, ClipSampling(3))[0]) == [10, 30, 50]


# Which frames there are


@pytest.fixture(scope="module")
def whole_groups(tmp_path_factory) -> dict[str, Path]:
    """Files of 120 numbered frames in groups of 30."""
    folder = tmp_path_factory.mktemp("groups")
    return {
        name: encode(folder / f"{name}.{suffix}", numbered(NUM_FRAMES), codec, options=options)
        for name, codec, suffix, options in (
            ("h264", "libx264", "mp4", H264),
            ("no_b_frames", "libx264", "mp4", NO_B_FRAMES),
            ("hevc", "libx265", "mp4", HEVC),
            ("open_hevc", "libx265", "mp4", OPEN_HEVC),
            ("vp9", "libvpx-vp9", "webm", VP9),
            ("vp8", "libvpx", "webm", VP9),
            ("mpeg2", "mpeg2video", "ts", MPEG2),
        )
    }


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("h264", "ts"),
        ("h264", "mkv"),
        ("h264", "mp4"),
        ("hevc", "ts"),
        ("hevc", "mp4"),
        ("vp9", "webm"),
        ("vp8", "webm"),
        ("mpeg2", "ts"),
        ("mpeg2", "mpg"),
    ],
)
def test_a_file_that_begins_within_a_group_has_the_frames_from_its_first_key_frame_on(
    whole_groups, tmp_path, codec, suffix
):
    path = remux(whole_groups[codec], tmp_path / f"cut.{suffix}", change=lambda number, packet: number >= 5)
    expected = decoded(path)
    assert frame_number(expected[0]) in (15, 30)
    check_frames(path, expected)


def test_frames_before_the_first_key_frame_that_refer_to_what_was_cut_away_are_none(whole_groups, tmp_path):
    keys = []

    def from_second_key_frame(number, packet):
        keys.extend([number] if packet.is_keyframe else [])
        return len(keys) >= 2

    for suffix in ("mkv", "ts"):
        keys.clear()
        path = remux(whole_groups["open_hevc"], tmp_path / f"cut.{suffix}", change=from_second_key_frame)
        check_frames(path, decoded(path))


def without_first_groups(source: Path, target: Path, groups: int = 1) -> Path:
    keys = []

    def keep(number, packet):
        keys.extend([number] if packet.is_keyframe else [])
        return len(keys) > groups

    return remux(source, target, change=keep)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("suffix", "codec"), [("264", "libx264"), ("m2v", "mpeg2video"), ("avi", "mpeg4")])
def test_files_without_time_stamps_that_begin_within_an_open_group(tmp_path, suffix, codec, groups):
    options = {"g": "30", "bf": "2", "b": "2M"} if codec != "libx264" else FORMATS["open_gop.mkv"][1]
    source = encode(tmp_path / "whole.ts", numbered(90), codec, options=options)
    path = without_first_groups(source, tmp_path / f"cut.{suffix}", groups)
    count = len(decoded(path))
    assert count in (60, 30)  # the leading frames are not shown
    check_frames(path, decoded(path))


@pytest.mark.parametrize("codec", ["mpeg1video", "mpeg2video"])
@pytest.mark.parametrize("pack", [-1, -2, -3, -5])
def test_a_program_stream_that_was_cut_between_two_packs_has_the_frames_that_can_be_read(tmp_path, codec, pack):
    data = encode(tmp_path / "a.mpg", numbered(60), codec, options=MPEG2).read_bytes()
    starts = [place.start() for place in re.finditer(b"\x00\x00\x01\xba", data)]
    path = tmp_path / "cut.mpg"
    path.write_bytes(data[: starts[pack]])
    with pytest.raises(VideoDecodingError, match=r"has \d+ frames|only \d+ frames") as caught:
        read_frames(path, [60])
    if "only" in str(caught.value):  # its last frame cannot be decoded
        for function in (probe_video, frame_timestamps):
            with pytest.raises(VideoDecodingError, match="truncated or broken"):
                function(path)
    else:
        assert (
            probe_video(path).num_frames
            == len(frame_timestamps(path))
            == int(re.findall(r"has (\d+)", str(caught.value))[0])
        )


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("h264", "mp4"),
        ("h264", "ts"),
        ("no_b_frames", "mp4"),
        ("no_b_frames", "mkv"),
        ("hevc", "mp4"),
        ("open_hevc", "mkv"),
        ("vp9", "webm"),
    ],
)
def test_without_one_key_frame_in_the_middle(whole_groups, tmp_path, codec, suffix):
    keys = []

    def without_third_key_frame(number, packet):
        keys.extend([number] if packet.is_keyframe else [])
        return not (packet.is_keyframe and len(keys) == 3)

    path = remux(whole_groups[codec], tmp_path / f"lacking.{suffix}", change=without_third_key_frame)
    check_frames(path, decoded(path))


def test_random_clips_follow_the_generator_where_the_packets_are_no_frames(whole_groups, tmp_path):
    path = remux(whole_groups["hevc"], tmp_path / "cut.ts", change=lambda number, packet: number >= 5)
    sampling = ClipSampling(4, 2, "random", num_clips=2)
    rng, expected = np.random.default_rng(3), np.random.default_rng(3)
    clips = [numbers(clip) for clip in read_clips(path, sampling, rng=rng)]
    assert clips == [[30 + index for index in clip] for clip in sampling.sample(90, expected)]
    assert rng.bit_generator.state == expected.bit_generator.state


def test_seeking_goes_on_where_only_times_vary(uneven_files, monkeypatch):
    from hf_video_tome.data.video import video_file

    seen = []
    original = video_file.decode_packet
    monkeypatch.setattr(video_file, "decode_packet", lambda *args: [*original(*args), *(seen.append(1) or [])])
    assert numbers(read_frames(uneven_files["uneven.mp4"], [110])) == [110]
    assert len(seen) < 80  # of 120: around the pause, and from the key frame before


# When they are shown


def joined(tmp_path: Path, *parts: Path) -> Path:
    path = tmp_path / f"joined{parts[0].suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(("codec", "options"), [("libx264", H264), ("mpeg2video", MPEG2)])
@pytest.mark.parametrize("delay", [0, 3600], ids=["again", "far ahead"])
def test_recordings_that_follow_each_other_in_a_transport_stream(tmp_path, codec, options, delay):
    first = encode(tmp_path / "a.ts", numbered(50), codec, options=options)
    second = encode(tmp_path / "b.ts", numbered(50, 100), codec, options=options)
    path = joined(tmp_path, first, remux(second, tmp_path / "c.ts", delay))
    assert frame_timestamps(path) == pytest.approx(np.arange(100) / 25, abs=1e-6)
    info = probe_video(path)
    assert (info.num_frames, info.duration, info.fps) == (100, pytest.approx(4), pytest.approx(25))
    expected = [*range(50), *range(100, 150)]
    assert numbers(read_frames(path, range(100))) == expected
    assert numbers(read_clips(path, ClipSampling(20, 1, "start", target_fps=5))[0]) == expected[::5]
    assert (
        numbers(read_clips(path, ClipSampling(25, 1, "start"), segment=VideoSegment(1.5, 2.5))[0]) == expected[38:63]
    )


@pytest.mark.parametrize(("name", "days"), [("far.mkv", 300), ("far.mp4", 1)])
def test_memory_does_not_depend_on_how_far_away_a_time_stamp_is(tmp_path, name, days):
    def last_far_away(number, packet):
        if number == 119:
            packet.pts = packet.dts = packet.pts + round(days * 86400 / packet.time_base)
        return True

    source = encode(tmp_path / "plain.mp4", numbered(NUM_FRAMES), "libx264", options=NO_B_FRAMES)
    path = remux(source, tmp_path / name, change=last_far_away)
    for sampling in (ClipSampling(16, strategy="center", target_fps=10), ClipSampling(4, target_fps=1000)):
        tracemalloc.start()
        clips = read_clips(path, sampling)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert {number for clip in clips for number in numbers(clip)} == {118}
        assert peak < 10_000_000
    assert numbers(read_clips(path, ClipSampling(3, 4, "start", target_fps=25))[0]) == [0, 4, 8]


# Size, rotation, colours


def two_sizes(tmp_path: Path, name: str) -> Path:
    small, large = numbered(20), numbered(20, 20, 96, 128)
    if name.endswith("ts"):
        parts = [
            encode(tmp_path / f"{k}.ts", frames, "mpeg2video", options=MPEG2)
            for k, frames in enumerate((small, large))
        ]
        return joined(tmp_path, *parts)
    parts = [encode(tmp_path / f"{k}.webm", frames, "libvpx", options=VP9) for k, frames in enumerate((small, large))]

    import av

    path = tmp_path / name  # a call whose size changes: packets of both in one track
    with av.open(str(parts[0])) as first, av.open(str(parts[1])) as second, av.open(str(path), "w") as writer:
        copy = writer.add_stream_from_template(first.streams.video[0])
        for reader, shift in ((first, 0), (second, 800)):
            for packet in reader.demux(video=0):
                if packet.dts is not None:
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, copy
                    writer.mux(packet)
    return path


@pytest.mark.parametrize("name", ["call.webm", "broadcast.ts"])
def test_frames_of_another_size_are_scaled_to_the_first(tmp_path, name):
    path = two_sizes(tmp_path, name)
    info = probe_video(path)
    # FFmpeg's decoder of MPEG-2 loses the frame that it holds back when the size changes.
    expected = [number for number in range(40) if number != 19 or name == "call.webm"]
    assert (info.num_frames, info.height, info.width) == (len(expected), HEIGHT, WIDTH)
    assert len(frame_timestamps(path)) == len(expected)
    assert numbers(read_frames(path, range(len(expected)))) == expected
    assert read_frames(path, [30]).shape == (1, 3, HEIGHT, WIDTH)  # whatever else is asked for
    assert torch.equal(read_frames(path, [30]), read_frames(path, [2, 30])[1:])
    assert numbers(read_clips(path, ClipSampling(4))[0]) == [
        expected[index] for index in ClipSampling(4).sample(len(expected))[0]
    ]


def upright(frames: torch.Tensor, quarters: int) -> list[int]:
    return numbers(torch.rot90(frames, quarters, (2, 3)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_display_matrix_in_the_stream_holds_until_the_next(whole_groups, tmp_path, suffix):
    path = remux(
        whole_groups["h264"],
        tmp_path / f"turned.{suffix}",
        # With the first frame only.
        bitstream_filter=("h264_mp4toannexb," if suffix == "ts" else "")
        + "h264_metadata=display_orientation=insert:rotate=90",
    )
    info = probe_video(path)
    assert (info.height, info.width) == (WIDTH, HEIGHT)
    frames = read_frames(path, range(NUM_FRAMES))
    assert upright(frames, -1) == list(range(NUM_FRAMES))
    for index in (0, 1, 35, 100):
        assert torch.equal(read_frames(path, [index])[0], frames[index])
    assert upright(read_clips(path, ClipSampling(3))[0], -1) == [20, 60, 100]
    assert upright(read_clips(path, ClipSampling(2), segment=VideoSegment(3, 4))[0], -1) == [81, 93]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("at", [35, 60])
def test_a_turn_that_begins_in_the_middle_is_the_same_for_a_frame_alone(whole_groups, tmp_path, suffix, at):
    import av

    # Its packets begin with a message of their display orientation: 90 degrees, until the next one.
    turn = bytes.fromhex("00000007 062f0308000980")
    path = tmp_path / f"turned.{suffix}"
    with av.open(str(whole_groups["no_b_frames"])) as reader, av.open(str(path), "w") as writer:
        copy = writer.add_stream_from_template(reader.streams.video[0])
        for number, packet in enumerate(packet for packet in reader.demux(video=0) if packet.dts is not None):
            turned = av.Packet(turn * (number == at) + bytes(packet))
            turned.pts, turned.dts, turned.time_base = packet.pts, packet.dts, packet.time_base
            turned.is_keyframe, turned.duration, turned.stream = packet.is_keyframe, packet.duration, copy
            writer.mux(turned)
    frames = read_frames(path, range(NUM_FRAMES))
    assert numbers(frames[:at]) == list(range(at))
    assert numbers(frames[at : at + 2]) != [at, at + 1]
    for index in (at - 1, at, at + 24, 89, 91, 119):
        assert torch.equal(read_frames(path, [index])[0], frames[index])
    assert torch.equal(read_clips(path, ClipSampling(4))[0], frames[[15, 45, 75, 105]])


def jpeg(pixels: np.ndarray, orientation: int | None) -> bytes:
    from PIL import Image

    file, exif = io.BytesIO(), Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    exif[0x010F] = "camera"
    Image.fromarray(pixels).save(file, "JPEG", quality=95, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [None, 2, 3, 5, 6, 8])
@pytest.mark.parametrize("everywhere", [True, False])
def test_pictures_with_exif(tmp_path, orientation, everywhere):
    from PIL import Image, ImageOps

    pictures = [jpeg(pixels, orientation if everywhere or k == 0 else None) for k, pixels in enumerate(numbered(3))]
    path = write_packets(tmp_path / "a.avi", "mjpeg", pictures)
    picture = Image.fromarray(numbered_frame(2))
    picture.getexif()[0x0112] = orientation or 1
    expected = torch.from_numpy(np.array(ImageOps.exif_transpose(picture))).permute(2, 0, 1)
    frame = read_frames(path, [2])[0]
    assert frame.shape == expected.shape
    assert (frame.float() - expected.float()).abs().mean() < 8
    assert probe_video(path).width == expected.shape[2]


@pytest.mark.parametrize("code", [3, 8, 10, 14])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_colour_matrix_that_ffmpeg_cannot_convert_counts_as_unspecified(tmp_path, name, code):
    import av

    videos = []
    for value in (2, code):
        path = tmp_path / f"{value}_{name}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"g": "5"})
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
            stream.codec_context.colorspace = value
            for pixels in numbered(6):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                frame.colorspace = value
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        videos.append(read_frames(path, range(6)))
    assert torch.equal(*videos)


# Whatever PyAV raises


@pytest.mark.parametrize("error", [ValueError("31 is not\na valid Type"), OSError(95, "Operation not supported")])
@pytest.mark.parametrize("place", ["decode", "convert"])
def test_whatever_pyav_raises_is_one_line_about_that_file(video_files, monkeypatch, error, place):
    from hf_video_tome.data.video import pixels, video_file

    def broken(*args, **kwargs):
        raise error

    if place == "convert":
        monkeypatch.setattr(pixels.FrameCollector, "_to_rgb", broken)
    else:

        class Decoder:
            decode = staticmethod(broken)

        original = video_file._video_stream

        class Stream:
            def __init__(self, stream):
                self.original = stream

            def __getattr__(self, name):
                return Decoder() if name == "codec_context" else getattr(self.original, name)

        monkeypatch.setattr(video_file, "_video_stream", lambda *args: Stream(original(*args)))
        monkeypatch.setattr(video_file, "codec_name", lambda stream: "h264")
        monkeypatch.setattr(video_file, "_all_packets", lambda video: video.container.demux(video=0))
    with pytest.raises(VideoDecodingError) as caught:
        read_frames(video_files["h264.mp4"], [0])
    assert caught.value.source == str(video_files["h264.mp4"])
    assert "\n" not in str(caught.value)
    assert ("valid Type" in str(caught.value)) or ("not supported" in str(caught.value))


def test_times_are_ascending_in_all_formats(video_files):
    for path in video_files.values():
        assert all(before < after for before, after in pairwise(frame_timestamps(path)))


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {"movflags": "dash+frag_keyframe"}),
        ("mp4", {"movflags": "frag_every_frame+empty_moov"}),
        ("flv", {}),
    ],
)
def test_containers_without_one_index_are_read_whole_and_known_to_be_cut(tmp_path, suffix, options):
    """A fragmented mp4 has an index for each fragment, of which FFmpeg knows a part when it opens the file."""
    frames = [numbered_frame(number) for number in range(60)]
    path = encode(tmp_path / f"whole.{suffix}", frames, "libx264", options={"g": "15"}, container_options=options)
    assert probe_video(path).num_frames == 60
    content = path.read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    for share in (0.5, 0.6, 0.71, 0.83, 0.9):
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(VideoDecodingError, match="truncated"):
            probe_video(cut)
