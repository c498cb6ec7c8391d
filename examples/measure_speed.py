"""How much faster is a base-size model that merges tokens? Random weights, random clips, this machine.

Variants run in turn (A B C A B C ...), so that whatever else the machine does hits all of them alike; the ratio of
medians is reported against stock transformers with sdpa and with eager attention.

    python examples/measure_speed.py --architecture videomae --r 150 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import transformers

import hf_video_tome
from hf_video_tome.models.motionformer import plain as motionformer

MODELS = {
    "videomae": (transformers.VideoMAEConfig, transformers.VideoMAEForVideoClassification),
    "vivit": (transformers.VivitConfig, transformers.VivitForVideoClassification),
    "timesformer": (transformers.TimesformerConfig, transformers.TimesformerForVideoClassification),
    "motionformer": (motionformer.MotionformerConfig, motionformer.MotionformerForVideoClassification),
}


def build(architecture: str, dtype: torch.dtype, attention: str, r: int | None) -> transformers.PreTrainedModel:
    """Builds a base-size model with 400 labels and random weights: stock if r is None, else one that can merge."""
    config_class, stock_class = MODELS[architecture]
    config = config_class(num_labels=400, attn_implementation=attention)
    model_class = stock_class if r is None else getattr(hf_video_tome, stock_class.__name__)
    torch.manual_seed(0)
    model = model_class(config).to(dtype).eval()
    if r is not None:
        model.set_token_merging(r=r)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=list(MODELS), default="videomae")
    parser.add_argument("--r", type=int, help="tokens removed per layer (default: the paper's)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    r = hf_video_tome.paper_settings(arguments.architecture)["r"] if arguments.r is None else arguments.r
    # Stock TimeSformer has eager attention only.
    fused = "eager" if arguments.architecture == "timesformer" else "sdpa"
    variants = {
        f"stock {fused}": build(arguments.architecture, dtype, fused, None),
        "ours r=0 sdpa": build(arguments.architecture, dtype, "sdpa", 0),
        f"ours r={r} sdpa": build(arguments.architecture, dtype, "sdpa", r),
    }
    if fused == "sdpa":
        variants["stock eager"] = build(arguments.architecture, dtype, "eager", None)
    config = variants[f"stock {fused}"].config
    side = config.image_size
    clips = torch.randn(arguments.batch_size, config.num_frames, config.num_channels, side, side, dtype=dtype)
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    with torch.inference_mode():
        for round_index in range(arguments.rounds + 1):
            for name, model in variants.items():
                start = time.perf_counter()
                model(clips)
                if round_index:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
    print(
        f"{arguments.architecture} base, r={r}, {arguments.dtype}, batch {arguments.batch_size}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"median of {arguments.rounds} interleaved rounds"
    )
    baseline = statistics.median(seconds[f"stock {fused}"])
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = (max(values) - min(values)) / median
        print(f"  {name:18} {baseline / median:5.2f}x  ({median * 1000:7.0f} ms, spread {spread:.0%})")


if __name__ == "__main__":
    main()
