"""Switch for all CPU kernels."""

from __future__ import annotations

import os

ENABLED = os.environ.get("HF_VIDEO_TOME_CPU_KERNELS", "1") != "0"
"""Whether the kernels of `models.cpu` are used where they are faster; `HF_VIDEO_TOME_CPU_KERNELS=0` in the environment
turns them off. Read on import, so that compilers see a constant."""
