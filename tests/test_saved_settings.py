"""Saved configs mean what they meant when they were saved, whatever the defaults have become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoConfig

from hf_video_tome.configuration import setting
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

# As version 0 saved them: only what differed from its defaults.
SAVED_BY_0 = [
    {"token_merging_r": 5},
    {"token_merging_r": 0.1, "token_merging_mode": "drop"},
    {"token_merging_r": [4, 2], "token_merging_pooling": "mean"},
    {"token_merging_r": 3, "token_merging_schedule": -0.5, "token_merging_proportional_attention": True},
    {"token_merging_r": 3, "token_merging_scope": "frame"},
]
ARCHITECTURES_OF_0 = ("videomae", "vivit", "timesformer", "motionformer", "vjepa2", "videoprism_vision_model")


def later_class(model_type: str) -> Any:
    """The config of a version to come, of which every default is another one."""
    today = ARCHITECTURES[model_type].config_class
    namespace: dict[str, Any] = {
        "__annotations__": {"token_merging_schedule": Any, "token_merging_pooling": str},
        "__module__": __name__,
        "token_merging_schedule": setting("decreasing"),
        "token_merging_pooling": setting("mean"),
        "default_token_merging_scope": "clip" if today.default_token_merging_scope == "frame" else "frame",
        "default_proportional_attention": not today.default_proportional_attention,
    }
    if model_type == "vjepa2":
        namespace["__annotations__"]["token_merging_position"] = str
        namespace["token_merging_position"] = setting("destination")
    return type(today.__name__, (today,), namespace)


def meaning(config: Any) -> Any:
    return config.token_merging_plan()


@pytest.mark.parametrize("model_type", ARCHITECTURES_OF_0)
class TestFilesOfVersion0:
    @pytest.mark.parametrize("fields", SAVED_BY_0, ids=str)
    def test_keep_their_meaning_when_all_defaults_change(self, model_type, fields, tmp_path):
        today = ARCHITECTURES[model_type].config_class(**TINY_CONFIGS[model_type], **fields)
        contents = {**ARCHITECTURES[model_type].stock_config_class(**TINY_CONFIGS[model_type]).to_dict(), **fields}
        (tmp_path / "config.json").write_text(json.dumps(contents))
        later = later_class(model_type)
        stock = ARCHITECTURES[model_type].stock_config_class.from_pretrained(tmp_path)
        for config in (
            later.from_pretrained(tmp_path),
            later.from_json_file(tmp_path / "config.json"),
            later.from_stock(stock),
        ):
            assert meaning(config) == meaning(today)

    def test_that_merge_nothing_go_by_the_new_defaults_once_they_merge(self, model_type, tmp_path):
        ARCHITECTURES[model_type].stock_config_class(**TINY_CONFIGS[model_type]).save_pretrained(tmp_path)
        later = later_class(model_type)
        config = later.from_pretrained(tmp_path, token_merging_r=4)
        assert meaning(config) == meaning(later(**TINY_CONFIGS[model_type], token_merging_r=4))
        today = ARCHITECTURES[model_type].config_class(**TINY_CONFIGS[model_type], token_merging_r=4)
        assert meaning(config) != meaning(today)

    def test_are_completed_before_what_the_call_changes(self, model_type, tmp_path):
        contents = ARCHITECTURES[model_type].stock_config_class(**TINY_CONFIGS[model_type]).to_dict()
        (tmp_path / "config.json").write_text(json.dumps({**contents, "token_merging_r": 5}))
        config = later_class(model_type).from_pretrained(tmp_path, token_merging_r=3, token_merging_pooling="mean")
        today = ARCHITECTURES[model_type].config_class(
            **TINY_CONFIGS[model_type], token_merging_r=3, token_merging_pooling="mean"
        )
        assert meaning(config) == meaning(today)


class TestFilesOfThisVersion:
    @pytest.mark.parametrize("model_type", TINY_CONFIGS)
    @pytest.mark.parametrize("fields", SAVED_BY_0, ids=str)
    def test_say_all_that_a_default_may_change(self, model_type, fields, tmp_path):
        today = ARCHITECTURES[model_type].config_class(**TINY_CONFIGS[model_type], **fields)
        later = later_class(model_type)
        today.save_pretrained(tmp_path)
        for config in (
            later.from_pretrained(tmp_path),
            later.from_dict(today.to_dict()),
            later.from_dict(json.loads(today.to_json_string(use_diff=False))),
        ):
            assert meaning(config) == meaning(today)
        assert meaning(AutoConfig.from_pretrained(tmp_path)) == meaning(today)

    @pytest.mark.parametrize("model_type", TINY_CONFIGS)
    def test_say_nothing_while_nothing_merges(self, model_type):
        for fields in ({}, {"token_merging_r": [0, 0]}):
            config = ARCHITECTURES[model_type].config_class(**TINY_CONFIGS[model_type], **fields)
            saved = {name for name in config.to_diff_dict() if name.startswith("token_merging")}
            assert saved == set(fields)

    def test_are_read_by_plain_transformers(self, tmp_path):
        config = ARCHITECTURES["videomae"].config_class(**TINY_CONFIGS["videomae"], token_merging_r=4)
        config.save_pretrained(tmp_path)
        stock = ARCHITECTURES["videomae"].stock_config_class.from_pretrained(tmp_path)
        assert stock.token_merging_scope == "clip"
