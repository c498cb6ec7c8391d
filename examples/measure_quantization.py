"""Measures the effect of int8 linear layers on models that merge tokens: the table in docs/faq.md.

    python examples/measure_quantization.py

Runs the bundled checkpoints on clips of Moving Digits and on noise, one at a time: unmerged, merged, and with random
pairs, which are the same with and without quantisation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings

import torch
from torch import Tensor, nn
from transformers import AutoModelForVideoClassification

import hf_video_tome  # noqa: F401  (registers)
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data import ClipTransform, probe_video, read_frames, sample_frame_indices
from hf_video_tome.data.moving_digits import write_clips

R = {"videomae": 38, "vivit": 38, "timesformer": 5, "motionformer": 5, "vjepa2": 38}


@torch.no_grad()
def logits_of(model: nn.Module, clips: Tensor) -> Tensor:
    torch.manual_seed(0)
    return torch.cat([model(clip[None]).logits for clip in clips])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-clips", type=int, default=72)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*(torch.ao.quantization|quantized tensor creation).*")
    with tempfile.TemporaryDirectory() as folder:
        written = write_clips(folder, "test", range(arguments.num_clips))
        labels = torch.tensor([clip.label.action for clip in written])
        for name, r in R.items():
            checkpoint = checkpoint_path(f"{name}-moving-digits")
            model = AutoModelForVideoClassification.from_pretrained(checkpoint).eval()
            transform, num_frames = ClipTransform.from_pretrained(checkpoint), model.config.clip_shape.frames
            clips = []
            for path in (clip.path for clip in written):
                indices = sample_frame_indices(probe_video(path).num_frames, num_frames, strategy="uniform")
                clips.append(transform(read_frames(path, indices)))
            digits = torch.stack(clips)
            noise = torch.randn(digits.shape, generator=torch.Generator().manual_seed(0))
            quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8).eval()
            for settings in ({"r": 0, "mode": "merge"}, {"r": r, "mode": "merge"}, {"r": r, "mode": "random_merge"}):
                for one in (model, quantized):
                    one.set_token_merging(**settings)
                for data, inputs in (("digits", digits), ("noise", noise)):
                    exact, near = logits_of(model, inputs), logits_of(quantized, inputs)
                    error, same = near - exact, near.argmax(-1) == exact.argmax(-1)
                    line = f"{name}, {settings['mode']}, r = {settings['r']}, {data}: "
                    line += f"error {error.norm() / exact.norm():.1%}, largest {error.abs().max():.2f}, "
                    line += f"same answer {same.float().mean():.1%}"
                    if data == "digits":
                        accuracy = [(one.argmax(-1) == labels).float().mean().item() for one in (exact, near)]
                        line += f", top-1 {accuracy[0]:.1%} -> {accuracy[1]:.1%}"
                    print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
