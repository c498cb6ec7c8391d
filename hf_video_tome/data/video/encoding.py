"""Encoding of frames into video files with PyAV."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

_CONTAINERS = (".mp4", ".mov", ".mkv", ".webm")
_WEBM_CODECS = ("libvpx", "libvpx-vp9", "libaom-av1", "libsvtav1")
# A clock finer than any frame rate in use; keeps 29.97 = 30000/1001 exact.
_MAX_DENOMINATOR = 1001


def write_video(
    path: str | os.PathLike[str],
    frames: np.ndarray | torch.Tensor,
    fps: int | float | Fraction,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    pix_fmt: str = "yuv420p",
) -> Path:
    """Encodes RGB frames into a video file.

    Args:
        path: Output file. Its suffix selects the container: `.mp4`, `.mov`, `.mkv` or `.webm`. The parent folder must
            exist; an existing file is replaced atomically at the end.
        frames: RGB frames, uint8 array or tensor of shape `(num_frames, height, width, 3)`, values 0..255.
        fps: Frames per second, > 0.
        codec: Name of an FFmpeg video encoder, such as `"libx264"` (mp4) or `"libvpx-vp9"` (webm).
        options: Encoder options by FFmpeg name, such as `{"crf": "23"}`.
        pix_fmt: FFmpeg pixel format. `"yuv420p"` (the default, which every player supports) needs an even height and
            width.

    Returns:
        The path of the written file.

    Raises:
        ValueError: If an argument is out of range or conflicts with another; the message names it.
        TypeError: If `frames` is not an array or tensor.
        FileNotFoundError: If the parent folder of `path` does not exist.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from hf_video_tome.data.video.encoding import write_video
        >>> frames = np.zeros((16, 48, 48, 3), dtype=np.uint8)
        >>> write_video(f"{tempfile.mkdtemp()}/black.mp4", frames, fps=8).name
        'black.mp4'
    """
    import av

    path = Path(path)
    array = _as_uint8_rgb(frames)
    rate = _as_frame_rate(fps)
    if path.suffix.lower() not in _CONTAINERS:
        raise ValueError(f"path must end in one of {', '.join(_CONTAINERS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path: the folder {str(path.parent)!r} does not exist")
    if not _is_video_encoder(codec):
        raise ValueError(f"codec must be a video encoder of the installed PyAV such as 'libx264', got {codec!r}")
    if path.suffix.lower() == ".webm" and codec not in _WEBM_CODECS:
        raise ValueError(f"codec must be one of {', '.join(_WEBM_CODECS)} for a .webm file, got {codec!r}")
    height, width = array.shape[1:3]
    if pix_fmt == "yuv420p" and (height % 2 or width % 2):
        raise ValueError(f"frames must have an even height and width for pix_fmt 'yuv420p', got {height} x {width}")

    with _replacing(path) as unfinished, av.open(str(unfinished), mode="w") as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height = width, height
        try:
            stream.pix_fmt = pix_fmt
        except ValueError as error:
            raise ValueError(f"pix_fmt must be an FFmpeg pixel format such as 'yuv420p', got {pix_fmt!r}") from error
        for image in array:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path with the same suffix; the file replaces `path` if all goes well."""
    unfinished = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_video_encoder(codec: str) -> bool:
    """Returns whether the installed PyAV can encode video with `codec`."""
    import av

    try:
        return av.Codec(codec, "w").type == "video"
    except ValueError:  # base class of PyAV's error for an unknown codec
        return False


def _as_uint8_rgb(frames: np.ndarray | torch.Tensor) -> np.ndarray:
    """Returns `frames` as a contiguous uint8 array of shape (num_frames, height, width, 3), after validation."""
    if not isinstance(frames, np.ndarray):
        if not hasattr(frames, "detach"):
            raise TypeError(f"frames must be a numpy array or a torch tensor, got {type(frames).__name__}")
        frames = frames.detach().cpu().numpy()
    if frames.dtype != np.uint8:
        raise ValueError(f"frames must have dtype uint8 with values 0..255, got {frames.dtype}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames must have the shape (num_frames, height, width, 3), none of them 0, got {tuple(frames.shape)}"
        )
    return np.ascontiguousarray(frames)


def _as_frame_rate(fps: int | float | Fraction) -> Fraction:
    """Returns `fps` as an exact fraction, after validation."""
    try:
        rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"fps must be a finite number greater than 0, got {fps!r}") from error
    if rate <= 0:
        raise ValueError(f"fps must be a finite number greater than 0, got {fps!r}")
    return rate
