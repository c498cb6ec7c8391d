"""Every method on real videos: evaluate, the pipeline, classify and visualize, from a stock checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import pipeline

import hf_video_tome
from hf_video_tome.cli import run
from hf_video_tome.merging import MODES
from tests.classified_videos import LABELS
from tests.models.methods import METHODS

# The checkpoint has one layer more than the models of the contracts.
SETTINGS = {
    name: {**method.settings, **({"thresholds": [0.5, 0.4, 0.1, 0.1]} if "thresholds" in method.settings else {})}
    for name, method in METHODS.items()
}


def test_one_evaluation_of_all(checkpoint: Path, readable: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps([{"r": 0}, *SETTINGS.values()]))
    arguments = ["evaluate", str(checkpoint), "--dataset", "class-folders", "--data-dir", str(readable)]
    arguments += [
        "--settings",
        str(settings),
        "--output",
        str(tmp_path / "results"),
        "--workers",
        "0",
        "--split",
        "test",
    ]
    assert run(arguments) == 0
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert len(results["settings"]) == 1 + len(SETTINGS)
    unmerged, *others = results["settings"]
    for name, result in zip(SETTINGS, others, strict=True):
        adaptive = MODES[SETTINGS[name].get("mode", "merge")].adaptive or "input_threshold" in SETTINGS[name]
        assert adaptive or result["token_counts"][-1] < unmerged["token_counts"][-1], name
        assert result["tasks"]["label"]["nll"] > 0, name
    assert len({json.dumps(result["tasks"]) for result in results["settings"]}) > len(SETTINGS) // 2


def test_the_pipeline_answers_with_each(checkpoint: Path, readable: Path) -> None:
    video = str(min(readable.glob("test/*/*.mp4")))
    processor = hf_video_tome.ClipProcessor.from_pretrained(checkpoint)
    pipe = pipeline("video-classification", str(checkpoint), video_processor=processor)
    usual = pipe.model.config.token_merging_settings()
    unmerged = pipe(video, top_k=LABELS)
    for name, settings in SETTINGS.items():
        pipe.model.set_token_merging(**{**usual, **settings})
        answers = pipe(video, top_k=LABELS)
        assert sum(answer["score"] for answer in answers) == pytest.approx(1, abs=1e-4), name
        assert answers != unmerged, name


@pytest.mark.parametrize(
    "options",
    [
        ["--input", "run_length", "--input-keep", "0.5", "--r", "0"],
        ["--mode", "cluster", "--r", "0.8", "--mode-options", "centres=kkz", "--segments", "2"],
        ["--mode", "absorb", "--r", "0.9", "--mode-options", '{"score": "norm"}', "--average", "norm_preserving"],
    ],
    ids=["input", "cluster", "absorb"],
)
def test_commands_take_their_options(
    options: list[str],
    checkpoint: Path,
    readable: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = str(min(readable.glob("test/*/*.mp4")))
    assert run(["classify", video, "--model", str(checkpoint), "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)
    picture = tmp_path / "tokens.png"
    assert run(["visualize", video, "--model", str(checkpoint), "--output", str(picture), *options]) == 0
    assert picture.stat().st_size > 1000
