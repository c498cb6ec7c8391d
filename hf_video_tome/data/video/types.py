"""Video sources, video properties, and the error for unreadable videos."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, TypeAlias

from .frame_folder import FrameFolder

VideoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | BinaryIO | FrameFolder
"""Path of a video file or a folder of extracted frames, bytes of a file, open binary file, or `FrameFolder`."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        num_frames: Number of frames.
        fps: Average frames per second; 0.0 if the container has no timing.
        duration: Length in seconds; 0.0 if the container has no timing.
        width: Display width in pixels, after rotation.
        height: Display height in pixels, after rotation.
        codec: FFmpeg's name of the codec, such as "h264", "vp9" or "mpeg4".
    """

    num_frames: int
    fps: float
    duration: float
    width: int
    height: int
    codec: str


class VideoDecodingError(ValueError):
    """Raised when a video cannot be read as far as requested; the message names the video and the reason.

    Attributes:
        source: Path of the video, or a description if it has none.
        reason: The reason without the name, for counting reasons over a dataset.

    Examples:
        >>> from hf_video_tome.data import probe_video
        >>> try:
        ...     probe_video("missing.mp4")
        ... except VideoDecodingError as error:
        ...     print(error)
        missing.mp4: no such file
    """

    # The complete message is the only required argument: data loader workers re-raise it that way.
    def __init__(self, message: str, source: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


def fail(name: str, reason: str) -> NoReturn:
    """Raises a `VideoDecodingError`."""
    raise VideoDecodingError(f"{name}: {reason}", name, reason)


def why(error: Exception) -> str:
    """Returns the message of a PyAV error on one line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
