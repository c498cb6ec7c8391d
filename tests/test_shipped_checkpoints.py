"""What merging does to the accuracy of the shipped checkpoint, on real video files of the test split.

The margins are wide: with 360 clips the standard error of an accuracy is about 1.5 points.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForVideoClassification

import hf_video_tome  # noqa: F401  (registers)
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data.decoding import read_frames
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.data.transforms import ClipTransform

NUM_CLIPS = 360
R = 38  # 79 % of the tokens are gone after the last layer


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[float, float]]:
    """(accuracy, negative log-likelihood) of the unmerged model and of some modes at r = 38."""
    folder = checkpoint_path("videomae-moving-digits")
    model = AutoModelForVideoClassification.from_pretrained(folder, token_merging_r=R).eval()
    transform = ClipTransform.from_pretrained(str(folder))
    written = write_clips(tmp_path_factory.mktemp("clips"), "test", range(NUM_CLIPS))
    clips = torch.stack([transform(read_frames(clip.path, range(16))) for clip in written])
    labels = torch.tensor([clip.label.action for clip in written])
    torch.manual_seed(0)
    results = {}
    for name, settings in {
        "unmerged": {"r": 0},
        "merge": {"r": R, "mode": "merge"},
        "drop": {"r": R, "mode": "drop"},
        "random_merge": {"r": R, "mode": "random_merge"},
    }.items():
        model.set_token_merging(**settings)
        with torch.inference_mode():
            logits = torch.cat([model(batch).logits for batch in clips.split(40)])
        accuracy = (logits.argmax(-1) == labels).double().mean().item()
        results[name] = (accuracy, F.cross_entropy(logits, labels).item())
    return results


def test_the_checkpoint_is_trained(measured):
    assert measured["unmerged"][0] >= 0.80


def test_merging_79_percent_of_the_tokens_costs_less_than_3_points(measured):
    assert measured["merge"][0] >= measured["unmerged"][0] - 0.03


def test_merging_is_no_worse_than_dropping(measured):
    assert measured["merge"][1] <= measured["drop"][1] + 0.05


def test_similarity_matters(measured):
    assert measured["random_merge"][1] >= measured["merge"][1] + 0.2
