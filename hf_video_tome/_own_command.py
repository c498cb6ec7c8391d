"""Detects the package's own command: its `--help` must not wait for torch."""

from __future__ import annotations

import sys
from itertools import dropwhile
from pathlib import Path


def is_own_command() -> bool:
    """Returns whether Python was started as `hf-video-tome ...` or `python -m hf_video_tome ...`.

    All other processes register at import. So does this one in case of doubt, which is slower but never wrong.
    `sys.orig_argv` says how the interpreter was started. `sys.argv` does not: worker processes copy that of their
    parent, and it does not yet name the package while `-m` searches for it.

    Examples:
        >>> is_own_command()
        False
    """
    # Code, modules and programs begin with -c, -m and -, glued to their names or not; all else with a dash are flags.
    words = list(dropwhile(lambda word: len(word) > 1 and word[0] == "-" and word[1] not in "mc", sys.orig_argv[1:]))
    if words[:1] == ["-m"]:
        return words[1:2] == ["hf_video_tome"]
    if not words or Path(words[0]).is_dir():  # a checkout may be called as the command is
        return False
    return Path(words[0]).name in ("hf-video-tome", "hf-video-tome.exe")
