"""From video files to model input: decoding (PyAV), frame sampling, the torch-only clip transform, data sets.

The names below are imported on first use, so that `import hf_video_tome` pulls in neither PyAV nor `datasets`.

Examples:
    >>> from hf_video_tome.data import sample_frame_indices
    >>> sample_frame_indices(total_frames=100, num_frames=4, sampling_rate=2)
    [46, 48, 50, 52]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .decoding import VideoDecodingError, VideoInfo, probe_video, read_frames
    from .sampling import sample_frame_indices
    from .transforms import ClipTransform

__all__ = [
    "ClipTransform",
    "VideoDecodingError",
    "VideoInfo",
    "probe_video",
    "read_frames",
    "sample_frame_indices",
]


def __getattr__(name: str) -> Any:
    if name in ("VideoDecodingError", "VideoInfo", "probe_video", "read_frames"):
        module = "decoding"
    elif name == "sample_frame_indices":
        module = "sampling"
    elif name == "ClipTransform":
        module = "transforms"
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
