"""Layer duplication, on constructed keys and on tiny models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hf_video_tome.analysis import draw_layers, duplicate_layer, save_layer_groups, study_layers
from hf_video_tome.analysis.layers import MEASURES, place_distances, tubelet_colours
from hf_video_tome.merging import MergeSettings, TokenLayout
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.visualization import ClipGeometry

from .conftest import make_clips, make_model

LAYOUT = TokenLayout(0, num_frames=2, num_patches=4)


def test_repetition_brings_together_what_one_decision_cannot() -> None:
    """One decision removes half of the tokens at most; the keys of merged tokens decide about the next."""
    direction = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    keys = direction[[0, 0, 0, 0, 1, 1, 1, 1]][None]
    trace = duplicate_layer(keys, [4, 4, 4], LAYOUT, MergeSettings())
    assert trace.token_counts == (8, 4, 2, 1)
    first, second = trace.layer_sources[2][0, :4].unique(), trace.layer_sources[2][0, 4:].unique()
    assert len(first) == len(second) == 1
    assert first.item() != second.item()


def test_the_key_of_a_merged_token_is_the_mean_of_those_of_all_its_parts() -> None:
    """Each decision is the one that these means lead to, however the parts came together."""
    keys = torch.randn(1, 32, 6, dtype=torch.float64)
    layout = TokenLayout(0, num_frames=2, num_patches=16)
    steps = [10, 6, 5]
    trace = duplicate_layer(keys, steps, layout, MergeSettings())
    for done, r in enumerate(steps):
        groups = torch.nn.functional.one_hot(trace.layer_sources[done][0]).double()
        means = (groups / groups.sum(0)).T @ keys[0]
        alone = duplicate_layer(means[None], [r], layout, MergeSettings())
        assert alone.sources[0][trace.layer_sources[done][0]].tolist() == trace.layer_sources[done + 1][0].tolist()


def test_colours_are_those_of_the_tubelets() -> None:
    geometry = ClipGeometry(LAYOUT, rows=2, columns=2)
    frames = torch.zeros(4, 3, 4, 4, dtype=torch.uint8)
    frames[2, 1, 2:, :2] = 100  # one of the two frames of slot 1, green, lower left
    colours = tubelet_colours(frames, geometry)
    assert colours.shape == (8, 3)
    assert colours[4 + 2].tolist() == [0.0, 50.0, 0.0]
    assert colours.sum() == 50.0


def test_distances_are_those_of_the_grid() -> None:
    found = place_distances(ClipGeometry(LAYOUT, rows=2, columns=2))
    assert found["spatial_distance"][0].tolist() == pytest.approx([0, 1, 1, 2**0.5] * 2)
    assert found["other_slot_share"][0].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_every_architecture_can_be_studied(model_type: str, transform) -> None:
    model = make_model(model_type)
    before = model.config.token_merging_settings()
    study = study_layers(model, transform, make_clips(3), {"r": 3}, batch_size=2)
    assert model.config.token_merging_settings() == before
    assert {entry.layer for entry in study.measures} == {*range(1, model.config.num_merging_layers + 1), None}
    for entry in study.measures:
        assert entry.merged.clips == study.clips == 3
    by_name = {(entry.layer, entry.measure): entry for entry in study.measures}
    for layer in range(1, model.config.num_merging_layers + 1):
        similar = by_name[layer, "key_similarity"]
        assert similar.merged.value > similar.random.value  # it merges by just that


def test_scopes_bound_what_can_merge(transform) -> None:
    model = make_model()
    shares = {}
    for scope in ("clip", "frame"):
        study = study_layers(model, transform, make_clips(2), {"r": 4, "scope": scope})
        found = [entry for entry in study.measures if entry.measure == "other_slot_share"]
        shares[scope] = found[0].random.value
        if scope == "frame":
            assert all(entry.merged.value == 0 for entry in found)
    assert shares == {"clip": pytest.approx(16 / 31), "frame": 0.0}


def test_a_study_does_not_depend_on_batches_or_on_what_ran_before(transform) -> None:
    model, clips = make_model(), make_clips(4)
    first = study_layers(model, transform, clips, {"r": 8, "mode": "random_merge"}, seed=3)
    torch.rand(5)
    again = study_layers(model, transform, clips, {"r": 8, "mode": "random_merge"}, seed=3)
    other = study_layers(model, transform, clips, {"r": 8, "mode": "random_merge"}, seed=4)
    assert first.rows() == again.rows()
    assert first.rows() != other.rows()
    single, whole = (study_layers(model, transform, clips, {"r": 8}, batch_size=size) for size in (1, 4))
    for one, other_one in zip(single.rows(), whole.rows(), strict=True):
        assert one["merged"] == pytest.approx(other_one["merged"], rel=1e-5)


def test_nothing_to_merge_is_refused(transform) -> None:
    with pytest.raises(ValueError, match="r must be one that removes tokens"):
        study_layers(make_model(), transform, make_clips(2), {"r": 0})


def test_pictures_are_saved(transform, tmp_path) -> None:
    model, clips = make_model(), make_clips(2)
    study = study_layers(model, transform, clips, {"r": 8}, num_examples=2)
    assert len(study.examples) == 2
    assert list(study.examples[1]) == ["layer 1", "layer 2", "layer 3", "model"]
    assert {row["measure"] for row in study.rows()} == set(MEASURES)
    geometry = ClipGeometry.from_config(model.config)
    for path in (
        draw_layers(study, tmp_path / "layers.png", title="a $ title"),
        save_layer_groups(study, tmp_path / "groups.png", clips, geometry, example=1),
    ):
        assert path.stat().st_size > 1000
    assert np.isfinite([row["merged"] for row in study.rows()]).all()
