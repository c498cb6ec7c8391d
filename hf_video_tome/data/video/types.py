"""What a video is given as, what is known of it, and the error of one that cannot be read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import BinaryIO, NoReturn, TypeAlias

from .frame_folder import FrameFolder

VideoSource: TypeAlias = str | os.PathLike[str] | bytes | bytearray | BinaryIO | FrameFolder
"""A path (of a file, or of a folder of extracted frames), the bytes of a file, or an open binary file."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a video without decoding all of it.

    Attributes:
        num_frames: Number of frames.
        fps: Average frames per second; 0.0 where the container has no timing.
        duration: Length in seconds; 0.0 where the container has no timing.
        width: Width in pixels as shown, that is after rotation.
        height: Height in pixels as shown.
        codec: FFmpeg's name of the codec, as in "h264", "vp9", "mpeg4".
    """

    num_frames: int
    fps: float
    duration: float
    width: int
    height: int
    codec: str


class VideoDecodingError(ValueError):
    """A video cannot be read, or not as far as asked; the message names the video and the reason.

    Attributes:
        source: The video: its path, or a description where there is none.
        reason: What is wrong with it, without the name, for counting reasons over a data set.

    Examples:
        >>> from hf_video_tome.data import probe_video
        >>> try:
        ...     probe_video("missing.mp4")
        ... except VideoDecodingError as error:
        ...     print(error)
        missing.mp4: no such file
    """

    # Takes the finished message as its only required argument: that is how data loader workers re-raise it.
    def __init__(self, message: str, source: str | None = None, reason: str | None = None) -> None:
        super().__init__(message)
        self.source = source
        self.reason = reason


def fail(name: str, reason: str) -> NoReturn:
    """Raises the error of a video that cannot be read, for this reason."""
    raise VideoDecodingError(f"{name}: {reason}", name, reason)


def why(error: Exception) -> str:
    """Says in one line what PyAV raised."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__
