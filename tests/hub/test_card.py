"""Model cards say what was measured of this very model, and nothing else."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForVideoClassification

from hf_video_tome.benchmark import BenchmarkResults, MeasuredVariant, Variant
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.data import ClipSampling, ClipTransform
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.evaluation import evaluate
from hf_video_tome.hub import (
    BaseCheckpoint,
    card_data,
    model_card,
    read_base_checkpoint,
    read_evaluation,
    save_checkpoint,
)
from hf_video_tome.hub.card import PLACEHOLDER
from tests.scripts import load_script

NAME = "videomae-moving-digits"


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), token_merging_r=38).eval()


@pytest.fixture(scope="module")
def evaluation(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a real, short evaluation."""
    folder = tmp_path_factory.mktemp("evaluation")
    rows = [
        {"video": str(clip.path), "label": clip.label.action} for clip in write_clips(folder, "test", range(0, 60, 10))
    ]
    evaluate(
        model,
        rows,
        ClipTransform.from_pretrained(checkpoint_path(NAME)),
        ClipSampling(16),
        folder / "results",
        settings=[{"r": 0}, {}, {"r": 0.5, "mode": "random_drop"}],
        num_workers=0,
        identity={"model": NAME, "model_type": "videomae", "dataset": "moving-digits", "split": "test"},
    )
    return folder / "results"


@pytest.fixture
def benchmark() -> BenchmarkResults:
    """What `hf-video-tome benchmark` found of this model."""

    def entry(settings: dict[str, Any] | None, last: int, seconds: list[float]) -> MeasuredVariant:
        return MeasuredVariant(
            variant=Variant("float32", "sdpa", settings),
            batch_size=1,
            requested_per_layer=0,
            token_counts=[288, 250, 212, 174, 136, 98, last],
            macs={},
            mac_ratio=288 / last,
            seconds=seconds,
        )

    return BenchmarkResults(
        {"cpu": "Some CPU", "threads": 2, "torch": "2.x", "transformers": "5.x", "date": "2026-01-31"},
        [entry(None, 288, [0.021, 0.021, 0.021]), entry({"r": 38}, 60, [0.014, 0.014, 0.014])],
    )


def base() -> BaseCheckpoint:
    return read_base_checkpoint(checkpoint_path(NAME))


def test_metadata_is_what_the_hub_understands(model, evaluation):
    results = read_evaluation(evaluation)
    card = model_card(model, base(), evaluations=[results], repo_id="me/shared")
    again = ModelCard(str(card))  # parsed as the Hub does
    data = again.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "video-classification"
    assert data["library_name"] == "transformers"
    assert {"videomae", "token-merging", "moving-digits"} <= set(data["tags"])
    assert len(data["tags"]) == len(set(data["tags"]))
    assert "base_model" not in data
    top_1, top_5 = again.data.eval_results
    merged = results["settings"][1]["tasks"]["label"]
    assert (top_1.dataset_type, top_1.dataset_split) == ("moving-digits", "test")
    assert (top_1.metric_type, top_1.metric_value) == ("accuracy", round(merged["top_1"]["value"], 4))
    assert top_5.metric_value == round(merged["top_5"]["value"], 4)
    assert again.data.model_name == "shared"


def test_accuracy_table_holds_what_was_measured(model, evaluation):
    results = read_evaluation(evaluation)
    text = model_card(model, base(), evaluations=[results]).text
    for setting, name in zip(results["settings"], ("r = 0", "**as saved**", "r = 0.5, random_drop"), strict=True):
        line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
        top_1 = setting["tasks"]["label"]["top_1"]
        assert f"{100 * top_1['value']:.2f} ± {100 * top_1['standard_error']:.2f}" in line
        assert f"{setting['token_counts'][0]} → {setting['token_counts'][-1]}" in line
        if setting["agreement"]:
            assert f"{100 * setting['agreement']['value']:.2f}" in line
    assert "6 of 6 videos, 1 view each, float32 on cpu" in text


def test_settings_that_were_not_measured_have_no_accuracy_in_the_metadata(model, evaluation):
    other = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), token_merging_r=20)
    card = model_card(other, base(), evaluations=[read_evaluation(evaluation)])
    assert card.data.eval_results is None
    assert "as saved | 288 → 60" in card.text
    assert "**as saved**" not in card.text


def test_an_evaluation_of_other_weights_is_refused(model, evaluation):
    other = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), token_merging_r=38)
    with torch.no_grad():
        other.classifier.bias[0] += 1e-3
    with pytest.raises(ValueError, match=r"the evaluation of 'videomae-moving-digits' on 'moving-digits' is of other"):
        model_card(other, base(), evaluations=[read_evaluation(evaluation)])


def test_an_evaluation_with_other_names_of_the_outputs_is_refused(evaluation):
    other = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), token_merging_r=38)
    other.config.id2label[0] = "something else"
    with pytest.raises(ValueError, match="is of a model whose outputs have other names than those of this one"):
        model_card(other, base(), evaluations=[read_evaluation(evaluation)])


def test_the_dtype_of_the_model_does_not_matter_to_whose_evaluation_it_is(evaluation):
    half = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), dtype=torch.float16)
    model_card(half, base(), evaluations=[read_evaluation(evaluation)])  # the weights are stored in float16


def test_speed_comes_from_a_benchmark(model, benchmark, tmp_path):
    text = model_card(model, base(), benchmarks=[BenchmarkResults.load(benchmark.save(tmp_path))]).text
    assert "On Some CPU, 2 threads; torch 2.x, transformers 5.x, measured 2026-01-31" in text
    assert "| r = 38, sdpa, fp32 | 1 | 288 → 60 | 4.80x | 14.0 | 71.4 | 1.50x |" in text
    assert "| stock sdpa, fp32 | 1 | 288 → 288 | 1.00x | 21.0 | 47.6 |  |" in text
    assert "Medians of 3 rounds" in text
    assert "Not measured" in text  # accuracy


def test_a_benchmark_of_another_kind_of_model_is_refused(model, benchmark):
    for field, value, message in (
        ("model_type", "vivit", "the benchmark is of a vivit model, while this one is videomae"),
        ("config", {"hidden_size": 768, "num_labels": 400}, "hidden_size=768, while this one has 96"),
    ):
        other = replace(benchmark, conditions={**benchmark.conditions, field: value})
        with pytest.raises(ValueError, match=message):
            model_card(model, base(), benchmarks=[other])
    longer = replace(benchmark.measured[0], token_counts=[1568] * 7)
    with pytest.raises(ValueError, match="a model with 1568 tokens and 6 layers, while this one has 288 tokens and 6"):
        model_card(model, base(), benchmarks=[replace(benchmark, measured=[longer])])


def test_tables_count_all_tokens_of_a_clip_with_an_input_stage(evaluation, benchmark):
    settings = {"token_merging_r": 0, "token_merging_input": "random", "token_merging_input_keep": 0.5}
    model = AutoModelForVideoClassification.from_pretrained(checkpoint_path(NAME), **settings)
    results = read_evaluation(evaluation)
    for setting in results["settings"]:
        setting["token_counts"] = [144] * 7
    stage = replace(
        benchmark.measured[1],
        variant=Variant("float32", "sdpa", {"input": "random", "input_keep": 0.5}),
        token_counts=[144] * 7,
        num_tokens=288,
    )
    benchmark = replace(benchmark, measured=[benchmark.measured[0], stage])
    text = model_card(model, base(), evaluations=[results], benchmarks=[benchmark]).text
    assert "of 288 tokens 144 are left" in text
    assert text.count("| 288 → 144 |") == 3 + 1
    assert "| 144 →" not in text


def test_a_benchmark_of_which_nothing_fitted_in_memory_is_refused(model, benchmark):
    failed = [replace(entry, seconds=[], failure="out of memory") for entry in benchmark.measured]
    with pytest.raises(ValueError, match="the benchmark has no times"):
        model_card(model, base(), benchmarks=[replace(benchmark, measured=failed)])
    text = model_card(model, base(), benchmarks=[replace(benchmark, measured=[benchmark.measured[0], *failed])]).text
    assert "| r = 38, sdpa, fp32 | 1 | 288 → 60 | 4.80x | out of memory |  |  |" in text


def test_the_licence_and_the_data_of_the_checkpoint_stay_with_it(model, tmp_path):
    card = model_card(model, base())
    assert "## The card of the checkpoint\n\n### VideoMAE, Moving Digits" in card.text
    assert "CC BY 4.0" in card.text
    # and once more, from what was saved: nothing piles up
    save_checkpoint(model, tmp_path / "saved", card=card)
    again = model_card(model, read_base_checkpoint(tmp_path / "saved", name=NAME))
    assert again.text.partition("## The card")[2] == card.text.partition("## The card")[2]
    assert again.data.license == "apache-2.0"


def test_a_base_model_on_the_hub_is_named_and_its_licence_is_not_invented(model, tmp_path):
    card = model_card(model, BaseCheckpoint("base", "someone/base", {"license": "cc-by-nc-4.0"}))
    assert card.data.base_model == "someone/base"
    assert card.data.license == "cc-by-nc-4.0"
    assert "Its licence, `cc-by-nc-4.0`, applies." in card.text
    assert "license" not in model_card(model, BaseCheckpoint("base")).data.to_dict()
    # The lineage survives saving.
    save_checkpoint(model, tmp_path, card=card)
    assert read_base_checkpoint(tmp_path).repo_id == "someone/base"


@pytest.mark.parametrize("remote_code", [False, True])
def test_use_says_what_is_true(model, remote_code):
    text = model_card(model, base(), repo_id="me/shared", remote_code=remote_code).text
    assert 'from_pretrained("me/shared")' in text
    assert ("trust_remote_code=True" in text) is remote_code


def test_snippets_of_a_card_run(model, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    card = model_card(model, BaseCheckpoint("folder"), remote_code=True)
    save_checkpoint(model, tmp_path / PLACEHOLDER, processor=checkpoint_path(NAME), card=card, remote_code=True)
    namespace: dict[str, Any] = {"frames": [Image.new("RGB", (48, 48))] * 16}
    snippets = card.text.split("```python\n")[1:]
    for snippet in snippets:
        exec(snippet.partition("```")[0], namespace)
    assert len(snippets) == 2


def test_the_snippet_asks_a_head_with_two_tasks_for_each(model, tmp_path, monkeypatch, capsys):
    """All nouns are made likelier than any verb: one answer over all outputs would be a noun."""
    from PIL import Image

    names = [f"verb {index}" for index in range(20)] + [f"noun {index}" for index in range(100)]
    two = AutoModelForVideoClassification.from_pretrained(
        checkpoint_path(NAME), token_merging_r=38, id2label=dict(enumerate(names)), label2id=None
    ).eval()
    two.config.label_groups = {"verb": [0, 20], "noun": [20, 120]}
    with torch.no_grad():
        two.classifier.bias[20:] += 1000
    monkeypatch.chdir(tmp_path)
    card = model_card(two, BaseCheckpoint("folder"))
    save_checkpoint(two, tmp_path / PLACEHOLDER, processor=checkpoint_path(NAME), card=card)
    frames = torch.randint(256, (16, 3, 48, 48), dtype=torch.uint8)
    namespace: dict[str, Any] = {"frames": [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]}
    capsys.readouterr()
    exec(card.text.split("```python\n")[1].partition("```")[0], namespace)
    pixel_values = ClipTransform.from_pretrained(checkpoint_path(NAME))(frames)[None]
    with torch.no_grad():
        logits = two(pixel_values).logits[0]
    verb, noun = logits[:20].argmax().item(), logits[20:].argmax().item()
    assert logits[20:].min() > logits[:20].max()
    assert sorted(capsys.readouterr().out.splitlines()) == [f"noun noun {noun}", f"verb verb {verb}"]


@pytest.mark.parametrize("name", available())
def test_shipped_cards_have_the_metadata_that_the_training_script_writes(name):
    shipped = ModelCard.load(checkpoint_path(name) / "README.md")
    model_type = name.removesuffix("-moving-digits")
    written = card_data(
        model_type, license={"license": "apache-2.0"}, tags=["moving-digits"], metrics=["accuracy"]
    ).to_dict()
    assert shipped.data.to_dict() == written


def test_the_training_script_writes_the_shipped_card(model):
    script = load_script("train_moving_digits")
    args = Namespace(
        architecture="videomae",
        steps=7000,
        num_train_clips=12000,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.05,
        subset_share=0.62,
        warp=0.1,
        seed=0,
        threads=1,
        bf16=True,
        single_frame_baseline=False,
    )
    lines = (checkpoint_path(NAME) / "training_log.jsonl").read_text().splitlines()
    finished = json.loads(lines[-1])
    written = ModelCard(script.model_card(args, model, finished["test"], finished["training_seconds"]))
    shipped = ModelCard.load(checkpoint_path(NAME) / "README.md")
    assert written.text.split() == shipped.text.split()


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="is not the output folder of a finished evaluation"):
        read_evaluation(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="does not hold the results of hf-video-tome evaluate"):
        read_evaluation(tmp_path)
    (tmp_path / "results.json").write_text("[1")
    with pytest.raises(ValueError, match=r"results\.json"):
        read_evaluation(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n# x\n")
    with pytest.raises(ValueError, match=r"README\.md"):
        read_base_checkpoint(tmp_path)
