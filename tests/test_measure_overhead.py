"""What choosing tokens costs: a tiny run, and the page from its file."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

import hf_video_tome
from hf_video_tome import VideoMAEConfig
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
TINY = {"image_size": 32, "num_frames": 8, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def overhead() -> ModuleType:
    return load_script("measure_overhead")


def test_controls_remove_as_many_tokens_in_the_same_layers(overhead: ModuleType, tmp_path: Path) -> None:
    config, output = json.dumps({**TINY, "intermediate_size": 32, "patch_size": 4}), tmp_path / "a.json"
    arguments = ["measure", "videomae", "--config", config, "--rounds", "1", "--threads", "1", "--factor", "1.5"]
    overhead.main([*arguments, "--output", str(output)])
    content = json.loads(output.read_text())
    assert [method["name"] for method in content["methods"]] == list(overhead.NAMES)
    assert all(1.3 < method["factor"] < 1.7 and min(method["against_control"]) > 0 for method in content["methods"])
    settings = {"mode": "cluster", "r": 40, "proportional_attention": True}
    control = overhead.control_of(VideoMAEConfig(**json.loads(config)), settings)
    counts = []
    for changes in (settings, control, {"r": 0}):
        tiny = VideoMAEConfig(**json.loads(config))
        tiny.update_token_merging(**changes)
        counts.append(hf_video_tome.token_counts(tiny))
    assert counts[0] == counts[1] != counts[2]
    page = tmp_path / "page.md"
    overhead.main(["page", str(output), "--output", str(page)])
    assert "| videomae, float32, batch 1 | cluster |" in page.read_text()


def test_the_page_says_what_its_data_files_say(overhead: ModuleType, tmp_path: Path) -> None:
    page, copy = ROOT / "docs" / "methods-speed.md", tmp_path / "page.md"
    copy.write_text(page.read_text())
    overhead.write_page(sorted((ROOT / "docs" / "methods-speed").glob("*.json")), copy, overhead.render)
    assert copy.read_text() == page.read_text(), "regenerate it"
