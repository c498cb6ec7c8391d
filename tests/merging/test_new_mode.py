"""A built-in mode is one file and one import: everything else learns of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_video_tome

PACKAGE = Path(hf_video_tome.__file__).parent
MODE = '''"""`keep_first`: the first tokens of each set stay."""

from __future__ import annotations

from ..assignment import Assignment, assign_pairs
from .registry import Context, register_mode


@register_mode("keep_first")
def keep_first(context: Context) -> Assignment:
    """Discards the sources of random pairs."""
    return assign_pairs(context.random_matching(), content="owner", sizes="owner")
'''
USE = """
import torch
from hf_video_tome import SettingError, VideoMAEConfig, VideoMAEForVideoClassification
from hf_video_tome.cli import run
from hf_video_tome.describe import describe_settings, settings_table
from hf_video_tome.hub.remote_code import collect_remote_code

assert "keep_first" in settings_table()
assert "merging_modes_keep_first.py" in collect_remote_code("videomae").files
config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
                        num_attention_heads=2, intermediate_size=32, token_merging_r=4,
                        token_merging_mode="keep_first")
assert "keep_first" in describe_settings(config.token_merging_settings(resolved=True))
out = VideoMAEForVideoClassification(config).eval()(torch.randn(1, 4, 3, 32, 32), output_token_merging=True)
assert out.token_merging.token_counts == (32, 28, 24)
try:
    VideoMAEConfig(token_merging_mode="nothing")
except SettingError as error:
    assert "'keep_first'" in str(error)
assert run(["classify", "--help"]) == 0
"""


@pytest.fixture
def with_mode(tmp_path: Path) -> Path:
    """The package with one file and one import more."""
    shutil.copytree(PACKAGE, tmp_path / "hf_video_tome", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    modes = tmp_path / "hf_video_tome" / "merging" / "modes"
    (modes / "keep_first.py").write_text(MODE)
    registry = modes / "__init__.py"
    registry.write_text(registry.read_text() + "from .keep_first import keep_first as keep_first\n")
    return tmp_path


def test_everything_learns_of_it(with_mode: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(with_mode)}
    done = subprocess.run([sys.executable, "-c", USE], cwd=with_mode, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "keep_first" in done.stdout
