from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from video_samples import HEIGHT, WIDTH, frame_number, write_pictures

from hf_video_tome.data.sampling import ClipSampling
from hf_video_tome.data.video import frame_files
from hf_video_tome.data.video.clips import read_clips
from hf_video_tome.data.video.decoding import (
    frame_timestamps,
    probe_video,
    read_frames,
    read_frames_at,
    read_frames_by_rank,
)
from hf_video_tome.data.video.frame_folder import FrameFolder
from hf_video_tome.data.video.types import VideoDecodingError

EPIC = "frame_{:010d}.jpg"


def numbers(frames: torch.Tensor) -> list[int]:
    return [frame_number(frame) for frame in frames]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Frames 1 to 20, as EPIC-KITCHENS names them."""
    return write_pictures(tmp_path / "P01_01", EPIC, range(1, 21))


# A folder's path


@pytest.mark.parametrize("pattern", [EPIC, "img_{:05d}.jpg", "{:05d}.jpg", "v2_frame{}.jpg", "{}.png", "{:03d}.JPEG"])
def test_frames_are_sorted_by_their_number(tmp_path, pattern):
    folder = write_pictures(tmp_path / "frames", pattern, [2, 10, 1, 100, 9])
    frames = read_frames(folder, [4, 0, 1, 2, 3, 0])
    assert (frames.shape, frames.dtype) == ((6, 3, HEIGHT, WIDTH), torch.uint8)
    assert numbers(frames) == [100, 1, 2, 9, 10, 1]  # a gap in the numbers is none in the frames
    assert torch.equal(read_frames(str(folder), [0]), frames[1:2])


def test_pixels_are_those_of_the_picture(tmp_path):
    folder = write_pictures(tmp_path / "frames", "{}.png", [3])
    with Image.open(folder / "3.png") as image:
        assert torch.equal(read_frames(folder, [0])[0].permute(1, 2, 0), torch.from_numpy(np.array(image)))


def test_probe_a_folder(folder):
    info = probe_video(folder)
    assert (info.num_frames, info.width, info.height, info.codec) == (20, WIDTH, HEIGHT, "mjpeg")
    assert (info.fps, info.duration) == (0.0, 0.0)
    info = probe_video(FrameFolder(folder, start=3, fps=50))
    assert (info.num_frames, info.fps, info.duration) == (18, 50, 0.36)


def test_other_files_and_hidden_ones_play_no_part(folder):
    (folder / "audio_1.wav").touch()
    (folder / "._frame_0000000001.jpg").touch()
    (folder / "thumbs").mkdir()
    assert probe_video(folder).num_frames == 20


def test_too_few_frames(folder):
    with pytest.raises(VideoDecodingError, match=r"has 20 frames \(0 to 19\), but frame 20 was wanted \(pad=True"):
        read_frames(folder, [0, 20])
    assert numbers(read_frames(folder, [0, 20, 50, 19], pad=True)) == [1, 20, 20, 20]


@pytest.mark.parametrize("function", [probe_video, frame_timestamps, lambda source: read_frames(source, [0])])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"is a folder, not a video file, and holds no frames either \(.jpg, .jpeg, .png\)"),
        (["clip.mp4"], "is a folder, not a video file"),
        (["cover.jpg", "1.jpg"], "an image whose name has no number, so that its position is unknown: cover.jpg"),
        (["img_00001.jpg", "flow_x_00001.jpg"], "two images with the number 1, flow_x_00001.jpg and img_00001.jpg"),
    ],
)
def test_folders_that_are_no_video(tmp_path, function, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(VideoDecodingError, match=message) as caught:
        function(tmp_path)
    assert caught.value.source == str(tmp_path)


# By number


def test_frames_by_number(folder):
    assert numbers(read_frames(FrameFolder(folder), [0, 5, 19])) == [1, 6, 20]
    part = FrameFolder(folder, start=8, stop=12)
    assert probe_video(part).num_frames == 4
    assert numbers(read_frames(part, [3, 0])) == [11, 8]
    with pytest.raises(VideoDecodingError, match=r"has 4 frames \(0 to 3\), but frame 4 was wanted"):
        read_frames(part, [4])
    assert numbers(read_frames(part, [9], pad=True)) == [11]


def test_a_folder_with_a_stop_is_never_listed(folder, monkeypatch):
    def refuse(*args):
        raise AssertionError("listed")

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refuse)
    part = FrameFolder(folder, start=2, stop=20, fps=10)
    assert probe_video(part).num_frames == len(frame_timestamps(part)) == 18
    assert numbers(read_frames_by_rank(part, lambda name, num_frames: [num_frames - 1])) == [19]
    assert numbers(read_frames(part, [30], pad=True)) == [19]
    assert numbers(read_frames(FrameFolder(folder), [19])) == [20]  # nor is one without, for frames that are there


def test_a_gap_is_an_error_that_names_the_file(folder):
    (folder / EPIC.format(7)).unlink()
    for source in (FrameFolder(folder), FrameFolder(folder, stop=21)):
        assert probe_video(source).num_frames == 20
        assert numbers(read_frames(source, [5, 7])) == [6, 8]
        with pytest.raises(VideoDecodingError, match=r"P01_01: frame frame_0000000007\.jpg is missing"):
            read_frames(source, [5, 6, 7], pad=True)
    with pytest.raises(VideoDecodingError, match=r"frame_0000000021\.jpg is missing"):
        read_frames(FrameFolder(folder, stop=30), [20], pad=True)  # the caller said that it was there


def test_end_of_a_folder_without_a_stop(folder):
    for extra in ("frame_25.jpg", "frame_0000000030.png", "flow_0000000030.jpg"):
        (folder / extra).touch()  # of other patterns
    assert probe_video(FrameFolder(folder, start=5)).num_frames == 16
    assert numbers(read_frames(FrameFolder(folder, start=5), [40], pad=True)) == [20]
    with pytest.raises(VideoDecodingError, match=r"without frames named 'frame_\{:010d\}.jpg' from number 21"):
        probe_video(FrameFolder(folder, start=21))


@pytest.mark.parametrize("stop", [30, 108])
def test_a_stretch_that_goes_on_after_the_last_picture_ends_there(folder, stop):
    # As EPIC-KITCHENS-100 has them; a segment of a video ends with it in the same way.
    part = FrameFolder(folder, start=12, stop=stop, fps=10)
    assert probe_video(part).num_frames == len(frame_timestamps(part)) == 9
    assert numbers(read_clips(part, ClipSampling(12, strategy="start"))[0]) == [*range(12, 21), 20, 20, 20]
    assert numbers(read_clips(part, ClipSampling(3))[0]) == [13, 16, 19]
    with pytest.raises(VideoDecodingError, match=r"frame_0000000021\.jpg is missing"):
        read_frames(part, [9])  # asked for by its number


def test_a_stretch_after_the_last_picture(folder):
    with pytest.raises(VideoDecodingError, match=r"from number 21 on, which ends with number 20"):
        read_clips(FrameFolder(folder, start=21, stop=30), ClipSampling(4))


def test_missing_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VideoDecodingError, match="nowhere: no such folder"):
        read_frames(FrameFolder(tmp_path / "nowhere"), [0])
    with pytest.raises(VideoDecodingError, match="file: is not a folder"):
        probe_video(FrameFolder(tmp_path / "file"))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"path": 3}, TypeError, "path must be a folder's path, got 3"),
        ({"start": -1}, ValueError, "start must be 0 or more, got -1"),
        ({"start": 1.0}, TypeError, "start must be an integer, got 1.0"),
        ({"stop": 1}, ValueError, r"stop must be above start \(1\), got 1"),
        ({"stop": True}, TypeError, "stop must be an integer, got True"),
        ({"fps": 0}, ValueError, "fps must be a finite number above 0"),
        *(
            ({"pattern": pattern}, ValueError, "pattern must be a file name ending in .jpg, .jpeg, .png with one")
            for pattern in ("a.jpg", "{}{}.jpg", "{name}.jpg", "{:,}.jpg", "{:+d}.jpg", "{}.mp4", "a/{}.jpg", "{", 3)
        ),
    ],
)
def test_fields_are_validated(fields, error, message):
    with pytest.raises(error, match=message):
        FrameFolder(**{"path": "frames", **fields})


def test_it_can_be_sent_to_workers(folder):
    part = FrameFolder(folder, start=8, stop=12)
    assert pickle.loads(pickle.dumps(part)) == part


# Times


def test_times_need_a_rate(folder):
    assert frame_timestamps(FrameFolder(folder, fps=50)) == pytest.approx(np.arange(20) / 50)
    assert numbers(read_frames_at(FrameFolder(folder, fps=50), [0.06, 0.0])) == [4, 1]
    for source in (folder, FrameFolder(folder)):
        with pytest.raises(VideoDecodingError, match=r"frames, which have no times.*FrameFolder\(..., fps="):
            frame_timestamps(source)


# Pictures


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "1", "P", "RGBA", "LA"])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode):
    picture = Image.new("RGB", (WIDTH, HEIGHT), (255, 255, 255)).convert(mode)
    picture.save(tmp_path / ("1.jpg" if mode in ("L", "RGB", "CMYK") else "1.png"))
    frames = read_frames(tmp_path, [0])
    assert (frames.shape, frames.float().mean().item()) == ((1, 3, HEIGHT, WIDTH), 255.0)


def test_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (48, 32)).save(tmp_path / "1.jpg", exif=exif)
    assert read_frames(tmp_path, [0]).shape == (1, 3, 32, 48)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((32, 48), 40_000, dtype=np.uint16)).save(tmp_path / "1.png")
    with pytest.raises(VideoDecodingError, match=r"1\.png has more than 8 bits per channel"):
        read_frames(tmp_path, [0])


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_broken_pictures(tmp_path, suffix):
    folder = write_pictures(tmp_path / "frames", "{}." + suffix, [1, 2, 3, 4])
    data = (folder / f"2.{suffix}").read_bytes()
    (folder / f"2.{suffix}").write_bytes(data[: len(data) // 2])
    (folder / f"3.{suffix}").write_text("This is not a picture.")
    (folder / f"4.{suffix}").write_bytes(b"")
    for index in (1, 2, 3):
        with pytest.raises(VideoDecodingError, match=rf"frame {index + 1}\.{suffix} is not an image, or a broken one"):
            read_frames(folder, [0, index], pad=True)
    assert numbers(read_frames(folder, [0])) == [1]


def test_frames_of_different_size(tmp_path):
    folder = write_pictures(tmp_path / "frames", "{}.jpg", [1])
    Image.new("RGB", (48, 32)).save(folder / "2.jpg")
    with pytest.raises(VideoDecodingError, match=r"size changes .* from 64x96 \(1\.jpg\) to 32x48 \(2\.jpg\)"):
        read_frames(folder, [0, 1])


def test_every_picture_is_read_once(folder, monkeypatch):
    read = []
    original = frame_files._read_picture
    monkeypatch.setattr(frame_files, "_read_picture", lambda *args: read.append(args) or original(*args))
    assert numbers(read_frames(folder, [3, 3, 1, 3])) == [4, 4, 2, 4]
    assert len(read) == 2
