"""Video decoding (PyAV), frame sampling, torch-only clip transforms and datasets.

The names below are imported on first use, so that `import hf_video_tome` pulls in neither PyAV nor `datasets`.

Examples:
    >>> from hf_video_tome.data import sample_frame_indices
    >>> sample_frame_indices(total_frames=100, num_frames=4, sampling_rate=2)
    [46, 48, 50, 52]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .augmentation import ClipAugmentation
    from .grey_levels import input_threshold
    from .groups import split_by_group
    from .loading import DATASETS, DatasetEntry, load
    from .sampling import ClipSampling, sample_frame_indices, sampling_preset
    from .transforms import ClipTransform
    from .video.clips import VideoSegment, read_clips
    from .video.decoding import frame_timestamps, probe_video, read_frames, read_frames_at
    from .video.frame_folder import FrameFolder
    from .video.types import VideoDecodingError, VideoInfo

__all__ = [
    "DATASETS",
    "ClipAugmentation",
    "ClipSampling",
    "ClipTransform",
    "DatasetEntry",
    "FrameFolder",
    "VideoDecodingError",
    "VideoInfo",
    "VideoSegment",
    "frame_timestamps",
    "input_threshold",
    "load",
    "probe_video",
    "read_clips",
    "read_frames",
    "read_frames_at",
    "sample_frame_indices",
    "sampling_preset",
    "split_by_group",
]

__getattr__, __dir__ = lazy_names(__name__)
