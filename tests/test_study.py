"""The study of settings: a tiny run of it, and the rules by which its page draws conclusions."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification

import hf_video_tome  # noqa: F401  (registers)
from hf_video_tome.checkpoints import checkpoint_path
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
ARCHITECTURES = ["videomae", "vivit", "timesformer"]


@pytest.fixture(scope="module")
def study() -> ModuleType:
    """The script as a module."""
    return load_script("study_moving_digits")


def subject(study: ModuleType, architecture: str) -> Any:
    return study.Subject(architecture, AutoConfig.from_pretrained(checkpoint_path(f"{architecture}-moving-digits")))


@pytest.fixture(scope="module")
def run(study: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """A tiny run: its page, its scratch folder and its arguments."""
    folder = tmp_path_factory.mktemp("study")
    threads = torch.get_num_threads()
    arguments = ["--grid", "main", "--clips", "6", "--harder-clips", "3", "--batch-size", "3"]
    arguments += ["--architectures", "videomae", "timesformer", "--variants", "standard", "contrast"]
    arguments += ["--output", str(folder / "results"), "--scratch", str(folder / "scratch")]
    try:
        study.main(arguments)
    finally:
        torch.set_num_threads(threads)
    return folder / "results.md", folder / "scratch", arguments


# --- settings
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_is_run_twice(study: ModuleType, architecture: str) -> None:
    chosen = subject(study, architecture)
    for grid in (chosen.full_grid(), chosen.main_grid()):
        assert len(set(grid)) == len(grid)
        assert grid[0] == chosen.unmerged
        for setting in grid:
            if setting.mode in study.DROPPING_MODES:
                assert setting.proportional == chosen.default.proportional
                assert setting.pooling == "weighted"
        assert {setting.pooling for setting in grid} == set(chosen.poolings)
    assert set(chosen.main_grid()) <= set(chosen.full_grid())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compared_settings_leave_equally_many_tokens(study: ModuleType, architecture: str) -> None:
    chosen = subject(study, architecture)
    left = {4: 96, 5: 48}
    for setting in chosen.full_grid()[1:]:
        tokens = chosen.counts(setting)[-1] - chosen.config.token_layout.num_prefix_tokens
        assert chosen.comparable(setting) == (abs(tokens - left[setting.level]) <= 6)
        if setting.schedule == "constant":
            assert tokens == left[setting.level]
        if setting.level == study.LEVEL:
            assert chosen.comparable(setting)
    assert chosen.removed(4) == "67\u00a0%"
    assert chosen.removed(5) == "83\u00a0%"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_left_out_makes_no_difference(architecture: str) -> None:
    model = AutoModelForVideoClassification.from_pretrained(checkpoint_path(f"{architecture}-moving-digits")).eval()
    side, r = model.config.image_size, 5 if architecture == "timesformer" else 40
    clips = torch.randn(2, model.config.num_frames, 3, side, side, generator=torch.Generator().manual_seed(0))

    def logits(**settings: Any) -> torch.Tensor:
        model.set_token_merging(r=r, **settings)
        torch.manual_seed(0)
        with torch.inference_mode():
            return model(clips).logits

    for mode in ("drop", "random_drop"):
        first, *others = [
            logits(mode=mode, proportional_attention=proportional, pooling=pooling)
            for proportional in (False, True)
            for pooling in ("weighted", "mean")
        ]
        assert all(torch.equal(first, other) for other in others)
    plain, weighted = (logits(mode="merge", pooling=pooling) for pooling in ("mean", "weighted"))
    assert torch.equal(plain, weighted) == (architecture != "videomae")
    with_size, without = (logits(mode="merge", proportional_attention=chosen) for chosen in (True, False))
    assert not torch.equal(with_size, without)


# --- the page
def test_the_page_has_what_it_links_to(run: tuple[Path, Path, list[str]]) -> None:
    page, _, _ = run
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / target).exists() or (ROOT / "docs" / target).exists()
    assert "```python" not in text
    assert str(page.parent) not in text
    assert "nan" not in text
    assert all(len(line) <= 140 for line in text.splitlines() if not line.startswith(("|", "python ")))
    assert [line for line in text.splitlines() if line.startswith("## ")][:3] == [
        "## Conclusions",
        "## The same with numbers",
        "## What was run",
    ]


def test_all_results_are_in_the_table(study: ModuleType, run: tuple[Path, Path, list[str]]) -> None:
    page, scratch, _ = run
    with (page.parent / "results" / "grid.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    expected = [
        (architecture, variant, int(clips))
        for architecture in ("videomae", "timesformer")
        for variant, clips in (("standard", 6), ("contrast", 3))
        for _ in subject(study, architecture).main_grid()
    ]
    assert [(row["architecture"], row["variant"], int(row["clips"])) for row in rows] == expected
    # The evaluation itself agrees.
    results = json.loads((scratch / "videomae-standard-main-6" / "results.json").read_text())["settings"]
    for row, result in zip(rows, results, strict=False):
        assert float(row["accuracy"]) == pytest.approx(100 * result["tasks"]["label"]["top_1"]["value"], abs=0.01)
        assert float(row["nll"]) == pytest.approx(result["tasks"]["label"]["nll"], abs=1e-4)
        difference = result["top_1_difference"]
        if difference is not None:
            assert float(row["accuracy_change"]) == pytest.approx(100 * difference["value"], abs=0.01)
            assert float(row["accuracy_change_se"]) == pytest.approx(100 * difference["standard_error"], abs=0.01)
            assert float(row["agreement"]) == pytest.approx(100 * result["agreement"]["value"], abs=0.01)


def test_a_finished_study_only_writes_its_page_again(study: ModuleType, run: tuple[Path, Path, list[str]]) -> None:
    page, scratch, arguments = run
    files = [page, *sorted((page.parent / "results").iterdir())]
    assert [path.name for path in files] == ["results.md", "grid.csv", "modes.png", "variants.png"]
    before = [path.read_bytes() for path in files]
    predictions = scratch / "timesformer-standard-main-6" / "predictions.jsonl"
    known = predictions.read_bytes()
    study.main(arguments)
    assert [path.read_bytes() for path in files] == before
    assert predictions.read_bytes() == known


# --- conclusions
def outcome(study: ModuleType, shift: float, architecture: str = "videomae", variant: str = "standard") -> Any:
    """Made-up results in which the mode `drop` has an NLL that is higher than that of all others by `shift`."""
    chosen = subject(study, architecture)
    settings = chosen.full_grid() if variant == "standard" else chosen.main_grid()
    rng = np.random.default_rng(0)
    clips, number = rng.random(100), len(settings)
    noise = 0.02 * rng.standard_normal((number, 100))
    nll = clips + noise - noise.mean(axis=1, keepdims=True)
    nll += np.array([shift * (setting.mode == "drop") for setting in settings])[:, None]
    scores = {name: np.broadcast_to(100.0 * (clips < 0.5), (number, 100)) for name in ("action", "verb", "noun")}
    return study.Outcome(chosen, variant, settings, {**scores, "nll": nll}, np.zeros((number, 100), dtype=int))


@pytest.mark.parametrize(("shift", "verdict"), [(0.1, "worse"), (-0.1, "better"), (0.0, "no difference beyond noise")])
def test_conclusions_follow_from_the_numbers(study: ModuleType, shift: float, verdict: str) -> None:
    outcomes = {("videomae", variant): outcome(study, shift, variant=variant) for variant in ("standard", "noise")}
    made, ledger = study.Study(outcomes, "command"), study.Ledger()
    study.render(made, ledger, "results")
    ledger.set_bound()
    comparisons = len(ledger.made)
    text = study.render(made, ledger, "results")
    assert len(ledger.made) == comparisons
    assert study.render(made, ledger, "results") == text
    assert f"There are {comparisons} comparisons on this page." in " ".join(text.split())
    short = text.split("## The same")[0]
    sentence = next(line for line in " ".join(short.split()).split("- **") if "mode `drop`, not `merge` (V" in line)
    assert sentence.lower().startswith(verdict)
    harder = " ".join(short.split()).split("**On the harder variants**")[1]
    assert ("mode `drop`, not `merge`" in harder) == bool(shift)
    assert f"{verdict} on 1 (VideoMAE on noise) of 1" in harder or not shift


def test_few_standard_errors_are_only_a_hint(study: ModuleType) -> None:
    ledger = study.Ledger()
    ledger.bound = 3.5
    better, hint, none, worse = (study.Comparison(value, 1.0, nll=False) for value in (4.0, 2.5, 1.0, -2.5))
    lower_nll = study.Comparison(-4.0, 1.0, nll=True)
    assert ledger.verdict([better, none]) == "better"
    assert ledger.verdict([hint]) == "perhaps better"
    assert ledger.verdict([none]) == "no difference beyond noise"
    assert ledger.verdict([none, worse]) == "perhaps worse"
    assert ledger.verdict([better, worse]) == "mixed"
    assert ledger.verdict([lower_nll]) == "better"
    assert [ledger.cell(c)[0] for c in (better, hint, none)] == ["*", "*", "+"]
    assert ledger.cell(better).startswith("**")
    assert not ledger.cell(hint).startswith("**")
    assert ledger.cell(study.Comparison(0.0, 0.0, nll=True)) == "0.000\u00a0±\u00a00.000"


def test_differences_are_paired_and_averaged_clip_by_clip(study: ModuleType) -> None:
    made = outcome(study, 0.1)
    factor = next(factor for factor in study.FACTORS if factor.field == "pooling")
    changed, base = study.over_grid(made, factor)
    assert len(changed) == 2 * (3 * 3 + 5)  # kinds of attention; scopes x schedules at 83 %, what fits at 67 %
    assert all(study.replace(one, pooling="weighted") == other for one, other in zip(changed, base, strict=True))
    comparison = study.Ledger().compare(made, "nll", changed, base)
    index = made.index
    per_clip = np.mean(
        [made.scores["nll"][index[a]] - made.scores["nll"][index[b]] for a, b in zip(changed, base, strict=True)], 0
    )
    assert comparison.value == pytest.approx(per_clip.mean())
    assert comparison.error == pytest.approx(per_clip.std(ddof=1) / 10)
