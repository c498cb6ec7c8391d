"""Exports a bundled checkpoint that merges tokens to ONNX, and compares it with PyTorch on rendered clips. Offline.

    pip install "hf-video-tome[onnx,demo]"
    python examples/export_onnx.py --architecture videomae --r 38 --output videomae.onnx

The graph has a dynamic batch size; r and the other settings are fixed. Both run the same clips in turn, and the median
time of each is printed, as well as that of the unmerged model. The times are for this machine, and the model is tiny.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.data import ClipTransform
from hf_video_tome.data.moving_digits import render_clip

R = {"videomae": 38, "vivit": 38, "timesformer": 5}


def export(model: nn.Module, clips: Tensor, path: Path) -> onnxruntime.InferenceSession:
    """Writes a graph with a dynamic batch size and loads it on the CPU."""
    torch.onnx.export(
        model,
        (),
        path,
        kwargs={"pixel_values": clips},
        output_names=["logits"],
        dynamic_shapes={"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}},
        dynamo=True,
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def milliseconds_per_call(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median times of functions run in turn (A B C A B C ...), so that other load affects all equally."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for round_index in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_index:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=[name.removesuffix("-moving-digits") for name in available()])
    parser.add_argument("--r", type=int, help="number of tokens to remove per layer (default: removes about 80 %%)")
    parser.add_argument("--output", type=Path, help="output file (default: ARCHITECTURE.onnx)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.set_defaults(architecture="videomae")
    arguments = parser.parse_args()
    for name in ("batch_size", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, got {getattr(arguments, name)}")
    r = R[arguments.architecture] if arguments.r is None else arguments.r
    output = arguments.output or Path(f"{arguments.architecture}.onnx")

    folder = checkpoint_path(f"{arguments.architecture}-moving-digits")
    model = AutoModelForVideoClassification.from_pretrained(folder, token_merging_r=r).eval()
    transform = ClipTransform.from_pretrained(folder)
    frames = [torch.from_numpy(render_clip("test", index).frames) for index in range(arguments.batch_size)]
    clips = torch.stack([transform(clip.permute(0, 3, 1, 2)) for clip in frames])

    session = export(model, clips[:1].repeat(2, 1, 1, 1, 1), output)  # a batch size of one would become static
    array = clips.numpy()
    expected, logits = model(clips).logits, torch.from_numpy(session.run(["logits"], {"pixel_values": array})[0])
    counts = hf_video_tome.token_counts(model)
    print(f"{arguments.architecture}, r={r}: tokens {counts[0]} -> {counts[-1]}; wrote {output}")
    print(f"largest difference of logits: {(logits - expected).abs().max():.1e} (they spread {expected.std():.1f})")
    same = (logits.argmax(-1) == expected.argmax(-1)).sum()
    print(f"same class: {same} of {len(clips)} clips")

    unmerged = AutoModelForVideoClassification.from_pretrained(folder).eval()
    functions: dict[str, Callable[[], object]] = {
        "PyTorch, r=0": lambda: unmerged(clips),
        f"PyTorch, r={r}": lambda: model(clips),
        f"ONNX Runtime, r={r}": lambda: session.run(["logits"], {"pixel_values": array}),
    }
    print(f"batch {len(clips)}, {torch.get_num_threads()} threads, median of {arguments.rounds} interleaved rounds")
    for name, milliseconds in milliseconds_per_call(functions, arguments.rounds).items():
        print(f"  {name:20} {milliseconds:7.1f} ms")


if __name__ == "__main__":
    main()
