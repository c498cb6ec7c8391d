"""Lookup of video files in folders, by any suffix and through links."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

# Formats that datasets usually come in; downloaders append one of these to another.
_USUAL = ".mp4 .webm .mkv .avi .mov .m4v .mpg .mpeg .wmv .flv .3gp .ogv .ts .mts .m2ts"
# Other video formats of FFmpeg.
_OTHERS = """
    .vob .asf .3g2 .ogg .mxf .f4v .divx .xvid .m2v .m1v .mpe .mpv .m2p .m2t .mp4v .mpeg4 .mpg4 .mk3d .qt .hdmov .mqv
    .wm .wtv .dvr-ms .rm .rmvb .ogm .ogx .mjpg .mjpeg .mj2 .y4m .ivf .nut .dv .dif .gxf .lrv .insv .mod .tod .evo .trp
    .tp .dav .amv .nsv .psp .ismv .drc .vc1 .h261 .h263 .h264 .264 .avc .h265 .265 .hevc .h266 .266 .vvc .obu .av1
    .avs2 .avs3 .cavs .bik .smk .roq .swf .fli .flc .kux .viv .ser .usm .moflex .gif .apng
"""
VIDEO_SUFFIXES: tuple[str, ...] = (*_USUAL.split(), *_OTHERS.split())
"""Suffixes of video files in lower case; earlier ones take precedence if a video has several files."""


def without_video_suffix(name: str) -> str | None:
    """Returns a file name without its video suffix or suffixes (`a.mp4.mkv`); None if it has none."""
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in VIDEO_SUFFIXES or not stem:
        return None
    shorter, suffix = os.path.splitext(stem)
    return shorter if suffix.lower() in _USUAL.split() else stem


class VideoFiles:
    """Index of video files by name, independent of their suffix; lists each folder only once.

    A link with a video suffix counts as a video wherever it leads: its target is checked when it is read.
    """

    def __init__(self) -> None:
        self._listings: dict[Path, tuple[dict[str, list[str]], list[str]]] = {}

    def find(self, folder: Path, name: str) -> Path | None:
        """Returns the file of a name with any video suffix; None if there is none.

        Args:
            folder: Where to look; it need not exist.
            name: The file name, with or without a suffix. A file with exactly this name takes precedence.
        """
        names = self._listing(folder)[0].get(without_video_suffix(name) or name, [])
        if not names:
            return None
        return folder / (name if name in names else names[0])

    def names(self, folder: Path) -> list[str]:
        """Returns the names of all video files in a folder, sorted, without hidden ones."""
        return sorted(name for names in self._listing(folder)[0].values() for name in names)

    def tree(self, folder: Path) -> list[str]:
        """Returns the relative paths of all video files in a folder and its subfolders, sorted.

        Links to folders are followed, except in cycles; hidden folders are skipped.
        """
        return sorted(self._tree(folder, "", ()))

    def _tree(self, folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[str]:
        yield from (prefix + name for name in self.names(folder))
        above = (*above, folder)
        for name in self._listing(folder)[1]:
            inner = folder / name
            if not any(holds(inner, outer) for outer in above):
                yield from self._tree(inner, f"{prefix}{name}/", above)

    def _listing(self, folder: Path) -> tuple[dict[str, list[str]], list[str]]:
        """Returns the video files by their names without suffix, and the subfolders."""
        if folder not in self._listings:
            files: dict[str, list[str]] = {}
            folders: list[str] = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        stem = without_video_suffix(entry.name)
                        if entry.name.startswith("."):
                            continue
                        if os.path.isdir(entry) if entry.is_symlink() else entry.is_dir():
                            folders.append(entry.name)
                        elif stem is not None and (entry.is_symlink() or entry.is_file()):
                            files.setdefault(stem, []).append(entry.name)
                        elif "." not in entry.name and leads_nowhere(entry):
                            files.setdefault(entry.name, []).append(entry.name)  # perhaps to a folder of videos
            except (FileNotFoundError, NotADirectoryError):
                pass
            for names in files.values():
                names.sort(key=_preference)
            self._listings[folder] = files, folders
        return self._listings[folder]


def _preference(name: str) -> tuple[int, str]:
    suffix = os.path.splitext(name)[1].lower()
    return VIDEO_SUFFIXES.index(suffix) if suffix in VIDEO_SUFFIXES else len(VIDEO_SUFFIXES), name


def leads_nowhere(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is a broken link; a link to itself does not count."""
    if not os.path.islink(path):
        return False
    try:
        os.stat(path)
    except OSError as error:
        return error.errno != errno.ELOOP
    return False


def subfolders(folder: Path) -> list[Path]:
    """Returns the subfolders of a folder, sorted by name; none for a missing folder.

    Skips hidden folders, and links to the folder itself or its parents.
    """
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in found if not (path.is_symlink() and holds(path, folder)))


def holds(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Returns whether a folder is another folder or one of its parents, with links resolved."""
    outer = os.path.realpath(path)
    return os.path.commonpath((outer, os.path.realpath(other))) == outer


def check_links(folder: Path) -> None:
    """Raises a `ValueError` for a broken link in a folder that may have led to a folder."""
    for path in sorted(folder.iterdir()):
        if "." not in path.name and leads_nowhere(path):
            raise ValueError(f"{path}: is a link to {os.readlink(path)!r}, which does not exist")
