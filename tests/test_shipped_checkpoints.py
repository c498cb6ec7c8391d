"""What merging does to the accuracy of the shipped checkpoints, on real video files of the test split.

The margins are wide: with 120 clips, one of each action, the standard error of an accuracy is about 2.5 points, of a
change half of that. V-JEPA 2, whose answers merging changes most, has twice as many.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoModelForVideoClassification

import hf_video_tome  # noqa: F401  (registers)
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.data import ClipTransform
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.data.sampling import sampling_preset
from hf_video_tome.evaluation import SettingResults, TaskResults, evaluate

NUM_CLIPS = {"videomae": 120, "vivit": 120, "timesformer": 120, "motionformer": 120, "vjepa2": 240}
# What removes about 80 % of the tokens: r counts per clip, or per frame.
R = {"videomae": 38, "vivit": 38, "timesformer": 5, "motionformer": 5, "vjepa2": 38}
# What that may cost, as a share of all clips.
COST = {"videomae": 0.03, "vivit": 0.03, "timesformer": 0.03, "motionformer": 0.03, "vjepa2": 0.06}
ARCHITECTURES = list(R)
Measured = dict[str, dict[str, SettingResults]]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    written = write_clips(tmp_path_factory.mktemp("clips"), "test", range(max(NUM_CLIPS.values())))
    return [{"video": str(clip.path), "label": clip.label.action} for clip in written]


@pytest.fixture(scope="module")
def measured(rows: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """Results of the unmerged models and of some modes."""
    results = {}
    for architecture, r in R.items():
        folder = checkpoint_path(f"{architecture}-moving-digits")
        model = AutoModelForVideoClassification.from_pretrained(folder)
        settings: dict[str, dict[str, Any]] = {"unmerged": {"r": 0}, "merge": {"r": r}}
        settings |= {mode: {"r": r, "mode": mode} for mode in ("drop", "random_merge")}
        if architecture == "timesformer":
            settings["frame"] = {"r": r, "scope": "frame"}
        evaluated = evaluate(
            model,
            rows[: NUM_CLIPS[architecture]],
            ClipTransform.from_pretrained(folder),
            sampling_preset(architecture, "moving-digits", num_frames=model.config.num_frames),
            tmp_path_factory.mktemp(architecture),
            settings=list(settings.values()),
            batch_size=40,
            num_workers=0,
            match_labels_by_name=False,
        )
        assert not evaluated.failures
        results[architecture] = dict(zip(settings, evaluated.settings, strict=True))
    return results


def main(measured: Measured, architecture: str, name: str) -> TaskResults:
    results = measured[architecture][name].main
    assert results is not None
    return results


def test_every_architecture_has_a_checkpoint() -> None:
    assert available() == sorted(f"{architecture}-moving-digits" for architecture in ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_card_says_what_the_training_log_measured(architecture: str) -> None:
    folder = checkpoint_path(f"{architecture}-moving-digits")
    log = [json.loads(line) for line in (folder / "training_log.jsonl").read_text().splitlines()]
    result = log[-1]["test"]
    card = (folder / "README.md").read_text()
    assert f"{result['action']:.1f} %" in card
    assert f"{result['nll']:.3f}" in card
    assert result["action"] >= 80


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_checkpoint_is_trained(measured: Measured, architecture: str) -> None:
    assert main(measured, architecture, "unmerged").top_1.value >= 0.80


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_80_percent_of_the_tokens_costs_little(measured: Measured, architecture: str) -> None:
    counts = measured[architecture]["merge"].token_counts
    assert counts is not None
    assert counts[-1] < 0.22 * counts[0]
    difference = measured[architecture]["merge"].top_1_difference
    assert difference is not None
    assert difference.value >= -COST[architecture]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merging_is_no_worse_than_dropping(measured: Measured, architecture: str) -> None:
    assert main(measured, architecture, "merge").nll <= main(measured, architecture, "drop").nll + 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_similarity_matters(measured: Measured, architecture: str) -> None:
    assert main(measured, architecture, "random_merge").nll >= main(measured, architecture, "merge").nll + 0.2


def test_divided_attention_needs_one_matching_for_all_frames(measured: Measured) -> None:
    tube, frame = (main(measured, "timesformer", name).top_1.value for name in ("merge", "frame"))
    assert tube >= frame + 0.10
