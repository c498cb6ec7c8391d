"""Videos that are stored as folders of extracted frames.

A folder's path is enough where it holds the frames of one video: they are listed and sorted by the number in their
names. Huge folders are better described by a `FrameFolder`, which reads frames by number without listing.

Pictures are decoded with PIL, to RGB, as they are stored: an EXIF orientation is not applied (tools that extract
frames write none, and it would turn some frames of a video but not others).
"""

from __future__ import annotations

import math
import os
import re
import string
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from .decoding import VideoInfo
from .timeline import Timeline
from .video_file import VideoDecodingError, fail

_SUFFIXES = (".jpg", ".jpeg", ".png")
_CODECS = {"JPEG": "mjpeg", "MPO": "mjpeg", "PNG": "png"}
_UNTIMED = "is a folder of frames, which have no times: name their rate with FrameFolder(..., fps=...)"


@dataclass(frozen=True)
class FrameFolder:
    """A video, or a stretch of one, as numbered pictures in a folder; goes wherever a video's path goes.

    Frame 0 is the picture with the number `start`, frame 1 the next number, and so on: a missing number is an error
    that names the file, once that frame is wanted. With `stop` the folder is not listed, however large it is, unless
    the last frame is not there: a stretch that goes on after the last picture ends with that, as one of a video does.

    Args:
        path: The folder.
        pattern: Name of a picture, with one replacement field for its number; `.jpg`, `.jpeg` or `.png`.
        start: Number of the first frame, at least 0.
        stop: Number after the last frame, or None for all that there are (the folder is then listed when the number of
            frames is needed).
        fps: Frames per second, above 0, for whatever goes by time; None if that is not needed.

    Raises:
        TypeError: If a number is not an integer or the path is no path.
        ValueError: If a field is not as described; the message names the field, the value and what is allowed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hf_video_tome.data.decoding import read_frames
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
            raise TypeError(f"`path` must be a folder's path, got {self.path!r} ({type(self.path).__name__}).")
        _check_pattern(self.pattern)
        for name, value, least in (("start", self.start, 0), ("stop", self.stop, self.start)):
            if name == "stop" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"`{name}` must be an integer, got {value!r} ({type(value).__name__}).")
            if value < least or (name == "stop" and value == least):
                allowed = f"above `start` ({least})" if name == "stop" else f"{least} or more"
                raise ValueError(f"`{name}` must be {allowed}, got {value}.")
        fps = self.fps
        if fps is not None and (
            isinstance(fps, bool) or not isinstance(fps, (int, float)) or not math.isfinite(fps) or fps <= 0
        ):
            raise ValueError(f"`fps` must be a finite number above 0 (frames per second) or None, got {fps!r}.")


def numbered_frames(folder: FrameFolder) -> FrameFiles:
    """Opens the pictures that a `FrameFolder` describes.

    Args:
        folder: The description.

    Returns:
        The pictures, none of which has been looked at.

    Raises:
        VideoDecodingError: If there is no such folder.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(1, 13):
        ...     (folder / f"frame_{number:010d}.jpg").touch()
        >>> numbered_frames(FrameFolder(folder, start=3, stop=10)).count()
        7
    """
    name = os.fspath(folder.path)
    if not os.path.isdir(name):
        reason = "is not a folder" if os.path.exists(name) else "no such folder"
        raise VideoDecodingError(f"{name}: {reason}", name, reason)
    return _Numbered(name, folder.fps, folder)


def listed_frames(path: str | os.PathLike[str]) -> FrameFiles:
    """Lists the pictures of a folder, sorted by the last number in each name.

    Args:
        path: The folder. Other files, hidden ones and subfolders do not matter.

    Returns:
        The pictures, none of which has been opened. A gap in the numbers is none in the frames.

    Raises:
        VideoDecodingError: If it holds no picture, one without a number, or two with the same number.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("img_2.jpg", "img_10.jpg", "audio.wav"):
        ...     (folder / name).touch()
        >>> listed_frames(folder).count()
        2
    """
    name = os.fspath(path)
    by_number: dict[int, str] = {}
    for file in _file_names(name):
        stem, suffix = os.path.splitext(file)
        if suffix.lower() not in _SUFFIXES or file.startswith("."):
            continue
        numbers = re.findall(r"[0-9]+", stem)
        if not numbers:
            fail(name, f"is a folder with a picture whose name has no number, so that it has no place: {file}")
        number = int(numbers[-1])
        if number in by_number:
            first, second = sorted((by_number[number], file))
            fail(
                name,
                f"is a folder with two pictures of the number {number}, {first} and {second}; "
                "FrameFolder(..., pattern=...) says which are meant",
            )
        by_number[number] = file
    if not by_number:
        fail(name, f"is a folder, not a video file, and holds no frames either ({', '.join(_SUFFIXES)})")
    return _Listed(name, None, [by_number[number] for number in sorted(by_number)])


class FrameFiles(ABC):
    """The pictures of a folder, in order, as the functions of `decoding` need them.

    Args:
        name: The folder's path.
        fps: Frames per second, if they are known.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> folder = Path(tempfile.mkdtemp())
        >>> for number in range(1, 13):
        ...     (folder / f"frame_{number:010d}.jpg").touch()
        >>> frames = numbered_frames(FrameFolder(folder, start=3, stop=7, fps=50))
        >>> frames.timeline().times.tolist()
        [0.0, 0.02, 0.04, 0.06]
    """

    def __init__(self, name: str, fps: float | None) -> None:
        self.name = name
        self.fps = fps

    @abstractmethod
    def count(self) -> int:
        """Returns the number of frames, at least 1."""

    @abstractmethod
    def file(self, index: int) -> str | None:
        """Returns the file name of a frame; None beyond the end."""

    def timeline(self) -> Timeline:
        """Returns when the frames are shown.

        Raises:
            VideoDecodingError: If the rate is not known.
        """
        if self.fps is None:
            fail(self.name, _UNTIMED)
        count = self.count()
        return Timeline(self.name, np.arange(count) / self.fps, count / self.fps)

    def probe(self) -> VideoInfo:
        """Looks at the first picture; see `probe_video`.

        Raises:
            VideoDecodingError: If that cannot be read.
        """
        count, fps = self.count(), self.fps or 0.0
        first = self.file(0)
        if first is None:
            raise RuntimeError("unreachable: there is at least one frame")
        pixels, codec = _read_picture(self.name, first)
        height, width = pixels.shape[:2]
        return VideoInfo(count, fps, count / fps if fps else 0.0, width, height, codec)

    def read(self, indices: list[int], pad: bool) -> torch.Tensor:
        """Reads frames; see `read_frames`.

        Args:
            indices: Frame indices, at least one and none negative.
            pad: Repeat the last frame for indices beyond the end.

        Returns:
            (len(indices), 3, H, W) uint8 RGB frames.

        Raises:
            VideoDecodingError: If a frame is missing or broken, or has another size than the others.
        """
        slots: dict[str, list[int]] = {}
        for slot, index in enumerate(indices):
            file = self.file(index)
            if file is None and pad:
                file = self.file(self.count() - 1)
            if file is None:
                count = self.count()
                fail(
                    self.name,
                    f"has {count} frames (0 to {count - 1}), but frame {index} was wanted "
                    "(pad=True repeats the last frame)",
                )
            slots.setdefault(file, []).append(slot)

        out: torch.Tensor | None = None
        for file, places in slots.items():
            pixels, _ = _read_picture(self.name, file)
            frame = torch.from_numpy(pixels).permute(2, 0, 1)
            if out is None:
                out, first = torch.empty((len(indices), *frame.shape), dtype=torch.uint8), file
            elif out.shape[1:] != frame.shape:
                before, after = out.shape[-2:], frame.shape[-2:]
                fail(
                    self.name,
                    f"the frame size changes within the video, from {before[0]}x{before[1]} ({first}) to "
                    f"{after[0]}x{after[1]} ({file})",
                )
            for place in places:
                out[place] = frame
        if out is None:
            raise RuntimeError("unreachable: there is at least one index")
        return out


class _Listed(FrameFiles):
    def __init__(self, name: str, fps: float | None, files: list[str]) -> None:
        super().__init__(name, fps)
        self._files = files

    def count(self) -> int:
        return len(self._files)

    def file(self, index: int) -> str | None:
        return self._files[index] if index < len(self._files) else None


class _Numbered(FrameFiles):
    def __init__(self, name: str, fps: float | None, folder: FrameFolder) -> None:
        super().__init__(name, fps)
        self._folder = folder

    def count(self) -> int:
        return self._stop - self._folder.start

    def file(self, index: int) -> str | None:
        number = self._folder.start + index
        file = self._folder.pattern.format(number)
        if self._folder.stop is None and not os.path.exists(os.path.join(self.name, file)):
            # The end of the video, or a gap in it.
            return file if number < self._stop else None
        return file if self._folder.stop is None or number < self._folder.stop else None

    @cached_property
    def _stop(self) -> int:
        pattern, start, stop = self._folder.pattern, self._folder.start, self._folder.stop
        if stop is not None and os.path.exists(os.path.join(self.name, pattern.format(stop - 1))):
            return stop
        before, _, after = _split(pattern)
        numbers = re.compile(re.escape(before) + "([0-9]+)" + re.escape(after))
        last = -1
        for file in _file_names(self.name):
            match = numbers.fullmatch(file)
            if match and pattern.format(int(match[1])) == file:
                last = max(last, int(match[1]))
        if last < start:
            ends = f", which ends with number {last}" if last >= 0 else ""
            fail(self.name, f"is a folder without frames named {pattern!r} from number {start} on{ends}")
        return last + 1 if stop is None else min(last + 1, stop)


def _file_names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        reason = f"cannot be listed ({error.strerror or error})"
        raise VideoDecodingError(f"{folder}: {reason}", folder, reason) from error


def _split(pattern: str) -> tuple[str, str, str]:
    """Splits a pattern into what comes before its one field, the field, and what comes after.

    Raises:
        ValueError: If it has no such field.
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
        before, _, after = _split(pattern)
        digits = pattern.format(1234567)[len(before) :].removesuffix(after)
        # Without separators or signs, so that a name tells its number.
        fits = re.fullmatch("0*1234567", digits) is not None and "/" not in pattern and "\\" not in pattern
    except (TypeError, ValueError, LookupError):
        fits = False
    if not fits or os.path.splitext(pattern)[1].lower() not in _SUFFIXES:
        raise ValueError(
            f"`pattern` must be a file name ending in {', '.join(_SUFFIXES)} with one replacement field for the "
            f"number, such as 'frame_{{:010d}}.jpg', got {pattern!r}."
        )


def _read_picture(folder: str, file: str) -> tuple[np.ndarray, str]:
    """Reads a picture: (H, W, 3) uint8 RGB, and FFmpeg's name of its codec."""
    from PIL import Image

    try:
        with Image.open(os.path.join(folder, file), formats=("JPEG", "PNG")) as image:
            mode, codec = image.mode, _CODECS[image.format or ""]
            # PIL would cut off more than 8 bits at 255 rather than scale them.
            if mode.startswith(("I", "F")):
                fail(folder, f"{file} has more than 8 bits per channel (PIL's mode {mode!r})")
            return np.array(image.convert("RGB")), codec
    except FileNotFoundError:
        fail(folder, f"frame {file} is missing")
    except VideoDecodingError:
        raise
    except (OSError, SyntaxError, ValueError, LookupError, struct.error, Image.DecompressionBombError) as error:
        fail(folder, f"frame {file} is a broken picture or none ({error})")
