"""Every architecture classifies a real file: through the pipeline of transformers and on the command line."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from transformers import pipeline

import hf_video_tome
from hf_video_tome.cli import run
from hf_video_tome.data import ClipTransform
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import NUM_LABELS, TINY_CONFIGS

R = 3


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4", frames, fps=10)


@pytest.fixture(params=sorted(ARCHITECTURES))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with random weights, and with a processor."""
    architecture, fields = ARCHITECTURES[request.param], TINY_CONFIGS[request.param]
    torch.manual_seed(0)
    architecture.stock_head_class(architecture.stock_config_class(**fields)).save_pretrained(tmp_path)
    if architecture.video_processor_only:
        transform = ClipTransform.from_config(architecture.config_class(**fields))
        hf_video_tome.ClipProcessor.from_transform(transform).save_pretrained(tmp_path)
    else:
        size = {"height": 32, "width": 32}
        transformers.VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(tmp_path)
    return tmp_path


def test_the_pipeline_classifies_a_file(checkpoint: Path, video: Path) -> None:
    answers = []
    for r in (0, R):
        classify = pipeline("video-classification", str(checkpoint), model_kwargs={"token_merging_r": r})
        assert classify.model.config.token_merging_r == r
        answers.append(classify(str(video), top_k=NUM_LABELS))
    for answer in answers:
        assert sum(entry["score"] for entry in answer) == pytest.approx(1, abs=1e-4)
        assert len({entry["label"] for entry in answer}) == NUM_LABELS
    assert answers[0] != answers[1]


def test_the_command_line_classifies_a_file(checkpoint: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["classify", str(video), "--model", str(checkpoint), "--r", str(R), "--top-k", "2", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["token_merging"]["r"] == R
    assert content["token_counts"] == sorted(content["token_counts"], reverse=True)
    assert content["token_counts"][-1] < content["token_counts"][0]
    (result,) = content["results"]
    assert len(result["top"]) == 2


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_forward_says_of_its_keywords_what_that_of_the_stock_model_says(model_type: str) -> None:
    """transformers reads there what a model can be asked for."""
    architecture = ARCHITECTURES[model_type]
    for stock, ours in (
        (architecture.stock_model_class, architecture.model_class),
        (architecture.stock_head_class, architecture.head_class),
    ):
        keywords = [inspect.signature(one.forward).parameters["kwargs"].annotation for one in (stock, ours)]
        asked = [getattr(getattr(one, "__args__", [None])[0], "__annotations__", {}).keys() for one in keywords]
        assert asked[0] <= asked[1]
        assert "output_attentions" in {*asked[1], *inspect.signature(ours.forward).parameters}
