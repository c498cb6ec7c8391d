"""Small real video files, written with PyAV, whose frames carry their own number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from av.packet import Packet

HEIGHT, WIDTH = 64, 96
_BITS = 8


def numbered_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A moving texture under a row of black and white blocks that spell `number` in binary."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (height // 8 + 8, width // 8 + 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frame = np.roll(texture, (number, 2 * number), (0, 1))[:height, :width].copy()
    step = width // _BITS
    for bit in range(_BITS):
        frame[:16, bit * step : (bit + 1) * step] = 255 * (number >> bit & 1)
    return frame


def frame_number(frame: torch.Tensor) -> int:
    """Reads the number back from a decoded (3, H, W) frame."""
    step = frame.shape[-1] // _BITS
    bits = [int(frame[:, 4:12, bit * step + 3 : (bit + 1) * step - 3].float().mean() > 127) for bit in range(_BITS)]
    return sum(bit << position for position, bit in enumerate(bits))


def encode(
    path: Path,
    frames: list[np.ndarray],
    codec: str,
    fps: int = 25,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    display_rotation: tuple[float, bool, bool] | None = None,
    times: Sequence[float] | None = None,
) -> Path:
    """Writes a video, at a constant rate or (`times`, in seconds) with a time for each frame."""
    import av

    clock = 90000

    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if display_rotation is not None:
            degrees, hflip, vflip = display_rotation
            stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, clock)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * clock), Fraction(1, clock)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def remux(
    source: Path,
    target: Path,
    delay: float = 0,
    change: Callable[[int, Packet], bool] = lambda number, packet: True,
    bitstream_filter: str | None = None,
) -> Path:
    """Copies a video without encoding it again, every frame `delay` seconds later.

    A negative delay hides, in an mp4, the frames before its beginning. `change` gets each packet and its number, may
    change its times, and says whether it is kept.
    """
    import av

    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        bitstream = av.BitStreamFilterContext(bitstream_filter, stream) if bitstream_filter else None
        shift = round(delay / stream.time_base)
        packets = [packet for packet in reader.demux(stream) if packet.dts is not None]
        for number, packet in enumerate(packets):
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            if not change(number, packet):
                continue
            for ready in [packet] if bitstream is None else bitstream.filter(packet):
                ready.stream = copy
                writer.mux(ready)
    return target


def write_packets(
    path: Path, codec: str, packets: Sequence[bytes], fps: int = 25, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> Path:
    """Writes encoded pictures, such as JPEG files, as a video."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p"
        for number, data in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, fps), stream, True
            container.mux(packet)
    return path


def write_pictures(folder: Path, pattern: str, numbers: Sequence[int]) -> Path:
    """Writes the numbered frames as pictures that carry the same number in their names."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(numbered_frame(number)).save(folder / pattern.format(number), quality=95)
    return folder


# One per container and codec; groups of 30 pictures, with B-frames or hidden reference frames where there are such.
FORMATS: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "h264.mp4": ("libx264", {"g": "30", "bf": "3", "preset": "fast"}, {}),
    "long_gop.mp4": ("libx264", {"g": "250", "bf": "3", "preset": "fast"}, {"movflags": "faststart"}),
    "open_gop.mp4": (
        "libx264",
        {"x264-params": "open-gop=1:keyint=30:bframes=4:b-adapt=0:b-pyramid=normal:scenecut=0"},
        {},
    ),
    "open_gop_first.mp4": (
        "libx264",
        {"x264-params": "open-gop=1:keyint=30:bframes=4:b-adapt=0:b-pyramid=normal:scenecut=0"},
        {"movflags": "faststart"},
    ),
    "fragmented.mp4": ("libx264", {"g": "30", "bf": "3"}, {"movflags": "frag_keyframe+empty_moov"}),
    "open_gop.mkv": (
        "libx264",
        {"x264-params": "open-gop=1:keyint=30:bframes=4:b-adapt=0:b-pyramid=normal:scenecut=0"},
        {},
    ),
    "intra_refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=30:scenecut=0:bframes=2"}, {}),
    "vp9.webm": ("libvpx-vp9", {"g": "30", "deadline": "realtime", "cpu-used": "8", "b": "500k"}, {}),
    "mpeg4.avi": ("mpeg4", {"g": "30", "bf": "2", "b": "2M"}, {}),
}
NUM_FRAMES = 120

# As of a phone that drops frames in the dark: 30 per second, then 12, then a pause of 1.5 s, then 30 again.
_STEPS = [1 / 30] * 40 + [1 / 12] * 30 + [1.5] + [1 / 30] * 48
UNEVEN_TIMES: list[float] = np.cumsum([0.0, *_STEPS]).tolist()
