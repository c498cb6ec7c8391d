"""`cluster` against its definition, in plain Python loops that share nothing with the package."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import hf_video_tome
from hf_video_tome import SettingError, TimesformerConfig, VideoMAEConfig, VivitConfig, VJEPA2Config
from hf_video_tome.merging import MergeSettings, TokenLayout, Tokens, merge_tokens
from hf_video_tome.merging.clustering import (
    Clusters,
    cluster_runs,
    density_peaks,
    farthest_points,
    k_medoids,
    largest_divisor,
    partition,
)

METHODS = {"dpc": density_peaks, "kkz": farthest_points, "kmedoids": k_medoids}
every_method = pytest.mark.parametrize("centres", METHODS)

Vectors = list[list[float]]


# The definition


def unit(vector: list[float]) -> list[float]:
    return [x / math.hypot(*vector) for x in vector]


def squared(a: list[float], b: list[float]) -> float:
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def nearest(vectors: Vectors, centres: list[int]) -> dict[int, int]:
    """The centre of each token."""
    return {
        i: i if i in centres else min(centres, key=lambda c: (squared(vector, vectors[c]), c))
        for i, vector in enumerate(vectors)
    }


def dpc(keys: Vectors, count: int, neighbours: int = 5) -> dict[int, int]:
    vectors, channels = [unit(key) for key in keys], len(keys[0])
    distance = [[math.sqrt(squared(a, b) / channels) for b in vectors] for a in vectors]
    density = []
    for row in distance:
        closest = sorted(row)[:neighbours]
        density.append(math.exp(-sum(d**2 for d in closest) / len(closest)))
    farthest = max(max(row) for row in distance)
    peak = []
    for i, row in enumerate(distance):
        denser = [d for j, d in enumerate(row) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        peak.append(density[i] * min(denser, default=farthest))
    best = sorted(range(len(keys)), key=lambda i: (-peak[i], i))
    return nearest(vectors, sorted(best[:count]))


def kkz_centres(keys: Vectors, count: int) -> list[int]:
    vectors = [unit(key) for key in keys]
    centres = [max(range(len(keys)), key=lambda i: math.hypot(*keys[i]))]
    while len(centres) < count:
        left = [i for i in range(len(keys)) if i not in centres]
        centres.append(max(left, key=lambda i: min(squared(vectors[i], vectors[c]) for c in centres)))
    return centres


def kkz(keys: Vectors, count: int) -> dict[int, int]:
    return nearest([unit(key) for key in keys], kkz_centres(keys, count))


def kmedoids(keys: Vectors, count: int, iterations: int = 5) -> dict[int, int]:
    vectors, centres = [unit(key) for key in keys], kkz_centres(keys, count)
    for _ in range(iterations):
        label = nearest(vectors, centres)
        moved = []
        for centre in centres:
            members = [i for i in label if label[i] == centre]
            mean = [sum(vectors[i][d] for i in members) / len(members) for d in range(len(keys[0]))]
            moved.append(min(members, key=lambda i: (round(squared(vectors[i], mean), 12), i)))
        centres = moved
    return nearest(vectors, centres)


DEFINITIONS = {"dpc": dpc, "kkz": kkz, "kmedoids": kmedoids}


def centres_of(clusters: Clusters) -> list[int]:
    """The centre of each token of the only set."""
    [[centre]], [[label]] = clusters.centre.tolist(), clusters.label.tolist()
    assert centre == sorted(centre)
    return [centre[number] for number in label]


# Clusterings


def draw(num_tokens: int, channels: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Vectors in clouds, as those of videos are."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(4, channels, generator=generator, dtype=dtype)
    which = torch.randint(4, (num_tokens,), generator=generator)
    return middle[which] + 0.5 * torch.randn(num_tokens, channels, generator=generator, dtype=dtype)


@every_method
@given(num_tokens=st.integers(2, 24), share=st.floats(0, 1), channels=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_it_is_what_the_definition_says(centres, num_tokens, share, channels, seed):
    keys = draw(num_tokens, channels, seed)
    count = max(round(share * num_tokens), 1)
    expected = DEFINITIONS[centres](keys.tolist(), count)
    assert centres_of(METHODS[centres](keys[None, None], count)) == [expected[i] for i in range(num_tokens)]


@pytest.mark.parametrize(("centres", "name", "value"), [("dpc", "neighbours", 3), ("kmedoids", "iterations", 1)])
def test_options_are_those_of_the_definition(centres: str, name: str, value: int) -> None:
    keys = draw(40, 3, seed=7)
    expected = DEFINITIONS[centres](keys.tolist(), 12, value)
    found = centres_of(METHODS[centres](keys[None, None], 12, **{name: value}))
    assert found == [expected[i] for i in range(40)]
    assert found != centres_of(METHODS[centres](keys[None, None], 12)), "the option changes nothing"


def test_no_iterations_are_the_start() -> None:
    keys = draw(40, 3, seed=7)[None, None]
    assert all(map(torch.equal, k_medoids(keys, 12, iterations=0), farthest_points(keys, 12)))


@pytest.mark.parametrize("centres", ["dpc", "kkz"])  # a medoid of two tokens is the first
@given(seed=st.integers(0, 10**6))
def test_relabelling_tokens_relabels_the_clusters(centres, seed):
    keys = draw(20, 4, seed)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(seed))
    found, relabelled = (centres_of(METHODS[centres](x[None, None], 6)) for x in (keys, keys[order]))
    assert [order[i].item() for i in relabelled] == [found[i] for i in order.tolist()]


@every_method
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_groups_of_duplicates_are_found(centres, counts, seed):
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    group = group[torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))]
    keys = torch.eye(len(counts))[group][None, None]
    found = centres_of(METHODS[centres](keys, len(counts)))
    firsts = [group.tolist().index(number) for number in range(len(counts))]
    assert found == [firsts[number] for number in group.tolist()]


@every_method
def test_equal_tokens_are_taken_in_order(centres: str) -> None:
    clusters = METHODS[centres](torch.ones(1, 1, 8, 4), 3)
    assert clusters.centre.tolist() == [[[0, 1, 2]]]
    assert clusters.label.tolist() == [[[0, 1, 2, 0, 0, 0, 0, 0]]]


@every_method
def test_an_outlier_has_its_own_cluster(centres: str) -> None:
    angle = torch.tensor([0.0, 0.01, 0.03, 1.0, 1.01, 1.03, 3.0])
    keys = torch.stack((angle.cos(), angle.sin()), dim=-1)
    options = {"neighbours": 2} if centres == "dpc" else {}
    found = centres_of(METHODS[centres](keys[None, None], 3, **options))
    assert found.count(6) == 1
    assert len(set(found[:3])) == len(set(found[3:6])) == 1


@every_method
@pytest.mark.parametrize("block_size", [1, 50, 500, 1300])
def test_blocks_change_nothing(centres: str, block_size: int) -> None:
    keys = torch.stack([draw(20, 4, seed) for seed in range(6)]).view(3, 2, 20, 4)
    whole = METHODS[centres](keys, 6)
    assert all(map(torch.equal, METHODS[centres](keys, 6, block_size=block_size), whole))
    for clip in range(3):
        alone = METHODS[centres](keys[clip : clip + 1], 6)
        assert all(torch.equal(it[0], every[clip]) for it, every in zip(alone, whole, strict=True))


@every_method
def test_a_batch_can_be_empty(centres: str) -> None:
    assert METHODS[centres](torch.randn(0, 2, 8, 4), 3).label.shape == (0, 2, 8)


def test_keys_of_zero_length_are_tokens_too() -> None:
    for method in METHODS.values():
        clusters = method(torch.zeros(1, 1, 5, 3), 2)
        assert clusters.centre.tolist() == [[[0, 1]]]


def test_runs_are_apart_and_a_partition_is_complete() -> None:
    keys = draw(24, 4, seed=0)[None, None]
    clusters = cluster_runs(density_peaks, keys, 8, 2)
    for run in range(2):
        alone = density_peaks(keys[:, :, 12 * run : 12 * run + 12], 4)
        assert torch.equal(clusters.centre[..., 4 * run : 4 * run + 4], alone.centre + 12 * run)
        assert torch.equal(clusters.label[..., 12 * run : 12 * run + 12], alone.label + 4 * run)
    assignment = partition(clusters)
    assert sorted(torch.cat((assignment.owner, assignment.moved), dim=-1).flatten().tolist()) == list(range(24))
    assert (assignment.moved.diff() > 0).all()
    assert torch.equal(assignment.slot.gather(-1, assignment.owner)[0, 0], torch.arange(8))


@given(number=st.integers(1, 60), most=st.integers(1, 12))
def test_runs_are_as_many_as_can_be_equal(number, most):
    assert largest_divisor(number, most) == max(k for k in range(1, most + 1) if number % k == 0)


# The mode


def merged(x: Tensor, r: int, layout: TokenLayout, size: Tensor | None = None, **settings: Any) -> tuple[Tensor, Any]:
    return merge_tokens(x, x, r, Tokens(size=size), layout, MergeSettings(mode="cluster", **settings))


@given(
    frames=st.integers(1, 4),
    patches=st.integers(1, 6),
    prefix=st.integers(0, 2),
    scope=st.sampled_from(["clip", "frame", "tube", "time"]),
    centres=st.sampled_from(list(METHODS)),
    average=st.sampled_from(["mean", "owner"]),
    r=st.integers(1, 30),
    seed=st.integers(0, 10**6),
)
def test_sizes_add_up_and_prefix_tokens_stay(frames, patches, prefix, scope, centres, average, r, seed):
    layout = TokenLayout(prefix, frames, patches)
    x = torch.randn(2, layout.num_tokens, 4, generator=torch.Generator().manual_seed(seed))
    y, tokens = merged(x, r, layout, scope=scope, options={"centres": centres}, average=average)
    if y.shape[1] == layout.num_tokens:
        assert torch.equal(x, y)
        return
    assert torch.equal(y[:, :prefix], x[:, :prefix])
    assert (tokens.size.sum(dim=1) == layout.num_tokens).all()
    assert (tokens.size[:, :prefix] == 1).all()
    if average == "mean":
        torch.testing.assert_close((y * tokens.size.unsqueeze(-1)).sum(dim=1), x.sum(dim=1), rtol=1e-4, atol=1e-4)
    else:
        assert all((row == x[clip]).all(dim=-1).any() for clip in range(2) for row in y[clip])


@pytest.mark.parametrize(
    ("num_tokens", "r", "segments", "expected"),
    [(16, 6, 4, 12), (16, 100, 4, 4), (16, 8, None, 8), (15, 4, 4, 12), (13, 4, 4, 9), (16, 3, 4, 16), (16, 3, 1, 13)],
)
def test_what_is_left_is_a_multiple_of_the_runs(num_tokens: int, r: int, segments: int | None, expected: int) -> None:
    x = torch.randn(1, num_tokens + 1, 4)
    assert merged(x, r, TokenLayout(1, 1, num_tokens), segments=segments)[0].shape[1] == expected + 1


def test_means_are_weighted_and_distances_are_not() -> None:
    x = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 4.0]]])
    size = torch.tensor([[3.0, 1.0, 1.0, 1.0]])
    y, tokens = merged(x, 2, TokenLayout(0, 1, 4), size, segments=1)
    torch.testing.assert_close(y, torch.tensor([[[1.25, 0.0], [0.0, 2.5]]]))
    assert tokens.size.tolist() == [[4.0, 2.0]]


@pytest.mark.parametrize("scope", ["tube", "time"])
def test_sets_share_one_clustering_of_all_their_keys(scope: str) -> None:
    layout = TokenLayout(1, 3, 5)
    x = draw(2 * layout.num_tokens, 4, seed=3).view(2, -1, 4)
    _, tokens = merge_tokens(
        x, x, 2, Tokens(source=torch.arange(16).expand(2, -1)), layout, MergeSettings(mode="cluster", scope=scope)
    )
    grid = x[:, 1:].view(2, 3, 5, 4)
    joined = (grid.transpose(1, 2) if scope == "tube" else grid).flatten(2)
    for clip in range(2):
        count = joined.shape[1] - 2
        centre = dpc(joined[clip].tolist(), count)
        order = sorted(set(centre.values()))
        label = torch.tensor([order.index(centre[i]) for i in range(joined.shape[1])])
        own = tokens.source[clip, 1:].view(3, 5) - 1
        if scope == "tube":
            expected = label + count * torch.arange(3).unsqueeze(-1)
        else:
            expected = 5 * label.unsqueeze(-1) + torch.arange(5)
        assert torch.equal(own, expected)


def test_frames_are_clustered_alone() -> None:
    layout, x = TokenLayout(0, 3, 6), draw(18, 4, seed=1)[None]
    y, _ = merged(x, 2, layout, scope="frame")
    for frame in range(3):
        alone, _ = merged(x[:, 6 * frame : 6 * frame + 6], 2, TokenLayout(0, 1, 6), segments=1)
        torch.testing.assert_close(y[:, 4 * frame : 4 * frame + 4], alone)


def test_gradients_are_those_of_means() -> None:
    x = draw(12, 4, seed=0)[None].requires_grad_()
    y, tokens = merged(x, 8, TokenLayout(0, 1, 12))
    (y * tokens.size.unsqueeze(-1)).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


# Settings


def test_one_layer_merges_and_lists_name_others() -> None:
    config = VivitConfig(num_hidden_layers=3, token_merging_mode="cluster", token_merging_r=0.75)
    assert config.token_merging_plan().token_counts() == [3137, 785, 785, 785]
    config.update_token_merging(r=[0, 1001, 0.5])
    assert config.token_merging_plan().token_counts() == [3137, 3137, 1 + 2136, 1 + 568]
    assert VJEPA2Config(token_merging_mode="cluster", token_merging_r=100).token_merging_plan().settings.segments == 8
    for config in (VJEPA2Config(frames_per_clip=16), VJEPA2Config()):  # four time slots each, as in long clips
        config.update_token_merging(mode="cluster", r=100)
        clip = config.clip_shape._replace(frames=16)
        assert config.token_merging_plan(clip).settings.segments == 2


@pytest.mark.parametrize("scope", ["frame", "tube", "time"])
def test_other_scopes_have_no_runs(scope: str) -> None:
    config = TimesformerConfig(token_merging_mode="cluster", token_merging_r=3, token_merging_scope=scope)
    frames, patches = (5, 196) if scope == "time" else (8, 193)
    assert config.token_merging_plan().token_counts()[1] == 1 + frames * patches
    config = VJEPA2Config(token_merging_mode="cluster", token_merging_r=3, token_merging_scope=scope)
    assert config.token_merging_settings(resolved=True)["segments"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"centres": "random"}, "'centres'.* must be one of 'dpc', 'kkz', 'kmedoids', got 'random'"),
        ({"neighbours": 0}, "'neighbours'.* must be an int >= 1, got 0"),
        ({"iterations": 1.5}, "'iterations'.* must be an int >= 0, got 1.5"),
        ({"iterations": True}, "'iterations'.* must be an int >= 0, got True"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        VideoMAEConfig(token_merging_mode="cluster", token_merging_mode_options=options)


@every_method
def test_products_are_counted(centres: str) -> None:
    size = {"image_size": 32, "patch_size": 8, "num_frames": 8, "hidden_size": 16, "num_attention_heads": 2}
    settings = {"mode": "cluster", "r": 32, "mode_options": {"centres": centres, "iterations": 3}}
    config = VideoMAEConfig(**size, num_hidden_layers=2, intermediate_size=32)
    config.update_token_merging(**settings)
    matching = [layer.matching for layer in hf_video_tome.mac_count(config).layers]
    distances, to_centres = 64 * 64 * 8 // 4, 64 * 32 * 8 // 4
    assert matching == [{"dpc": distances, "kkz": to_centres, "kmedoids": to_centres * (1 + 2 * 3)}[centres], 0]


# Programs, and memory


class Peaks(nn.Module):
    """Blocks of some rows of one set."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(density_peaks(x, 5, block_size=90))


def test_a_program_runs_batches_of_any_size() -> None:
    keys, batch = torch.randn(3, 2, 20, 4), torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Peaks(), (keys,), dynamic_shapes=({0: batch},)).module()
    for batch_size in (1, 2, 5):
        keys = torch.randn(batch_size, 2, 20, 4)
        assert all(map(torch.equal, program(keys), Peaks()(keys)))


MEMORY = """
import resource, sys, types, torch

package = sys.modules["hf_video_tome"] = types.ModuleType("hf_video_tome")  # the core alone, without transformers
package.__path__ = [sys.argv[1]]
from hf_video_tome.merging.clustering import cluster_runs, density_peaks, farthest_points, k_medoids, partition

torch.set_num_threads(1)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for method in (density_peaks, farthest_points, k_medoids):
    partition(cluster_runs(method, torch.randn(1, 1, 64, 64), 16, 8))
keys = torch.randn(3, 1, 8192, 64)
keys[0] += 1
before = peak()
cluster_runs(density_peaks, keys[:1], 1024, 8)
cluster_runs(farthest_points, keys[:1], 64, 8)
cluster_runs(k_medoids, keys[:1], 64, 8)
one = peak() - before
cluster_runs(density_peaks, keys, 1024, 8)
print(one, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the unit of Linux")
def test_a_batch_of_long_clips_needs_the_memory_of_one_block() -> None:
    """8192 tokens, as V-JEPA 2 has of 64 frames; all distances of a clip would be 268 MB."""
    command = [sys.executable, "-c", MEMORY, str(Path(hf_video_tome.__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    one, batch = map(int, done.stdout.split())
    assert one < 100, done.stdout
    assert batch < one + 40, done.stdout
