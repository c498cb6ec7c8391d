"""`frame_merge`: the most similar neighbouring frames become one, against loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome import TimesformerConfig, token_counts
from hf_video_tome.merging import MODES, Assignment, Context, MergeSettings, TokenLayout, Tokens, merge_tokens


def assign(keys: Tensor, r: int, size: Tensor | None = None, weights: str = "size") -> Assignment:
    """Keys (P, T, D) of one clip, sizes (T,) of its frames."""
    num_patches, num_frames, _ = keys.shape
    sizes = None if size is None else size.expand(1, num_patches, -1)
    context = Context(
        keys[None],
        Tokens(sizes),
        TokenLayout(0, num_frames, num_patches),
        r,
        shared=True,
        options={"weights": weights},
    )
    return MODES["frame_merge"].assign(context)


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def mean(vectors: list[list[float]], weights: list[float]) -> list[float]:
    total = sum(weights)
    return [sum(w * x for w, x in zip(weights, column, strict=True)) / total for column in zip(*vectors, strict=True)]


def slow_frame_merge(keys: list[list[list[float]]], size: list[float], r: int) -> list[list[int]]:
    """The frames of each slot; keys by patch position, frame and channel."""
    frames = [mean([patch[t] for patch in keys], [1.0] * len(keys)) for t in range(len(size))]
    slots = [[t] for t in range(len(size))]
    for _ in range(r):
        key = [mean([frames[t] for t in slot], [size[t] for t in slot]) for slot in slots]
        alike = [cosine(a, b) for a, b in itertools.pairwise(key)]
        first = alike.index(max(alike))
        slots[first : first + 2] = [slots[first] + slots[first + 1]]
    return slots


@given(seed=st.integers(0, 2**32 - 1), num_frames=st.integers(2, 8), data=st.data())
def test_it_equals_the_description(seed: int, num_frames: int, data: st.DataObject) -> None:
    r = data.draw(st.integers(1, num_frames - 1))
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(3, num_frames, 4, generator=generator, dtype=torch.float64)
    size = torch.randint(1, 5, (num_frames,), generator=generator).double()
    assignment = assign(keys, r, size)
    slots = slow_frame_merge(keys.tolist(), size.tolist(), r)
    assert assignment.slot.tolist() == [[[i for i, slot in enumerate(slots) for _ in slot]]]
    assert assignment.owner.tolist() == [[[slot[0] for slot in slots]]]
    assert assignment.moved.tolist() == [[[t for slot in slots for t in slot[1:]]]]
    assert (assignment.content, assignment.sizes, assignment.importance) == ("mean", "summed", None)


def test_two_equal_frames_merge_first_and_of_several_pairs_the_first() -> None:
    frames = torch.eye(4)[[0, 1, 1, 2, 2]]
    keys = frames.expand(2, -1, -1)
    assert assign(keys, 1).slot.tolist() == [[[0, 1, 1, 2, 3]]]
    assert assign(keys, 2).slot.tolist() == [[[0, 1, 1, 2, 2]]]


def test_frames_merge_as_wholes_weighted_by_size() -> None:
    layout = TokenLayout(1, num_frames=3, num_patches=2)
    x = torch.tensor([[[9.0], [1.0], [2.0], [4.0], [8.0], [7.0], [7.0]]])  # CLS, then two patches of three frames
    metric = torch.tensor([[[0.0, 0.0], *([[1.0, 0.0]] * 4), *([[0.0, 1.0]] * 2)]])
    size = torch.tensor([[1.0, 1.0, 1.0, 2.0, 2.0, 1.0, 1.0]])
    merged, tokens = merge_tokens(x, metric, 1, Tokens(size), layout, MergeSettings(mode="frame_merge", scope="time"))
    assert merged.squeeze().tolist() == pytest.approx([9.0, 3.0, 6.0, 7.0, 7.0])
    assert tokens.size.tolist() == [[1.0, 3.0, 3.0, 1.0, 1.0]]


def test_frames_can_weigh_by_their_similarity_to_the_next() -> None:
    keys = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys[:, 3] = -keys[:, 2]  # a negative similarity has the smallest weight
    listed = keys.tolist()
    expected = [sum(cosine(patch[t], patch[t + 1]) for patch in listed) / 3 for t in range(4)]
    importance = assign(keys, 2, weights="similarity").importance
    assert importance[0, 0].tolist() == pytest.approx([max(it, 1e-6) for it in [*expected, expected[-1]]])
    assert importance[0, 0, 2] == 1e-6
    assert torch.equal(assign(keys, 2, weights="similarity").slot, assign(keys, 2).slot)


def test_r_counts_frames_of_layer_0_and_one_frame_is_left() -> None:
    config = TimesformerConfig(token_merging_mode="frame_merge", token_merging_r=3)
    assert token_counts(config) == [1569] + [1 + 5 * 196] * 12
    assert token_counts(TimesformerConfig(token_merging_mode="frame_merge", token_merging_r=99))[-1] == 197
    assert token_counts(TimesformerConfig(token_merging_mode="frame_merge", token_merging_r=0.75))[-1] == 1 + 2 * 196
    assert config.token_merging_settings(resolved=True)["scope"] == "time"
