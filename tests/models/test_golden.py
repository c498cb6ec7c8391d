"""Agreement with the numbers of the paper's public code, on checkpoints in the layout of the Hub's older ones.

See golden/README.md.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForVideoClassification

import hf_video_tome

GOLDEN = Path(__file__).parent.parent / "golden"
HEADS = {
    "videomae": "VideoMAEForVideoClassification",
    "vivit": "VivitForVideoClassification",
    "timesformer": "TimesformerForVideoClassification",
}
CASES = [
    pytest.param(architecture, index, id=f"{architecture}-{index}-r={case['r']}-{case.get('mode', 'unmerged')}")
    for architecture in HEADS
    for index, case in enumerate(json.loads((GOLDEN / architecture / "cases.json").read_text()))
]
AS_WRITTEN_IN_THE_PAPER = {"videomae": "clip", "vivit": "clip", "timesformer": "frame"}


@functools.cache
def load_case(architecture: str, index: int) -> tuple[dict[str, Any], torch.Tensor, dict[str, torch.Tensor]]:
    """The settings of a case, its input, and what is expected by name."""
    case = json.loads((GOLDEN / architecture / "cases.json").read_text())[index]
    with np.load(GOLDEN / architecture / "cases.npz") as arrays:
        pixel_values = torch.from_numpy(arrays["pixel_values"]).double()
        prefix = f"{index}."
        expected = {
            name.removeprefix(prefix): torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith(prefix)
        }
    r = case["r"]
    r, schedule = r if isinstance(r, list) and len(r) == 2 else (r, "constant")
    settings = {
        "r": r,
        "schedule": schedule,
        "mode": case.get("mode", "merge"),
        "threshold": case.get("threshold"),
        "proportional_attention": case.get("prop_attn", False),
        "head_aggregation": case.get("head_aggregation", "mean"),
        "pooling": "mean",
        "scope": AS_WRITTEN_IN_THE_PAPER[architecture],
    }
    return settings, pixel_values, expected


@functools.cache
def load_model(architecture: str, implementation: str) -> torch.nn.Module:
    model = AutoModelForVideoClassification.from_pretrained(
        GOLDEN / architecture, dtype=torch.float64, attn_implementation=implementation
    )
    return model.eval()


def in_frames(trace: hf_video_tome.TokenMergingTrace, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources and sizes of each frame without CLS, (B * T, P), from those of the patch-major sequence."""
    sources, sizes = (x[:, 1:].unflatten(1, (-1, num_frames)).transpose(1, 2) for x in (trace.sources, trace.sizes))
    frame = torch.arange(num_frames)[:, None]
    alive = sources >= 0
    assert ((sources - 1) % num_frames == frame)[alive].all(), "a token left its frame"
    return torch.where(alive, (sources - 1) // num_frames, -1).flatten(0, 1), sizes.flatten(0, 1)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(("architecture", "index"), CASES)
def test_logits_sizes_and_groups(architecture, index, implementation):
    settings, pixel_values, expected = load_case(architecture, index)
    model = load_model(architecture, implementation)
    model.set_token_merging(**settings)
    with torch.no_grad():
        outputs = model(pixel_values, output_token_merging=True)
    torch.testing.assert_close(outputs.logits, expected["logits"], atol=1e-5, rtol=0)
    if settings["r"] == 0:
        return
    sources, sizes = outputs.token_merging.sources, outputs.token_merging.sizes
    if architecture == "timesformer":
        sources, sizes = in_frames(outputs.token_merging, model.config.num_frames)
    alive = expected["alive"]
    assert torch.equal(sources >= 0, alive)
    assert torch.equal(sources[alive], expected["groups"][alive])
    assert torch.equal(sizes.double(), expected["sizes"].double())


@pytest.mark.parametrize("architecture", HEADS)
def test_some_case_loses_tokens_and_some_case_loses_none(architecture):
    """The expectations above are worth something: they hold dropped tokens and merged ones."""
    alive = [load_case(a, i)[2].get("alive") for a, i in (case.values for case in CASES) if a == architecture]
    assert any(mask is not None and not mask.all() for mask in alive)
    assert any(mask is not None and mask.all() for mask in alive)


class TestOldLayoutsLoadCompletely:
    @staticmethod
    def check(architecture: str, model: torch.nn.Module) -> None:
        settings, pixel_values, expected = load_case(architecture, 1)
        hf_video_tome.set_token_merging(model, **settings)
        with torch.no_grad():
            logits = model.eval()(pixel_values).logits
        torch.testing.assert_close(logits, expected["logits"], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("architecture", HEADS)
    def test_through_the_auto_class(self, architecture):
        self.load_and_check(architecture, AutoModelForVideoClassification)

    @pytest.mark.parametrize("architecture", HEADS)
    def test_through_the_class_itself(self, architecture):
        self.load_and_check(architecture, getattr(hf_video_tome, HEADS[architecture]))

    @pytest.mark.parametrize("architecture", HEADS)
    def test_through_the_stock_class_and_apply(self, architecture):
        stock_class = getattr(transformers, HEADS[architecture])
        self.load_and_check(architecture, stock_class, hf_video_tome.apply_token_merging)

    @pytest.mark.parametrize("architecture", HEADS)
    def test_through_auto_model_without_the_head(self, architecture):
        base, info = transformers.AutoModel.from_pretrained(GOLDEN / architecture, output_loading_info=True)
        assert type(base).__module__.startswith("hf_video_tome.")
        # The classifier is left over by intention; of the encoder nothing may be missing.
        assert not info["mismatched_keys"]
        assert {key for key in info["missing_keys"] if "pooler" not in key} == set()
        assert all(key.startswith(("classifier.", "fc_norm.")) for key in info["unexpected_keys"])
        head = load_model(architecture, "sdpa")
        encoder = getattr(head, head.base_model_prefix).state_dict()
        for name, parameter in base.state_dict().items():
            if "pooler" not in name:
                torch.testing.assert_close(parameter.double(), encoder[name], msg=name)

    def load_and_check(self, architecture, model_class, convert=lambda model: model):
        model, info = model_class.from_pretrained(GOLDEN / architecture, dtype=torch.float64, output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
            assert not info.get(kind), f"{kind}: {info[kind]}"
        self.check(architecture, convert(model))
