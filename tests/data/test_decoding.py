from __future__ import annotations

import gc
import io
import math
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
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
)

from hf_video_tome.data.video import decoding, seeking, video_file
from hf_video_tome.data.video.decoding import frame_timestamps, probe_video, read_frames, read_frames_at
from hf_video_tome.data.video.types import VideoDecodingError

UNEVEN = ("uneven.mp4", "uneven.mkv", "uneven.webm")


class MissingVideo(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return read_frames("missing.mp4", [0])


def numbers(frames: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in frames]


def seek_and_read(path: Path, indices: list[int]) -> torch.Tensor | None:
    with video_file.open_video(path) as video:
        keys = seeking.find_keys(video)
        return None if keys is None else seeking.read_by_rank(video, keys, indices)


# Probing


@pytest.mark.parametrize("name", FORMATS)
def test_probe(video_files, name):
    info = probe_video(video_files[name])
    assert (info.num_frames, info.width, info.height) == (NUM_FRAMES, WIDTH, HEIGHT)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration == pytest.approx(NUM_FRAMES / 25, abs=0.05)
    assert info.codec == {"libx264": "h264", "libvpx-vp9": "vp9", "mpeg4": "mpeg4"}[FORMATS[name][0]]


@pytest.mark.parametrize("name", UNEVEN)
def test_probe_of_a_variable_rate(uneven_files, name):
    info = probe_video(uneven_files[name])
    assert info.num_frames == NUM_FRAMES
    assert info.duration == pytest.approx(UNEVEN_TIMES[-1] + 1 / 30, abs=0.02)
    assert info.fps == pytest.approx(NUM_FRAMES / info.duration, rel=0.01)


def test_webm_has_no_frame_count_of_its_own(video_files):
    import av

    with av.open(str(video_files["vp9.webm"])) as container:
        assert container.streams.video[0].frames == 0  # what makes the count by packets necessary


# Which frame is which


@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_in_presentation_order(video_files, decoded_files, name):
    frames = read_frames(video_files[name], range(NUM_FRAMES))
    assert frames.shape == (NUM_FRAMES, 3, HEIGHT, WIDTH)
    assert frames.dtype == torch.uint8
    assert frames.is_contiguous()
    assert [frame_number(frame) for frame in frames] == list(range(NUM_FRAMES))
    assert torch.equal(frames, decoded_files[name])


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("first", [48, 59, 60, 61, 87, 88, 89, 90, 91, 118])
def test_late_indices_give_the_identical_frames(video_files, decoded_files, name, first):
    indices = [first, min(first + 3, NUM_FRAMES - 1), NUM_FRAMES - 1]
    assert torch.equal(read_frames(video_files[name], indices), decoded_files[name][indices])


@pytest.mark.parametrize("name", ["h264.mp4", "open_gop.mp4", "open_gop.mkv", "fragmented.mp4", "vp9.webm"])
def test_seeking_is_really_used_and_exact_everywhere(video_files, decoded_files, name):
    everything = decoded_files[name]
    for index in range(60, NUM_FRAMES, 3):
        frames = seek_and_read(video_files[name], [index])
        assert frames is not None
        assert torch.equal(frames, everything[index : index + 1])
        frames = seek_and_read(video_files[name], [index - 58, index])  # skipping what lies between
        assert frames is not None
        assert torch.equal(frames, everything[[index - 58, index]])


@pytest.mark.parametrize("name", FORMATS)
def test_any_choice_of_frames_is_exact(video_files, decoded_files, name):
    rng = np.random.default_rng(0)
    for size in (2, 3, 5, 9):
        indices = rng.integers(0, NUM_FRAMES, size).tolist()
        assert torch.equal(read_frames(video_files[name], indices), decoded_files[name][indices])


def test_seeking_decodes_less(video_files, monkeypatch):
    decoded = []
    original = video_file.decode_packet

    def counting(*args):
        frames = original(*args)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(video_file, "decode_packet", counting)
    read_frames(video_files["h264.mp4"], [100, 101])
    assert len(decoded) < 30
    decoded.clear()
    read_frames(video_files["h264.mp4"], [0, 61, 119])  # in three groups of 30
    assert len(decoded) < 50
    decoded.clear()
    read_frames(video_files["h264.mp4"], [0, 3])
    assert len(decoded) <= 8  # stops at the last index, give or take what the decoder gives at once


@pytest.mark.parametrize("name", ["intra_refresh.mkv", "mpeg4.avi", "long_gop.mp4"])
def test_no_seek_where_it_would_not_be_exact_or_not_help(video_files, name):
    # Key frames that are not complete by themselves; a container with unreliable time stamps; a single key frame.
    assert seek_and_read(video_files[name], [100]) is None


def test_hidden_frames_of_an_edit_list_do_not_count(video_files, tmp_path):
    # As left by trimming without encoding again: ten frames are stored, needed for decoding, but not shown.
    path = remux(video_files["h264.mp4"], tmp_path / "trimmed.mp4", delay=-10 / 25)
    assert probe_video(path).num_frames == NUM_FRAMES - 10
    assert [frame_number(frame) for frame in read_frames(path, [0, 1, 109])] == [10, 11, 119]
    frames = seek_and_read(path, [75, 90])
    assert frames is not None
    assert [frame_number(frame) for frame in frames] == [85, 100]
    assert frame_timestamps(path) == pytest.approx(np.arange(110) / 25)
    assert numbers(read_frames_at(path, [0, 1])) == [10, 35]


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_unsorted_and_repeated_indices(video_files, name):
    indices = [70, 5, 70, 0, 33, 5]
    frames = read_frames(video_files[name], indices)
    assert [frame_number(frame) for frame in frames] == indices


def test_indices_may_be_numpy_or_torch_integers(video_files):
    path = video_files["h264.mp4"]
    expected = read_frames(path, [2, 4])
    assert torch.equal(read_frames(path, np.array([2, 4])), expected)
    assert torch.equal(read_frames(path, torch.tensor([2, 4])), expected)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "at least one frame"),
        ([0, -1], ValueError, "must be 0 or more, got -1"),
        ([0.5], TypeError, "must hold integers, got 0.5"),
        ([True], TypeError, "must hold integers, got True"),
    ],
)
def test_indices_are_validated(video_files, indices, error, message):
    with pytest.raises(error, match=message):
        read_frames(video_files["h264.mp4"], indices)


# Which frame is shown when


@pytest.mark.parametrize("name", FORMATS)
def test_times_of_a_constant_rate(video_files, name):
    times = frame_timestamps(video_files[name])
    assert times.dtype == np.float64
    assert times == pytest.approx(np.arange(NUM_FRAMES) / 25, abs=1e-9)


@pytest.mark.parametrize("name", UNEVEN)
def test_times_of_a_variable_rate(uneven_files, name):
    clock = 1e-9 if name.endswith("mp4") else 5.1e-4  # mkv and webm count milliseconds
    assert frame_timestamps(uneven_files[name]) == pytest.approx(np.array(UNEVEN_TIMES), abs=clock)


@pytest.mark.parametrize("name", UNEVEN)
def test_frames_by_time(uneven_files, name):
    path = uneven_files[name]
    # Frame 70 stays for 1.5 s; every other time here is a frame's own, in any order.
    wanted = [71, 0, 41, 119, 70]
    assert numbers(read_frames_at(path, [UNEVEN_TIMES[number] for number in wanted])) == wanted
    pause = UNEVEN_TIMES[70]
    assert numbers(read_frames_at(path, [pause - 0.01, pause + 0.01, pause + 1.49, pause + 1.51])) == [
        69,
        70,
        70,
        71,
    ]


@pytest.mark.parametrize(("name", "fps"), [("a.mp4", 30), ("a.webm", 30), ("a.mkv", 24), ("a.avi", 30), ("a.ts", 25)])
def test_time_k_over_rate_is_frame_k(tmp_path, name, fps):
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "ts": "mpeg2video"}.get(name[2:], "libx264")
    path = encode(tmp_path / name, [numbered_frame(number) for number in range(50)], codec, fps, {"g": "10"})
    wanted = list(range(50))
    assert numbers(read_frames_at(path, [k / fps for k in wanted])) == wanted
    assert numbers(read_frames_at(path, [(k + 0.9) / fps for k in wanted])) == wanted


def test_a_delay_of_the_whole_video_plays_no_part(video_files, tmp_path):
    path = remux(video_files["h264.mp4"], tmp_path / "delayed.mp4", delay=0.7)
    assert frame_timestamps(path) == pytest.approx(np.arange(NUM_FRAMES) / 25)
    assert numbers(read_frames_at(path, [0, 3])) == [0, 75]


def test_a_dropped_frame_without_content_does_not_count(video_files):
    data = bytearray(video_files["h264.mp4"].read_bytes())
    place = data.rindex(b"stsz") + 16 + 4 * 119  # the last frame of the file, which nothing refers to
    data[place : place + 4] = bytes(4)
    info = probe_video(bytes(data))
    assert info.num_frames == len(frame_timestamps(bytes(data))) == 119
    assert len(read_frames(bytes(data), [0, 118])) == 2


def test_end_of_the_video(video_files):
    path = video_files["h264.mp4"]  # 120 frames of 0.04 s
    assert numbers(read_frames_at(path, [4.799])) == [119]
    with pytest.raises(VideoDecodingError, match=r"ends at 4\.800 s, but the frame at 4\.900 s was wanted \(pad=True"):
        read_frames_at(path, [0.0, 5.0, 4.9])
    assert numbers(read_frames_at(path, [0.0, 5.0, 4.9], pad=True)) == [0, 119, 119]


@pytest.mark.parametrize(
    ("times", "error", "message"),
    [
        ([], ValueError, "at least one time"),
        ([-0.1], ValueError, "0 or more"),
        ([float("nan")], ValueError, "finite"),
        (["soon"], TypeError, "numbers of seconds, got 'soon'"),
        ([True], TypeError, "numbers of seconds, got True"),
    ],
)
def test_times_are_validated(video_files, times, error, message):
    with pytest.raises(error, match=message):
        read_frames_at(video_files["h264.mp4"], times)


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_frames_chosen_by_the_timeline(video_files, name):
    seen = []

    def choose(timeline):
        seen.append((timeline.name, len(timeline.times), timeline.times[25], timeline.end))
        return [len(timeline.times) - 1, 0]

    path = video_files[name]
    assert numbers(decoding.read_frames_between(path, 0, math.inf, choose)) == [119, 0]
    assert seen == [(str(path), 120, 1.0, pytest.approx(4.8))]


# Padding


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
def test_too_few_frames(video_files, name):
    with pytest.raises(VideoDecodingError, match=r"has 120 frames \(0 to 119\), but frame 120 was wanted"):
        read_frames(video_files[name], [0, 130, 120])


@pytest.mark.parametrize("name", ["h264.mp4", "vp9.webm", "mpeg4.avi"])
@pytest.mark.parametrize("indices", [[118, 119, 120, 125], [0, 119, 500], [200, 300], [119, 0, 121]])
def test_pad_repeats_the_last_frame(video_files, name, indices):
    frames = read_frames(video_files[name], indices, pad=True)
    assert [frame_number(frame) for frame in frames] == [min(index, 119) for index in indices]


# Sources


def test_bytes_and_file_objects(video_files):
    path = video_files["h264.mp4"]
    data = path.read_bytes()
    expected = read_frames(path, [3, 100])
    assert torch.equal(read_frames(str(path), [3, 100]), expected)
    assert torch.equal(read_frames(data, [3, 100]), expected)
    assert torch.equal(read_frames(bytearray(data), [100, 3]), expected.flip(0))
    with path.open("rb") as file:
        file.seek(7)
        assert probe_video(file) == probe_video(path)
        assert frame_timestamps(file) == pytest.approx(frame_timestamps(path))
        assert numbers(read_frames_at(file, [4.0])) == [100]
        assert torch.equal(read_frames(file, [3, 100]), expected)
        assert file.tell() == 7
        assert not file.closed
    assert torch.equal(read_frames(io.BytesIO(data), [3, 100]), expected)


def test_path_that_looks_like_a_url(video_files, tmp_path):
    path = tmp_path / "http: clip.mp4"
    path.write_bytes(video_files["h264.mp4"].read_bytes())
    assert frame_number(read_frames(path, [9])[0]) == 9


def test_wrong_kinds_of_source(tmp_path):
    with pytest.raises(TypeError, match="must be a path, bytes, a binary file object or a FrameFolder, got int"):
        probe_video(3)
    text = tmp_path / "text.mp4"
    text.write_text("words")
    with text.open() as file, pytest.raises(TypeError, match="binary mode"):
        probe_video(file)


# Colour, rotation


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.webm", "libvpx-vp9", "yuv420p"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("b.mp4", "libx264", "yuv444p"),
        ("c.mp4", "libx264", "yuvj420p"),
        ("d.mp4", "libx264", "yuv420p10le"),
        ("e.mp4", "libx264rgb", "rgb24"),
    ],
)
def test_colours(tmp_path, name, codec, pix_fmt):
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 120, 40]])
    frames = [np.full((HEIGHT, WIDTH, 3), colour, dtype=np.uint8) for colour in colours.tolist()]
    path = encode(tmp_path / name, frames, codec, pix_fmt=pix_fmt, options={"b": "2M", "g": "1"})
    decoded = read_frames(path, range(len(colours))).float()
    means = decoded.mean(dim=(2, 3))
    assert (means - colours).abs().max() < 6
    assert decoded.std(dim=(2, 3)).max() < 3


@pytest.mark.parametrize(("matrix", "code", "red", "blue"), [("601", 6, 0.299, 0.114), ("709", 1, 0.2126, 0.0722)])
@pytest.mark.parametrize(("value_range", "range_code"), [("limited", 1), ("full", 2)])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
def test_declared_matrix_and_range_are_heeded(tmp_path, name, codec, matrix, code, red, blue, value_range, range_code):
    import av

    colours = np.array([[255, 255, 255], [0, 0, 0], [200, 120, 40], [30, 180, 90], [60, 40, 220]])
    # By the definition of YCbCr (ITU-R BT.601 and BT.709), not by the library that is to be tested.
    luma = colours @ [red, 1 - red - blue, blue]
    chroma = [(colours[:, 2] - luma) / (2 - 2 * blue), (colours[:, 0] - luma) / (2 - 2 * red)]
    if value_range == "limited":
        luma, chroma = 16 + luma * 219 / 255, [part * 224 / 255 for part in chroma]
    planes = np.stack([luma, 128 + chroma[0], 128 + chroma[1]], axis=1).round().clip(0, 255).astype(np.uint8)

    path, size = tmp_path / name, 64
    options = {"qp": "0"} if codec == "libx264" else {"lossless": "1", "deadline": "realtime", "cpu-used": "8"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = code, range_code
        for values in planes:
            pixels = np.broadcast_to(values[:, None, None], (3, size, size)).copy()
            frame = av.VideoFrame.from_ndarray(pixels, format="yuv444p")
            frame.colorspace, frame.color_range = code, range_code
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decoded = read_frames(path, range(len(colours))).float().mean(dim=(2, 3))
    # Taken for the other matrix, colours would be off by up to 20; for the other range, white and black by 16.
    assert (decoded - torch.from_numpy(colours)).abs().max() < 3


def test_undeclared_colours_are_read_as_bt601(tmp_path):
    frames = [np.full((720, 1280, 3), (200, 120, 40), dtype=np.uint8)]  # of high definition too, unlike some players
    path = encode(tmp_path / "a.mp4", frames, "libx264", pix_fmt="yuv444p", options={"qp": "1", "preset": "ultrafast"})
    assert (read_frames(path, [0])[0].float().mean(dim=(1, 2)) - torch.tensor([200, 120, 40])).abs().max() < 3


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
def test_display_matrix(tmp_path, degrees, hflip, vflip):
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2, 0] = 255  # a red, a green and a blue quarter fix the orientation
    picture[: HEIGHT // 2, WIDTH // 2 :, 1] = 255
    picture[HEIGHT // 2 :, : WIDTH // 2, 2] = 255
    path = encode(tmp_path / "a.mp4", [picture] * 3, "libx264", display_rotation=(degrees, hflip, vflip))

    expected = torch.rot90(torch.from_numpy(picture).permute(2, 0, 1), degrees // 90, (1, 2))  # counter-clockwise
    expected = expected.flip([axis for axis, flipped in ((1, vflip), (2, hflip)) if flipped])
    frames = read_frames(path, [0, 2])
    assert frames.shape[1:] == expected.shape
    assert (frames.float() - expected.float()).abs().mean() < 6
    info = probe_video(path)
    assert (info.height, info.width) == expected.shape[1:]


def test_slanted_display_matrix_is_refused(tmp_path):
    path = encode(tmp_path / "a.mp4", [numbered_frame(0)] * 2, "libx264", display_rotation=(30, False, False))
    with pytest.raises(VideoDecodingError, match=r"turned by .* degrees; only multiples of 90"):
        read_frames(path, [0])


# Files that are no readable video


@pytest.mark.parametrize(
    "function",
    [
        probe_video,
        frame_timestamps,
        lambda source: read_frames(source, [0]),
        lambda source: read_frames_at(source, [0]),
    ],
    ids=["probe", "timestamps", "read", "read_at"],
)
class TestUnreadable:
    def test_missing(self, function, tmp_path):
        path = tmp_path / "missing.mp4"
        with pytest.raises(VideoDecodingError) as caught:
            function(path)
        assert str(caught.value) == f"{path}: no such file"
        assert (caught.value.source, caught.value.reason) == (str(path), "no such file")

    def test_folder(self, function, tmp_path):
        with pytest.raises(VideoDecodingError, match="is a folder, not a video file"):
            function(tmp_path)

    def test_empty(self, function, tmp_path):
        path = tmp_path / "empty.mp4"
        path.touch()
        for source in (path, b"", io.BytesIO()):
            with pytest.raises(VideoDecodingError, match=r"the file is empty \(0 bytes\)"):
                function(source)

    def test_text(self, function, tmp_path):
        path = tmp_path / "text.mp4"
        path.write_text("This is not a video.\n" * 100)
        with pytest.raises(VideoDecodingError, match=r"text\.mp4: not a video, or its header is broken"):
            function(path)
        with pytest.raises(VideoDecodingError, match="<2100 bytes>: not a video"):
            function(path.read_bytes())

    def test_random_bytes(self, function):
        with pytest.raises(VideoDecodingError):
            function(np.random.default_rng(0).bytes(20_000))

    def test_picture(self, function):
        from PIL import Image

        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, "png")
        with pytest.raises(VideoDecodingError, match=r"not a video \(FFmpeg takes it for 'png_pipe'\)"):
            function(buffer.getvalue())

    def test_audio_only(self, function, tmp_path):
        import av

        path = tmp_path / "audio.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        with pytest.raises(VideoDecodingError, match=r"no video stream \(streams: audio\)"):
            function(path)

    def test_mp4_without_its_index(self, function, video_files):
        data = video_files["h264.mp4"].read_bytes()
        with pytest.raises(VideoDecodingError, match="truncated or broken: an mp4 whose index is missing"):
            function(data[: len(data) // 2])


@pytest.mark.parametrize("pad", [False, True])
def test_cut_mp4_with_its_index_first(video_files, pad):
    data = video_files["long_gop.mp4"].read_bytes()
    cut = data[: len(data) // 2]
    with pytest.raises(VideoDecodingError, match=r"truncated: its index reaches up to byte \d+, but it has only"):
        probe_video(cut)
    for function in (frame_timestamps, lambda source: read_frames_at(source, [0.0], pad=pad)):
        with pytest.raises(VideoDecodingError, match=r"truncated: its index reaches up to byte \d+, but it has only"):
            function(cut)
    for indices in ([0, 119], [110, 119]):
        with pytest.raises(VideoDecodingError, match=r"truncated or broken: only \d+ of 120 frames") as caught:
            read_frames(cut, indices, pad=pad)
    count = int(str(caught.value).split("only ")[1].split()[0])
    assert 30 < count < 90
    # What is there can be read, and no more is claimed than can be read.
    assert [frame_number(frame) for frame in read_frames(cut, [0, count - 1])] == [0, count - 1]
    with pytest.raises(VideoDecodingError):
        read_frames(cut, [count])


@pytest.mark.parametrize("name", ["vp9.webm", "open_gop.mkv", "mpeg4.avi"])
@pytest.mark.parametrize("pad", [False, True])
def test_cut_webm_mkv_and_avi(video_files, name, pad):
    data = video_files[name].read_bytes()
    cut = data[: len(data) // 2]
    for function in (probe_video, frame_timestamps, lambda source: read_frames_at(source, [4.0], pad=pad)):
        with pytest.raises(VideoDecodingError, match=r"truncated or broken: it holds only \d+ frames"):
            function(cut)
    with pytest.raises(VideoDecodingError, match=r"truncated or broken: only \d+ frames .*and frame 119 was wanted"):
        read_frames(cut, [0, 119], pad=pad)
    assert frame_number(read_frames(cut, [20])[0]) == 20


@pytest.mark.parametrize("name", ["long_gop.mp4", "open_gop.mkv", "open_gop_first.mp4"])
@pytest.mark.parametrize("share", [0.30, 0.37, 0.44, 0.51, 0.58, 0.65, 0.72, 0.79])
def test_no_frame_of_a_cut_file_gets_a_wrong_index(video_files, name, share):
    # Where the cut falls between a frame and the B-frames that are shown before it, the decoder would skip those.
    data = video_files[name].read_bytes()
    cut = data[: int(share * len(data))]
    with pytest.raises(VideoDecodingError, match=r"only \d+ (of 120 )?frames could be decoded") as caught:
        read_frames(cut, [119], pad=True)
    count = int(str(caught.value).split("only ")[1].split()[0])
    assert count > 10
    assert [frame_number(frame) for frame in read_frames(cut, range(count))] == list(range(count))
    if count > 48:
        assert frame_number(read_frames(cut, [count - 1])[0]) == count - 1


def test_broken_in_the_middle(video_files):
    data = bytearray(video_files["long_gop.mp4"].read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = b"\xff" * 4000
    with pytest.raises(VideoDecodingError, match="truncated or broken: only"):
        read_frames(bytes(data), [0, 119], pad=True)


def test_error_survives_pickling_and_data_loader_workers():
    error = VideoDecodingError("a.mp4: no such file", "a.mp4", "no such file")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.source, copy.reason) == (str(error), "a.mp4", "no such file")
    with pytest.raises(VideoDecodingError, match=r"missing\.mp4: no such file"):
        next(iter(torch.utils.data.DataLoader(MissingVideo(), num_workers=1)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_decoder_of_a_failed_read_does_not_hang_a_forked_worker(video_files):
    cut = video_files["long_gop.mp4"].read_bytes()
    cut = cut[: len(cut) // 2]
    gc.freeze()  # what there is so far need not be searched, which would take seconds in the fork
    with pytest.raises(VideoDecodingError) as kept:  # its traceback keeps the decoder
        read_frames(cut, [0, 119])
    worker = os.fork()
    if worker == 0:
        del kept
        gc.collect()
        os._exit(0)
    gc.unfreeze()
    for _ in range(100):
        done, status = os.waitpid(worker, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        pytest.fail("the forked process hung")
    assert status == 0
