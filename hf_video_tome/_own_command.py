"""Whether this process is the package's own command, whose help must not wait for torch."""

from __future__ import annotations

import sys
from itertools import dropwhile
from pathlib import PurePath


def is_own_command() -> bool:
    """Whether Python was started as `hf-video-tome ...` or `python -m hf_video_tome ...`.

    All other processes register at import, and so does this one where it is in doubt: that is slower, and never wrong.
    `sys.orig_argv` is how the interpreter was started. `sys.argv` would not do: worker processes have a copy of their
    parent's, and while `-m` looks for the package it does not name it yet.

    Examples:
        >>> is_own_command()
        False
    """
    words = list(dropwhile(lambda word: word[:1] == "-" and word not in ("-m", "-c"), sys.orig_argv[1:]))
    if words[:1] == ["-m"]:
        return words[1:2] == ["hf_video_tome"]
    return bool(words) and PurePath(words[0]).name in ("hf-video-tome", "hf-video-tome.exe")
