from __future__ import annotations

from pathlib import Path

import pytest
import torch
from video_samples import FORMATS, NUM_FRAMES, UNEVEN_TIMES, encode, numbered_frame


@pytest.fixture(scope="session")
def video_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One file of 120 numbered frames (64 x 96, 25 per second) for every entry of FORMATS."""
    folder = tmp_path_factory.mktemp("videos")
    frames = [numbered_frame(number) for number in range(NUM_FRAMES)]
    return {
        name: encode(folder / name, frames, codec, 25, options, container_options)
        for name, (codec, options, container_options) in FORMATS.items()
    }


@pytest.fixture(scope="session")
def decoded_files(video_files: dict[str, Path]) -> dict[str, torch.Tensor]:
    """Every frame of those files, (120, 3, 64, 96) uint8, by the simplest possible loop."""
    import av

    decoded = {}
    for name, path in video_files.items():
        with av.open(str(path)) as container:
            frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        decoded[name] = torch.stack(frames).permute(0, 3, 1, 2)
    return decoded


@pytest.fixture(scope="session")
def uneven_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of 120 numbered frames (64 x 96) that are shown at UNEVEN_TIMES."""
    folder = tmp_path_factory.mktemp("uneven")
    frames = [numbered_frame(number) for number in range(NUM_FRAMES)]
    h264 = {"g": "30", "bf": "3", "preset": "fast"}
    vp9 = {"g": "30", "deadline": "realtime", "cpu-used": "8", "b": "500k"}
    files = {"uneven.mp4": ("libx264", h264), "uneven.mkv": ("libx264", h264), "uneven.webm": ("libvpx-vp9", vp9)}
    return {
        name: encode(folder / name, frames, codec, options=options, times=UNEVEN_TIMES)
        for name, (codec, options) in files.items()
    }
