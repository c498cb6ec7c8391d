"""What only shows in a process where no model of this package was ever built."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS

CODE = """
import json, os, sys
import torch
import hf_video_tome
from hf_video_tome.models import ARCHITECTURES

configs, shape = json.loads(sys.argv[1])


def apply(architecture, fields):
    config = architecture.stock_config_class(**fields)
    config._attn_implementation = "eager"
    model = hf_video_tome.apply_token_merging(architecture.stock_head_class(config).eval(), r=2)
    return model, hf_video_tome.token_counts(model)


def remove(architecture, fields):
    config = architecture.config_class(**fields)
    config._attn_implementation = "eager"
    return hf_video_tome.remove_token_merging(architecture.head_class(config).eval()), None


for way in (apply, remove):
    for model_type, fields in configs.items():
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            continue
        model, expected = way(ARCHITECTURES[model_type], fields)
        with torch.no_grad():
            outputs = model(torch.randn(shape), output_hidden_states=True, output_attentions=True)
        # Tokens of a clip: divided models may have frames or places in the first dimension.
        counts = [s.numel() // (s.shape[-1] * shape[0]) for s in outputs.hidden_states or ()]
        print(json.dumps([way.__name__, model_type, expected, counts, len(outputs.attentions or ())]), flush=True)
        os._exit(0)
"""


@pytest.fixture(scope="module")
def answers() -> dict[tuple[str, str], list[Any]]:
    """Of processes that have imported the package and built nothing, one for each question."""
    arguments = json.dumps([TINY_CONFIGS, PIXEL_SHAPE])
    process = subprocess.run([sys.executable, "-c", CODE, arguments], capture_output=True, text=True, check=True)
    return {(way, name): answer for way, name, *answer in map(json.loads, process.stdout.splitlines())}


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_apply_before_anything_else_records_hidden_states_and_attentions(answers, model_type):
    expected, counts, attentions = answers["apply", model_type]
    # Layers that do not merge may follow those that do.
    assert counts == expected + expected[-1:] * (len(counts) - len(expected))
    assert attentions == len(counts) - 1 >= len(expected) - 1


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_a_model_built_to_merge_records_them_after_remove_too(answers, model_type):
    """Though transformers prepares a stock model when one is built, and none was."""
    _, counts, attentions = answers["remove", model_type]
    assert len(counts) - 1 == attentions >= 3
