"""Where merged tokens lie, for the models whose layers ask for it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from hf_video_tome.merging import MergeSettings, TokenLayout, Tokens, initial_tokens, merge_tokens

from . import reference
from .mode_families import DROPPING_MODES, MERGING_MODES
from .test_merge_tokens import LAYERS, THRESHOLD, Case, cases

AXES = 3


def run(case: Case, layers: int, position: str) -> tuple[list[torch.Tensor], list[Tokens]]:
    """The states and what is known of them, with positions that are alike in all clips."""
    generator = torch.Generator().manual_seed(case.seed + 1)
    places = torch.rand(1, case.layout.num_tokens, AXES, generator=generator, dtype=torch.float64)
    states, outputs = [case.start()._replace(position=places)], [case.draw()]
    settings = case.settings._replace(position=position)
    for _ in range(layers):
        x, generator = outputs[-1], torch.Generator().manual_seed(case.seed)
        x, state = merge_tokens(x, case.metric(x), case.r, states[-1], case.layout, settings, generator)
        outputs.append(x)
        states.append(state)
    return outputs, states


@given(case=cases(modes=MERGING_MODES), layers=LAYERS)
def test_a_centroid_is_the_mean_of_the_places_of_all_that_a_token_stands_for(case, layers):
    outputs, states = run(case, layers, "centroid")
    places = states[0].position.expand(case.batch, -1, -1)
    for x, state in zip(outputs, states, strict=True):
        index = state.source.unsqueeze(-1).expand_as(places)
        sums = places.new_zeros(case.batch, x.shape[1], AXES).scatter_add(1, index, places)
        counts = case.sizes(state, x).to(places.dtype).unsqueeze(-1)
        tolerance = {"rtol": 1e-5, "atol": 1e-5}  # sizes are float32
        torch.testing.assert_close(state.position.expand_as(sums), sums / counts, **tolerance)


@given(case=cases(modes=DROPPING_MODES), layers=LAYERS)
def test_what_is_not_dropped_stays_in_its_place(case, layers):
    for position in ("destination", "centroid"):
        outputs, states = run(case, layers, position)
        places = states[0].position.expand(case.batch, -1, -1)
        for x, state in zip(outputs, states, strict=True):
            for b in range(case.batch):
                kept = (state.source[b] >= 0).nonzero().flatten()
                own = torch.empty(x.shape[1], AXES, dtype=torch.float64)
                own[state.source[b, kept]] = places[b, kept]
                assert torch.equal(state.position.expand(case.batch, -1, -1)[b], own)


@given(case=cases(modes=("merge", "drop", "hybrid"), dtypes=(torch.float64,), max_batch=2), layers=LAYERS)
def test_places_equal_brute_force(case, layers):
    """A token of the reference has its place as part of its state; one that is only ever dropped into keeps it."""
    for position in ("destination", "centroid"):
        outputs, states = run(case, layers, position)
        mode = case.mode if position == "centroid" else "drop"
        layout = case.layout
        for b in range(case.batch):
            places = states[0].position[0].tolist()
            tokens = [reference.Token(place, [], [i]) for i, place in enumerate(places)]
            for x, after, state in zip(outputs, outputs[1:], states[1:], strict=False):
                for token, metric in zip(tokens, x[b].tolist(), strict=True):
                    token.metric = metric
                tokens = reference.reduce_sequence(
                    tokens,
                    case.r,
                    layout.num_prefix_tokens,
                    layout.num_sets(case.scope),
                    layout.patch_major,
                    case.scope,
                    mode,
                    THRESHOLD,
                )
                assert len(tokens) == after.shape[1]
                expected = torch.tensor([token.state for token in tokens], dtype=torch.float64)
                actual = state.position.expand(case.batch, -1, -1)[b]
                torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@given(case=cases(), layers=LAYERS)
def test_places_change_nothing_else(case, layers):
    for position in ("destination", "centroid"):
        with_places, states = run(case, layers, position)
        without, plain_states = case.run(layers)
        assert all(torch.equal(a, b) for a, b in zip(with_places, without, strict=True))
        for state, plain in zip(states, plain_states, strict=True):
            assert plain.position is None
            assert torch.equal(state.source, plain.source)
            assert (state.size is None) == (plain.size is None)
            assert state.size is None or torch.equal(state.size, plain.size)


@given(case=cases(), layers=LAYERS)
def test_places_are_not_copied_for_each_clip_while_nothing_is_removed(case, layers):
    _, states = run(case._replace(r=0), layers, "centroid")
    assert all(state.position is states[0].position for state in states)


def test_a_hybrid_destination_keeps_its_place_while_its_content_is_discarded():
    metric = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    places = torch.tensor([[[0.0, 0.0, 0.0], [4.0, 0.0, 2.0]]])
    state = initial_tokens(1, 2, torch.device("cpu"), track=False, position=places)
    for position, expected in (("destination", [4.0, 0.0, 2.0]), ("centroid", [0.0, 0.0, 0.0])):
        settings = MergeSettings("hybrid", threshold=0.9, position=position)
        merged, after = merge_tokens(metric, metric, 1, state, TokenLayout(0, 1, 2), settings)
        assert merged.tolist() == [[[1.0, 0.0]]]
        assert after.position.tolist() == [[expected]]


@pytest.mark.parametrize("position", ["destination", "centroid"])
def test_no_gradient_reaches_the_places_nor_comes_from_the_states(position):
    x = torch.randn(2, 8, 4, requires_grad=True)
    state = initial_tokens(2, 8, torch.device("cpu"), track=False, position=torch.rand(1, 8, AXES))
    _, state = merge_tokens(x, x.detach(), 3, state, TokenLayout(0, 2, 4), MergeSettings(position=position))
    assert state.position.shape == (2, 5, AXES)
    assert not state.position.requires_grad
