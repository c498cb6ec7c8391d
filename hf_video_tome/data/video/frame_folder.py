"""Videos stored as folders of extracted frames.

A path is enough for a folder with the frames of one video: they are listed and sorted by the number in their names.
For huge folders use a `FrameFolder`, which reads frames by number without listing the folder.
"""

from __future__ import annotations

import math
import os
import re
import string
from dataclasses import dataclass

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class FrameFolder:
    """Video, or a segment of one, stored as numbered images in a folder; accepted wherever a video path is.

    Frame 0 is the image with the number `start`, frame 1 the next number, and so on; reading a missing frame raises an
    error that names the file. With `stop`, the folder is not listed unless the last frame is missing: a segment that
    extends beyond the last image ends there, like a segment of a video.

    Args:
        path: The folder.
        pattern: File name of an image, with one replacement field for its number; `.jpg`, `.jpeg` or `.png`.
        start: Number of the first frame, at least 0.
        stop: Number after the last frame, or None for all available frames (the folder is then listed when the number
            of frames is needed).
        fps: Frames per second, above 0, for reading by time; None if not needed.

    Raises:
        TypeError: If a number is not an integer or the path has the wrong type.
        ValueError: If a field is invalid; the message names the field, the value and what is allowed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hf_video_tome.data.video.decoding import read_frames
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in (7, 8, 9):
        ...     Image.new("RGB", (48, 32)).save(folder / f"frame_{number:010d}.jpg")
        >>> read_frames(FrameFolder(folder, start=7, stop=10), [0, 2]).shape
        torch.Size([2, 3, 32, 48])
    """

    path: str | os.PathLike[str]
    pattern: str = "frame_{:010d}.jpg"
    start: int = 1
    stop: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)):
            raise TypeError(f"path must be a folder's path, got {self.path!r} ({type(self.path).__name__})")
        _check_pattern(self.pattern)
        for name, value, least in (("start", self.start, 0), ("stop", self.stop, self.start)):
            if name == "stop" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
            if value < least or (name == "stop" and value == least):
                allowed = f"above start ({least})" if name == "stop" else f"{least} or more"
                raise ValueError(f"{name} must be {allowed}, got {value}")
        fps = self.fps
        if fps is not None and (
            isinstance(fps, bool) or not isinstance(fps, (int, float)) or not math.isfinite(fps) or fps <= 0
        ):
            raise ValueError(f"fps must be a finite number above 0 (frames per second) or None, got {fps!r}")


def split_pattern(pattern: str) -> tuple[str, str, str]:
    """Splits a pattern into the text before its replacement field, the field, and the text after it.

    Raises:
        ValueError: If it does not have exactly one plain field.
    """
    before, after, field = "", "", None
    for literal, name, spec, conversion in string.Formatter().parse(pattern):
        if field is None:
            before += literal
        else:
            after += literal
        if name is not None:
            if field is not None or name not in ("", "0") or conversion:
                raise ValueError("not one plain field")
            field = spec or ""
    if field is None:
        raise ValueError("no field")
    return before, field, after


def _check_pattern(pattern: str) -> None:
    try:
        before, _, after = split_pattern(pattern)
        digits = pattern.format(1234567)[len(before) :].removesuffix(after)
        # Without separators or signs, so that the number can be read from the name.
        fits = re.fullmatch("0*1234567", digits) is not None and "/" not in pattern and "\\" not in pattern
    except (TypeError, ValueError, LookupError):
        fits = False
    if not fits or os.path.splitext(pattern)[1].lower() not in PICTURE_SUFFIXES:
        raise ValueError(
            f"pattern must be a file name ending in {', '.join(PICTURE_SUFFIXES)} with one replacement field for "
            f"the number, such as 'frame_{{:010d}}.jpg', got {pattern!r}"
        )
