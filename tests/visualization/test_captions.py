from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import hf_video_tome
from hf_video_tome.describe import describe_settings
from hf_video_tome.visualization.captions import describe_prediction, load_font, wrap_text


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 12))
def test_lines_are_never_too_wide_and_nothing_is_lost(text: str, width: int) -> None:
    lines = wrap_text(text, width, len)
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_long_names_are_broken_where_one_would_break_them() -> None:
    name = "videomae-base-finetuned-on-my-videos/checkpoint-12000"
    lines = wrap_text(f"{name}: merge", 30, len)
    assert lines == ["videomae-base-finetuned-on-my-", "videos/checkpoint-12000: merge"]
    assert wrap_text("ab-" + "c" * 20, 10, len) == ["ab-ccccccc", "cccccccccc", "ccc"]  # not after two letters


def test_the_font_is_scalable() -> None:
    assert load_font(32).getlength("tokens") > 1.5 * load_font(16).getlength("tokens")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "off (r = 0): the stock model"),
        ({"r": [0, 0]}, "off (r = 0): the stock model"),
        ({"r": 9}, "merge, r = 9 per layer, constant schedule, scope clip"),
        ({"r": 9, "scope": "time", "schedule": 0.5}, "merge, r = 9 per layer and place, 0.5 schedule, scope time"),
        (
            {"r": 0.1, "scope": "tube"},
            "merge, r = 0.1 of the tokens per layer and frame, constant schedule, scope tube",
        ),
        (
            {"r": [8, 4], "mode": "hybrid", "threshold": 0.8},
            "hybrid (threshold 0.8), r = 8,4 by layer, scope clip",
        ),
        ({"r": [3, 2], "scope": "tube"}, "merge, r = 3,2 by layer, per frame, scope tube"),
    ],
)
def test_settings_in_words(settings: dict[str, object], words: str) -> None:
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    config = hf_video_tome.VideoMAEConfig(**fields)
    assert describe_settings(config.token_merging_settings(resolved=True)) == words


def test_a_head_with_two_tasks_makes_two_predictions() -> None:
    config = hf_video_tome.VideoMAEConfig(
        num_labels=5,
        label_groups={"verb": [0, 2], "noun": [2, 5]},
        id2label={0: "cut", 1: "wash", 2: "knife", 3: "pan", 4: "hob"},
    )
    logits = torch.tensor([0.0, 5.0, 1.0, 1.0, 9.0])
    assert describe_prediction(logits, config) == "verb 'wash' (99.3 %), noun 'hob' (99.9 %)"
