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
    from .clips import VideoSegment, read_clips
    from .decoding import VideoDecodingError, VideoInfo, frame_timestamps, probe_video, read_frames, read_frames_at
    from .frame_folder import FrameFolder
    from .loading import DATASETS, DatasetEntry, load
    from .sampling import ClipSampling, sample_frame_indices, sampling_preset
    from .transforms import ClipTransform

__all__ = [
    "DATASETS",
    "ClipSampling",
    "ClipTransform",
    "DatasetEntry",
    "FrameFolder",
    "VideoDecodingError",
    "VideoInfo",
    "VideoSegment",
    "frame_timestamps",
    "load",
    "probe_video",
    "read_clips",
    "read_frames",
    "read_frames_at",
    "sample_frame_indices",
    "sampling_preset",
]

_MODULES = {
    "ClipSampling": "sampling",
    "ClipTransform": "transforms",
    "DATASETS": "loading",
    "DatasetEntry": "loading",
    "FrameFolder": "frame_folder",
    "VideoDecodingError": "decoding",
    "VideoInfo": "decoding",
    "VideoSegment": "clips",
    "frame_timestamps": "decoding",
    "load": "loading",
    "probe_video": "decoding",
    "read_clips": "clips",
    "read_frames": "decoding",
    "read_frames_at": "decoding",
    "sample_frame_indices": "sampling",
    "sampling_preset": "sampling",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
