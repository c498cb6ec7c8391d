"""Listing and decoding of the images in a folder of extracted frames.

Images are decoded to RGB with PIL, as stored: EXIF orientation is not applied (frame extraction tools write none, and
it could rotate some frames of a video but not others).
"""

from __future__ import annotations

import os
import re
import struct
from abc import ABC, abstractmethod
from functools import cached_property

import numpy as np
import torch

from .frame_folder import PICTURE_SUFFIXES, FrameFolder, split_pattern
from .timeline import Timeline
from .types import VideoDecodingError, VideoInfo, fail

_CODECS = {"JPEG": "mjpeg", "MPO": "mjpeg", "PNG": "png"}
_UNTIMED = "is a folder of frames, which have no times: name their rate with FrameFolder(..., fps=...)"


def numbered_frames(folder: FrameFolder) -> FrameFiles:
    """Opens the images described by a `FrameFolder`.

    Args:
        folder: The description.

    Returns:
        The images, not yet opened.

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
    """Lists the images in a folder, sorted by the last number in each name.

    Args:
        path: The folder. Other files, hidden files and subfolders are ignored.

    Returns:
        The images, not yet opened. Gaps in the numbers are allowed.

    Raises:
        VideoDecodingError: If there is no image, one without a number, or two with the same number.

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
        if suffix.lower() not in PICTURE_SUFFIXES or file.startswith("."):
            continue
        numbers = re.findall(r"[0-9]+", stem)
        if not numbers:
            fail(name, f"is a folder with an image whose name has no number, so that its position is unknown: {file}")
        number = int(numbers[-1])
        if number in by_number:
            first, second = sorted((by_number[number], file))
            fail(
                name,
                f"is a folder with two images with the number {number}, {first} and {second}; "
                "select one kind with FrameFolder(..., pattern=...)",
            )
        by_number[number] = file
    if not by_number:
        fail(name, f"is a folder, not a video file, and holds no frames either ({', '.join(PICTURE_SUFFIXES)})")
    return _Listed(name, None, [by_number[number] for number in sorted(by_number)])


class FrameFiles(ABC):
    """Images of a folder, in order, for the functions of `decoding`.

    Args:
        name: The folder's path.
        fps: Frames per second, if known.

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
        """Returns the times of the frames.

        Raises:
            VideoDecodingError: If the frame rate is unknown.
        """
        if self.fps is None:
            fail(self.name, _UNTIMED)
        count = self.count()
        return Timeline(self.name, np.arange(count) / self.fps, count / self.fps)

    def probe(self) -> VideoInfo:
        """Returns properties of the frames, by the first image; see `probe_video`.

        Raises:
            VideoDecodingError: If the first image cannot be read.
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
            pad: Whether to repeat the last frame for indices beyond the end.

        Returns:
            (len(indices), 3, H, W) uint8 RGB frames.

        Raises:
            VideoDecodingError: If a frame is missing or broken, or if frame sizes differ.
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
        for file, positions in slots.items():
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
            for position in positions:
                out[position] = frame
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
        before, _, after = split_pattern(pattern)
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


def _read_picture(folder: str, file: str) -> tuple[np.ndarray, str]:
    """Reads an image: (H, W, 3) uint8 RGB, and FFmpeg's name of its codec."""
    from PIL import Image

    try:
        with Image.open(os.path.join(folder, file), formats=("JPEG", "PNG")) as image:
            mode, codec = image.mode, _CODECS[image.format or ""]
            # PIL would clip values of more than 8 bits at 255 rather than scale them.
            if mode.startswith(("I", "F")):
                fail(folder, f"{file} has more than 8 bits per channel (PIL's mode {mode!r})")
            return np.array(image.convert("RGB")), codec
    except FileNotFoundError:
        fail(folder, f"frame {file} is missing")
    except VideoDecodingError:
        raise
    except (OSError, SyntaxError, ValueError, LookupError, struct.error, Image.DecompressionBombError) as error:
        fail(folder, f"frame {file} is not an image, or a broken one ({error})")
