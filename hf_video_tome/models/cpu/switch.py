"""The switch of all that is here for speed on CPUs only."""

from __future__ import annotations

import os

ENABLED = os.environ.get("HF_VIDEO_TOME_CPU_KERNELS", "1") != "0"
"""Whether the parts of `models.cpu` are used where they are faster: not with `HF_VIDEO_TOME_CPU_KERNELS=0` in the
environment. It is read on import, so that compilers see a constant."""
