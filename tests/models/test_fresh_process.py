"""What only shows in a process where no model of this package was ever built."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS

CODE = """
import json, sys
import torch
import hf_video_tome
from hf_video_tome.models import ARCHITECTURES

configs, shape = json.loads(sys.argv[1])
answers = {}
for model_type, fields in configs.items():
    architecture = ARCHITECTURES[model_type]
    config = architecture.stock_config_class(**fields)
    config._attn_implementation = "eager"
    model = hf_video_tome.apply_token_merging(architecture.stock_head_class(config).eval(), r=2)
    answers[model_type] = {"expected": hf_video_tome.token_counts(model)}
    with torch.no_grad():
        outputs = model(torch.randn(shape), output_hidden_states=True, output_attentions=True)
    # Tokens of a clip: divided models may have frames or places in the first dimension.
    states = outputs.hidden_states or ()
    answers[model_type]["hidden_states"] = [s.numel() // (s.shape[-1] * shape[0]) for s in states]
    answers[model_type]["attentions"] = len(outputs.attentions or ())
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    arguments = json.dumps([TINY_CONFIGS, PIXEL_SHAPE])
    process = subprocess.run([sys.executable, "-c", CODE, arguments], capture_output=True, text=True, check=True)
    return json.loads(process.stdout)


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_apply_before_anything_else_records_hidden_states_and_attentions(answers, model_type):
    answer = answers[model_type]
    counts, expected = answer["hidden_states"], answer["expected"]
    # Layers that do not merge may follow those that do.
    assert counts == expected + expected[-1:] * (len(counts) - len(expected))
    assert answer["attentions"] == len(counts) - 1 >= len(expected) - 1
