"""Makes the pictures of docs/visualization.md: a clip of Moving Digits, through `hf-video-tome visualize`.

    python examples/draw_tokens.py

Needs `pip install "hf-video-tome[demo]"`; takes about half a minute on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from hf_video_tome.cli import run
from hf_video_tome.data.moving_digits import write_clips

CLIP = 5  # of the test split
PICTURES = {
    "tokens.gif": "--r 38 --scale 5",
    "distinct.png": "--r 38 --fill distinct",
    "largest.png": "--r 38 --largest 3 --fill pixels",
    "dropped.png": "--r 38 --mode drop --fill pixels",
    "layers.gif": "--r 38 --per-layer --scale 4",
    "divided.png": "--r 5 --model timesformer-moving-digits",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "visualization")
    parser.add_argument("--clip", type=int, default=CLIP, help="index in the test split")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (clip,) = write_clips(folder, "test", [arguments.clip])
        for name, options in PICTURES.items():
            path = arguments.output / name
            if run(["visualize", str(clip.path), *options.split(), "--output", str(path)]):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
