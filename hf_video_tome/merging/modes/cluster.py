"""`cluster`: merges each cluster of tokens into its centre, all at one early layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..assignment import Assignment, refuse_to_compile
from ..checks import at_least, one_of
from ..clustering import Cluster, cluster_runs, density_peaks, farthest_points, k_medoids, largest_divisor, partition
from ..schedule import ALMOST_ALL
from .registry import Context, ModeOption, SetShape, register_mode

CENTRES = ("dpc", "kkz", "kmedoids")


def _removals(requested: Sequence[int], shape: SetShape) -> list[int]:
    """Rounds the number of tokens that are left up to a multiple of the number of runs."""
    removals, left = [], shape.num_tokens - shape.num_protected
    for r in requested:
        runs = largest_divisor(left, shape.segments or 1)
        kept = min(max(-(-(left - r) // runs), 1) * runs, left)
        removals.append(left - kept)
        left = kept
    return removals


@register_mode(
    "cluster",
    reads=("keys", "segments"),
    removals=_removals,
    max_share=ALMOST_ALL,
    single_layer=True,
    default_segments=4,
    options={
        "centres": ModeOption(
            "dpc",
            one_of("centres", CENTRES),
            "How centres are chosen: tokens in dense regions, far from denser ones (dpc); tokens far from each other "
            "(kkz); or these, moved towards the means of their clusters (kmedoids). Only dpc can be compiled.",
            choices=CENTRES,
        ),
        "neighbours": ModeOption(
            5, at_least("neighbours", 1), "Nearest tokens that determine the density of a token, with dpc."
        ),
        "iterations": ModeOption(
            5, at_least("iterations", 0), "Largest number of times that centres move, with kmedoids."
        ),
    },
)
def cluster(context: Context) -> Assignment:
    """Clusters runs of time and merges each cluster into its centre; slots hold size-weighted means.

    A scalar r is removed by layer 0 alone: tokens merge early and at once. The number of tokens that are left is
    rounded up to a multiple of the number of runs. Without `token_merging_segments`, only scope "clip" has runs.

    Centres "dpc" are density peaks, as described for "HoliTom" (NeurIPS 2025), https://arxiv.org/abs/2505.21334, and
    "Hourglass Tokenizer for Efficient Transformer-Based 3D Human Pose Estimation" (CVPR 2024),
    https://arxiv.org/abs/2311.12028. Centres "kmedoids" with
    `token_merging_average="owner"` keep medoids, as described for "CenterCLIP: Token Clustering for Efficient
    Text-Video Retrieval" (SIGIR 2022), https://arxiv.org/abs/2205.00823. Here, all compare attention keys of an early
    layer, without training, and sizes are summed; not compared with the authors' code.

    Raises:
        ValueError: If the model is compiled or exported with other centres than "dpc".
    """
    method: Cluster = partial(density_peaks, neighbours=context.options["neighbours"])
    if context.options["centres"] != "dpc":
        refuse_to_compile(
            f"token_merging_mode_options={{'centres': {context.options['centres']!r}}} cannot be compiled or "
            "exported, because it chooses one centre after the other; use 'dpc'"
        )
        method = farthest_points
        if context.options["centres"] == "kmedoids":
            method = partial(k_medoids, iterations=context.options["iterations"])
    keys = context.keys[:, :, context.num_protected :]
    if context.shared:  # one vector for a token of all sets
        keys = keys.transpose(1, 2).flatten(2).unsqueeze(1)
    num_tokens = int(keys.shape[2])
    runs = largest_divisor(num_tokens, context.segments or 1)
    return partition(cluster_runs(method, keys, num_tokens - context.r, runs)).behind(context.num_protected)
