"""Detects the package's own command: its `--help` must not wait for torch."""

from __future__ import annotations

import sys
from itertools import dropwhile
from pathlib import PurePath


def is_own_command() -> bool:
    """Returns whether Python was started as `hf-video-tome ...` or `python -m hf_video_tome ...`.

    All other processes register at import. So does this one in case of doubt, which is slower but never wrong.
    `sys.orig_argv` says how the interpreter was started. `sys.argv` does not: worker processes copy that of their
    parent, and it does not yet name the package while `-m` searches for it.

    Examples:
        >>> is_own_command()
        False
    """
    words = list(dropwhile(lambda word: word[:1] == "-" and word not in ("-m", "-c"), sys.orig_argv[1:]))
    if words[:1] == ["-m"]:
        return words[1:2] == ["hf_video_tome"]
    return bool(words) and PurePath(words[0]).name in ("hf-video-tome", "hf-video-tome.exe")
