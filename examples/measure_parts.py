"""Measures the speed-up of each part of the fast path over its plain form, on this machine's CPU.

The two forms run in turn (A B A B ...); the result is the median of the per-round ratios. Prints the table in
`docs/fast-path.md`.

    python examples/measure_parts.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers.activations import ACT2FN

from hf_video_tome.benchmark.memory import peak_memory
from hf_video_tome.benchmark.timing import Ratio, interleave, ratio, stopwatch
from hf_video_tome.merging import (
    Assignment,
    append_size_channel,
    assign_pairs,
    bipartite_soft_matching,
    cosine_matching,
    cosine_scores,
    merge_sizes,
    merge_states,
    size_bias,
)
from hf_video_tome.models.cpu.block_attention import attend_in_blocks
from hf_video_tome.models.cpu.embed_tubelets import _tubelets_by_matrix
from hf_video_tome.models.fused_activation import fused_activation

Pair = tuple[str, Callable[[], object], Callable[[], object]]
"""Description, plain form and fast form."""

HEADS, WIDTH, MLP_WIDTH = 12, 768, 3072


def attention(num_tokens: int, dtype: torch.dtype) -> Pair:
    query, key, value = torch.randn(1, num_tokens, 3, HEADS, WIDTH // HEADS, dtype=dtype).permute(2, 0, 3, 1, 4)
    return (
        f"attention of {num_tokens} tokens, in blocks",
        lambda: scaled_dot_product_attention(query, key, value),
        lambda: attend_in_blocks(query, key, value, None, 0.125),
    )


def sizes(num_tokens: int, dtype: torch.dtype) -> Pair:
    """Compares size channels, as used by flash and flex attention, with a mask."""
    query, key, value = torch.randn(1, num_tokens, 3, HEADS, WIDTH // HEADS, dtype=dtype).permute(2, 0, 3, 1, 4)
    size, scale = torch.randint(1, 9, (1, num_tokens)).float(), (WIDTH // HEADS) ** -0.5

    def by_mask() -> Tensor:
        return scaled_dot_product_attention(query, key, value, size_bias(size, dtype), scale=scale)

    def by_channel() -> Tensor:
        wider = append_size_channel(query, key, value, size, scale)
        return scaled_dot_product_attention(*wider, scale=scale)[..., : WIDTH // HEADS]

    return (
        f"attention of {num_tokens} tokens with sizes, in more channels instead of a mask (not used)",
        by_mask,
        by_channel,
    )


def tubelets(num_frames: int, dtype: torch.dtype) -> Pair:
    projection = nn.Conv3d(3, WIDTH, kernel_size=(2, 16, 16), stride=(2, 16, 16)).to(dtype)
    pixel_values = torch.randn(1, num_frames, 3, 224, 224, dtype=dtype)
    return (
        f"patch embedding of {num_frames} frames, as a matrix product",
        lambda: projection(pixel_values.transpose(1, 2)),
        lambda: _tubelets_by_matrix(projection.weight, projection.bias, pixel_values),
    )


def activation(num_tokens: int, dtype: torch.dtype) -> Pair:
    plain = ACT2FN["gelu_fast"]
    fused, x = fused_activation(plain), torch.randn(1, num_tokens, MLP_WIDTH, dtype=dtype)
    return f"`gelu_fast` of {num_tokens} tokens, as one kernel", lambda: plain(x), lambda: fused(x)


def _merge_by_scattering(x: Tensor, weight: Tensor, assignment: Assignment) -> Tensor:
    """Returns the weighted means by adding all tokens to their slots."""
    float_x = x.float() * weight.unsqueeze(-1)
    index = assignment.slot.unsqueeze(-1).expand_as(float_x)
    return float_x.new_zeros(*assignment.owner.shape, x.shape[-1]).scatter_add(2, index, float_x).to(x.dtype)


def merging(num_tokens: int, r: int, dtype: torch.dtype) -> Pair:
    x = torch.randn(1, 1, num_tokens, WIDTH, dtype=dtype)
    assignment = assign_pairs(cosine_matching(torch.randn(1, 1, num_tokens, 64), r))
    _, weight = merge_sizes(None, assignment, torch.float32)
    return (
        f"weighted means of {num_tokens} tokens, r = {r}, as one kernel",
        lambda: _merge_by_scattering(x, weight, assignment),
        lambda: merge_states(x, weight, assignment),
    )


def projections(num_tokens: int, dtype: torch.dtype) -> Pair:
    layers = [nn.Linear(WIDTH, WIDTH).to(dtype) for _ in range(3)]
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    x = torch.randn(1, num_tokens, WIDTH, dtype=dtype)
    return (
        f"queries, keys and values of {num_tokens} tokens, as one product (not used)",
        lambda: [layer(x) for layer in layers],
        lambda: linear(x, weight, bias),
    )


def pairs(dtype: torch.dtype) -> Iterator[Pair]:
    for num_tokens in (197, 392, 784, 1568, 3136):
        yield attention(num_tokens, dtype)
    for num_tokens in (392, 1568):
        yield sizes(num_tokens, dtype)
    for num_frames in (16, 32):
        yield tubelets(num_frames, dtype)
    yield activation(3136, dtype)
    yield merging(1568, 150, dtype)
    yield merging(392, 150, dtype)
    for num_tokens in (196, 1568):
        yield projections(num_tokens, dtype)


def measure(pair: Pair, rounds: int) -> Ratio:
    """Returns the speed-up of the fast form, after two warm-up passes of each."""
    runs = [partial(lambda run: run, run) for run in pair[1:]]
    interleave(runs, 2, stopwatch())
    plain, fast = interleave(runs, rounds, stopwatch())
    return ratio(plain, fast)


def matching_memory(num_tokens: int) -> str:
    """Returns a table row with the memory of matching, with all scores at once and in blocks."""
    metric, cpu = torch.randn(1, 1, num_tokens, 64), torch.device("cpu")
    in_blocks = peak_memory(lambda: cosine_matching(metric, num_tokens // 16), cpu) or 0
    at_once = peak_memory(lambda: bipartite_soft_matching(cosine_scores(metric), num_tokens // 16), cpu) or 0
    return f"| {num_tokens} | {at_once / 2**20:.0f} MiB | {in_blocks / 2**20:.0f} MiB |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    print("| | float32 | bfloat16 |\n|---|---|---|")
    with torch.inference_mode():
        for plain, half in zip(pairs(torch.float32), pairs(torch.bfloat16), strict=True):
            found = [measure(pair, options.rounds) for pair in (plain, half)]
            print(f"| {plain[0]} | " + " | ".join(f"{own.median:.2f}x" for own in found) + " |", flush=True)
        print("\n| tokens | all scores at once | in blocks |\n|---|---|---|")
        for num_tokens in (3136, 8192, 32768):
            print(matching_memory(num_tokens), flush=True)
    print(f"\n{options.threads} threads, torch {torch.__version__}, medians of {options.rounds} rounds")


if __name__ == "__main__":
    main()
