"""Draws the pictures in docs/visualization.md: a clip of Moving Digits, with `hf-video-tome visualize`.

    python examples/draw_tokens.py

Needs `pip install "hf-video-tome[demo]"`; takes about ten seconds on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from transformers import AutoModelForVideoClassification

from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.cli import run
from hf_video_tome.data import ClipTransform, probe_video, read_frames, sample_frame_indices
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.visualization import trace_clip
from hf_video_tome.visualization.contact_sheet import save_sheet

CLIP = 5  # of the test split
PICTURES = {
    "tokens.gif": "--r 38 --scale 5",
    "distinct.png": "--r 38 --fill distinct",
    "largest.png": "--r 38 --largest 3 --fill pixels",
    "dropped.png": "--r 38 --mode drop --fill pixels",
    "layers.gif": "--r 38 --per-layer --scale 4",
    "divided.png": "--r 5 --model timesformer-moving-digits",
}

# With these r, each model has 48 of 288 patch tokens left, besides the CLS token if it has one.
MODELS = {
    "VideoMAE": ("videomae-moving-digits", 40),
    "ViViT": ("vivit-moving-digits", 40),
    "V-JEPA 2": ("vjepa2-moving-digits", 40),
    "TimeSformer": ("timesformer-moving-digits", 5),
    "Motionformer": ("motionformer-moving-digits", 5),
}
FRAMES = [1, 3, 5, 7, 9, 11, 13, 15]  # the 8 of 16 frames also sampled for TimeSformer


def draw_architectures(video: Path, path: Path) -> None:
    """Saves a sheet with one row per architecture."""
    rows: dict[str, np.ndarray] = {}
    for name, (checkpoint, r) in MODELS.items():
        folder = checkpoint_path(checkpoint)
        model = AutoModelForVideoClassification.from_pretrained(folder, token_merging_r=r).eval()
        indices = sample_frame_indices(
            probe_video(video).num_frames, model.config.clip_shape.frames, strategy="uniform"
        )
        clip = trace_clip(model, read_frames(video, indices), ClipTransform.from_pretrained(folder))
        shown = [list(indices).index(frame) for frame in FRAMES]
        if not rows:
            rows["input"] = clip.frames[shown].permute(0, 2, 3, 1).numpy().repeat(4, 1).repeat(4, 2)
        left = clip.trace.token_counts[-1]
        rows[f"{name}\nr = {r}\n{left} tokens\n{clip.prediction.partition(' (')[0]}"] = clip.draw(
            shown=shown, scale=4, outline=2
        )
    save_sheet(
        path,
        rows,
        [f"frame {frame}" for frame in FRAMES],
        title="One clip through five models, each with 48 tokens left for 288 patches (and its CLS token, if any)",
        note="Each token in the mean colour of all its pixels; coloured outline: one token over several frames; light "
        "outline: merged inside a frame or two; dark outline: not merged.",
    )


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
        draw_architectures(clip.path, arguments.output / "architectures.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
