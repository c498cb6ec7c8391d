"""Clip splicing: what is replaced, by what, and how much merges across."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from hf_video_tome.analysis import draw_splices, save_splice_examples, splice_frames, splice_mask, study_splices
from hf_video_tome.analysis.splice import (
    COLOURS_ALIKE,
    ITSELF,
    KINDS,
    MOST_SIMILAR,
    RANDOM,
    REGIONS,
    SAME_CLASS,
    choose_partners,
    colour_differences,
    crossings,
    divergences,
    whole_classes,
)
from hf_video_tome.evaluation import Examples, Task
from hf_video_tome.evaluation.examples import Example
from hf_video_tome.merging import TokenLayout
from hf_video_tome.visualization import ClipGeometry

from .conftest import make_clips, make_model

GEOMETRY = ClipGeometry(TokenLayout(0, num_frames=2, num_patches=4), rows=2, columns=2)
TASKS = [Task("label", 0, 7)]


def study(model, transform, clips, **options):
    return study_splices(model, transform, clips, options.pop("settings", {"r": 8}), TASKS, **options)


# --- what is replaced
def test_regions_replace_their_share() -> None:
    rng = np.random.default_rng(0)
    assert splice_mask(GEOMETRY, "time", 0.5, rng).tolist() == [[False] * 4, [True] * 4]
    assert splice_mask(GEOMETRY, "space", 0.5, rng).tolist() == [[False, True, False, True]] * 2
    assert [splice_mask(GEOMETRY, "tubelets", 0.25, rng).sum() for _ in range(3)] == [2, 2, 2]


def test_tubelets_are_drawn_anew_but_the_same_for_a_seed() -> None:
    draws = [splice_mask(GEOMETRY, "tubelets", 0.5, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(("region", "share"), [("tubelets", 0.01), ("time", 0.9), ("space", 1.5), ("time", 0.0)])
def test_a_share_that_leaves_nothing_on_one_side_is_refused(region: str, share: float) -> None:
    with pytest.raises(ValueError, match=f"share must leave tubelets of both clips.*got {share}"):
        splice_mask(GEOMETRY, region, share, np.random.default_rng(0))


def test_an_unknown_region_is_refused() -> None:
    with pytest.raises(ValueError, match="region must be one of 'tubelets', 'time', 'space', got 'middle'"):
        splice_mask(GEOMETRY, "middle", 0.5, np.random.default_rng(0))


def test_pixels_of_replaced_tubelets_and_no_others_come_from_the_other_clip() -> None:
    own, other = torch.zeros(4, 3, 4, 4, dtype=torch.uint8), torch.full((4, 3, 4, 4), 9, dtype=torch.uint8)
    mask = np.zeros((2, 4), dtype=bool)
    mask[1, 2] = True  # slot 1 is frames 2 and 3; patch 2 the lower left one
    spliced = splice_frames(own, other, mask, GEOMETRY)
    assert (spliced[2:, :, 2:, :2] == 9).all()
    assert spliced.sum() == 9 * 2 * 3 * 4


# --- how much merges across
def test_the_share_across_of_known_merges() -> None:
    mask = np.array([[False, False, True, True]])
    sets = np.zeros((1, 4), dtype=int)
    assert crossings(np.array([[0, 0, 1, 1]]), mask, sets)[0] == 0.0
    assert crossings(np.array([[0, 1, 0, 1]]), mask, sets)[0] == 1.0
    # Three together: each of the two has one of two partners across, the third both.
    across, _, merged = crossings(np.array([[0, 0, 0, 1]]), mask, sets)
    assert across == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert merged == 0.75


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 2], [0, 0, 0, 1, 2], [0, 0, 0, 0, 0], [-1, 0, 0, 1, 1]])
def test_random_merging_is_the_mean_over_all_permutations(groups: list[int]) -> None:
    mask, sets = np.array([[True, False, False, True, False]]), np.zeros((1, 5), dtype=int)
    every = [
        crossings(np.array([[groups[place] for place in order]]), mask, sets)[0] for order in permutations(range(5))
    ]
    assert crossings(np.array([groups]), mask, sets)[1] == pytest.approx(np.mean(every))
    assert np.mean(every) == pytest.approx(2 * 2 * 3 / (5 * 4))  # 2 a b / (n (n - 1))


# --- by what
def test_divergences_are_those_of_all_tasks_together() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5))
    found = divergences(logits, [Task("verb", 0, 2), Task("noun", 2, 3)])
    assert np.diag(found) == pytest.approx([0, 0, 0], abs=1e-12)
    parts = [np.exp(part) / np.exp(part).sum(1, keepdims=True) for part in (logits[:, :2], logits[:, 2:])]
    joint = np.einsum("nv,nw->nvw", *parts).reshape(3, -1)
    assert found[0, 1] == pytest.approx((joint[0] * np.log(joint[0] / joint[1])).sum())
    assert found[0, 1] != pytest.approx(found[1, 0])


def test_colours_are_compared_where_they_are_replaced() -> None:
    colours = np.zeros((2, 4, 3))
    colours[1, 0] = 30.0
    masks = [np.array([[True, True, False, False]]), np.array([[False, False, True, True]])]
    assert colour_differences(colours, masks).tolist() == [[0.0, 15.0], [0.0, 0.0]]


def test_partners_are_what_they_are_called() -> None:
    labels = [(0,), (1,), (0,), (1,), (2,), (0,)]
    divergence, difference = np.random.default_rng(0).random((2, 6, 6))
    for seed in range(20):
        chosen = choose_partners(labels, divergence, difference, np.random.default_rng(seed))
        assert list(chosen) == [0, 1, 2, 3, 5]  # the only one of its class is left out
        for clip, partners in chosen.items():
            others = [other for other in range(6) if other != clip]
            assert partners[ITSELF] == clip
            assert partners[SAME_CLASS] != clip
            assert labels[partners[SAME_CLASS]] == labels[clip]
            assert divergence[clip, partners[MOST_SIMILAR]] == divergence[clip, others].min()
            assert difference[clip, partners[COLOURS_ALIKE]] == difference[clip, others].min()
            assert partners[RANDOM] in others


def test_random_partners_may_be_any_other_clip() -> None:
    labels, zeros = [(0,)] * 4, np.zeros((4, 4))
    seen = {choose_partners(labels, zeros, zeros, np.random.default_rng(seed))[1][RANDOM] for seed in range(40)}
    assert seen == {0, 2, 3}


def test_no_two_clips_of_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the 2 clips has another of its class"):
        choose_partners([(0,), (1,)], np.zeros((2, 2)), np.zeros((2, 2)), np.random.default_rng(0))


def test_whole_classes_are_taken() -> None:
    labels = [0, 1, 2, 3, 0, 1, 2, 0, 1, 2, None]
    videos = tuple(
        Example(str(number), "", None, None if label is None else (label,)) for number, label in enumerate(labels)
    )
    chosen = whole_classes(Examples(videos, {}), num_classes=2, per_class=2)
    assert [(video.video_id, video.labels) for video in chosen.videos] == [
        ("0", (0,)),
        ("1", (1,)),
        ("4", (0,)),
        ("5", (1,)),
    ]
    assert len(whole_classes(Examples(videos, {}), num_classes=9, per_class=9)) == 9
    with pytest.raises(ValueError, match="no class of the dataset has two videos"):
        whole_classes(Examples(videos[:4], {}), 2, 2)


# --- the study
@pytest.mark.parametrize("region", REGIONS)
def test_the_control_merges_as_the_clip_itself(region: str, transform) -> None:
    model, clips = make_model(), make_clips(6)
    found = study(model, transform, clips, region=region, num_examples=6)
    with torch.no_grad():
        model.set_token_merging(r=8)
        trace = model(transform.normalize(clips.frames), output_token_merging=True).token_merging
    for number, examples in enumerate(found.examples):
        control = examples[0]
        assert control.splice.kind == ITSELF
        assert torch.equal(control.frames, clips.frames[number])
        assert control.groups.reshape(-1).tolist() == trace.sources[number].tolist()
        # Which numbers are counted is tested above; here, that they are counted of this.
        assert control.splice.across == crossings(control.groups, found.masks[number], np.zeros((2, 16)))[0]
    assert found.summary()["kinds"][ITSELF]["minus_itself"] == {"value": 0.0, "standard_error": 0.0, "clips": 6}


def test_a_study_is_the_same_for_the_same_seed(transform) -> None:
    model, clips = make_model(), make_clips(6)
    before = model.config.token_merging_settings()
    first = study(model, transform, clips, seed=1)
    torch.rand(3)
    assert study(model, transform, clips, seed=1).rows() == first.rows()
    assert study(model, transform, clips, seed=2).rows() != first.rows()
    assert model.config.token_merging_settings() == before
    assert [splice.kind for splice in first.splices] == [*KINDS] * 6


def test_differences_are_paired(transform) -> None:
    found = study(make_model(), transform, make_clips(6))
    same, random = found.values(SAME_CLASS, "across"), found.values(RANDOM, "across")
    difference = found.summary()["kinds"][SAME_CLASS]["minus_random_clip"]
    assert difference["value"] == pytest.approx((same - random).mean())
    assert difference["standard_error"] == pytest.approx((same - random).std(ddof=1) / 6**0.5)


@pytest.mark.parametrize(("region", "scope"), [("time", "frame"), ("time", "tube"), ("space", "time")])
def test_a_region_that_nothing_can_merge_across_is_refused(region: str, scope: str, transform) -> None:
    with pytest.raises(ValueError, match="region must be another with scope="):
        study(make_model(), transform, make_clips(4), settings={"r": 1, "scope": scope}, region=region)


def test_nothing_to_merge_is_refused(transform) -> None:
    with pytest.raises(ValueError, match="r must be one that removes tokens"):
        study(make_model(), transform, make_clips(4), settings={"r": 0})


def test_pictures_are_saved(transform, tmp_path) -> None:
    model = make_model()
    found = study(model, transform, make_clips(4), num_examples=1)
    assert len(found.examples) == len(found.masks) == 1
    geometry = ClipGeometry.from_config(model.config)
    for path in (draw_splices(found, tmp_path / "a.png"), save_splice_examples(found, tmp_path / "b.png", geometry)):
        assert path.stat().st_size > 1000
