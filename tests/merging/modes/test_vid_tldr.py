"""`vid_tldr`: `merge` with weights by saliency, against its description in loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_video_tome.merging import MODES, AttentionStatistics, Context, MergeSettings, Step, TokenLayout, Tokens

NUM_HEADS = 2


def context_of(keys: Tensor, attention: AttentionStatistics, r: int, prefix: int = 0) -> Context:
    layout = TokenLayout(prefix, 1, keys.shape[-2] - prefix)
    return Context(keys[None, None], Tokens(), layout, r, num_protected=prefix, attention=attention)


def slow_saliency(queries: Tensor, keys: Tensor, prefix: int) -> list[float]:
    """Of the tokens behind the prefix: queries and keys (H, N, D)."""
    heads, num_tokens, _ = queries.shape
    rows = [[0.0] * num_tokens for _ in range(num_tokens)]
    for h in range(heads):
        for i in range(num_tokens):
            weights = [math.exp(float(queries[h, i] @ keys[h, j])) for j in range(num_tokens)]
            for j in range(num_tokens):
                rows[i][j] += weights[j] / sum(weights) / heads
    sharpness = [sum(a * math.log(a) for a in row) for row in rows[prefix:]]
    low, high = min(sharpness), max(sharpness)
    scaled = [(h - low) / (high - low) for h in sharpness]
    mean = sum(scaled) / len(scaled)
    return [(h >= mean) * (h - mean) / (max(scaled) - mean) for h in scaled]


@given(seed=st.integers(0, 2**32 - 1), num_tokens=st.integers(4, 12), prefix=st.integers(0, 1))
def test_it_is_merge_with_the_saliency_as_importance(seed: int, num_tokens: int, prefix: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = torch.randn(2, NUM_HEADS, num_tokens, 4, generator=generator, dtype=torch.float64)
    context = context_of(keys.mean(dim=0), AttentionStatistics(queries[None], keys[None], 1.0), 2 - prefix, prefix)
    assignment, plain = MODES["vid_tldr"].assign(context), MODES["merge"].assign(context)
    assert torch.equal(assignment.slot, plain.slot)
    assert torch.equal(assignment.owner, plain.owner)
    assert (assignment.content, assignment.sizes) == ("mean", "summed")
    expected = [1.0] * prefix + [max(it, 1e-6) for it in slow_saliency(queries, keys, prefix)]
    assert assignment.importance[0, 0].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def step_of(sharp: list[bool]) -> tuple[Step, AttentionStatistics]:
    """Tokens that attend to themselves only, or to all tokens equally."""
    queries = torch.eye(len(sharp)) * 100 * torch.tensor(sharp)[:, None]
    attention = AttentionStatistics(queries[None, None], torch.eye(len(sharp))[None, None], 1.0)
    settings = MergeSettings(mode="vid_tldr")
    return Step(1, Tokens(), TokenLayout(0, 1, len(sharp)), settings), attention


def test_a_sharp_token_keeps_its_content_and_sizes_add_up() -> None:
    step, attention = step_of([True, False, False, True])
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])[None]
    reduction = step._reduce(step.context(keys, attention))
    merged = reduction.apply(torch.tensor([[[5.0], [1.0], [2.0], [3.0]]]))
    assert reduction.tokens.size.tolist() == [[1.0, 2.0, 1.0]]
    assert merged.squeeze().tolist() == pytest.approx([2.0, 5.0, 3.0], abs=1e-4)


def test_two_background_tokens_become_their_mean() -> None:
    step, attention = step_of([False, False, True, True])
    keys = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [-1.0, 0.0]])[None]
    reduction = step._reduce(step.context(keys, attention))
    assert MODES["vid_tldr"].assign(step.context(keys, attention)).importance[0, 0, :2].tolist() == pytest.approx(
        [1e-6, 1e-6]
    )
    merged = reduction.apply(torch.tensor([[[5.0], [1.0], [2.0], [3.0]]]))
    assert merged.squeeze().tolist() == pytest.approx([2.0, 3.0, 3.0])


def test_equal_attention_everywhere_is_merge() -> None:
    step, attention = step_of([False] * 4)
    importance = MODES["vid_tldr"].assign(step.context(torch.randn(1, 4, 3), attention)).importance
    assert importance.unique().numel() == 1


def test_without_a_layer_there_is_no_attention() -> None:
    with pytest.raises(ValueError, match=r"'vid_tldr' reads attention of the layer"):
        step_of([True] * 4)[0].reduce(torch.randn(1, 4, 3))
