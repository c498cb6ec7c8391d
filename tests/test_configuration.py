"""The token merging fields: what each of them takes, and that everything else is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pydoc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.loading import load_classifier
from hf_video_tome.merging import MODES, register_mode
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS

DEFAULTS: dict[str, Any] = {
    "r": 0,
    "schedule": "constant",
    "mode": "merge",
    "threshold": None,
    "head_aggregation": "mean",
    "proportional_attention": None,
    "pooling": "weighted",
    "scope": None,
    "input": None,
    "input_keep": None,
    "restore": False,
    "thresholds": None,
    "mode_options": None,
    "average": "mean",
    "segments": None,
    "input_threshold": None,
}

RESOLVED_WHEN_MERGING: dict[str, Any] = {
    "schedule": "constant",
    "proportional_attention": False,
    "pooling": "weighted",
    "scope": "clip",
}
"""What VideoMAE's config says in its file while tokens are merged, set or not."""

ACCEPTED: dict[str, list[Any]] = {
    "r": [0, 1, 150, 10**9, 0.01, 0.5, [], [0], [4, 2], [4, 2, 0], [0.5, 3]],
    "schedule": ["constant", "decreasing", "increasing", -1.0, -0.3, 0.0, 1.0],
    "mode": ["merge", "drop", "random_merge", "random_drop"],
    "threshold": [None, -1.0, 0.0, 0.8, 1.0],
    "head_aggregation": ["mean", "concat"],
    "proportional_attention": [None, True, False],
    "pooling": ["mean", "weighted"],
    "scope": [None, "clip", "frame", "tube", "time"],
    "input": [None, "random", "run_length", "temporal_difference"],
    "input_keep": [None, 0.5, 1.0, 16, 10**6],
    "restore": [True, False],
    "thresholds": [None, [0.5], [0.9, -1.0, 1.0]],
    "mode_options": [None],
    "average": ["mean", "norm_preserving", "owner"],
    "segments": [None, 1, 4],
    "input_threshold": [None, 0.0, 0.1, 3.5],
}

REFUSED: dict[str, list[Any]] = {
    "r": [-1, 0.0, -0.2, 1.0, 1.5, math.nan, math.inf, True, None, "8", [1, -1], [1, 1.5], [True], ["1"], {"r": 1}],
    "schedule": ["linear", "", 1.01, -2, math.nan, True, None, [0.5]],
    "mode": ["merging", "", "MERGE", None, 1, ["merge"]],
    "threshold": [1.01, -1.01, math.nan, math.inf, True, "0.8", [0.8]],
    "head_aggregation": ["max", "", None, 2],
    "proportional_attention": [0, 1, "true", "None", 0.5],
    "pooling": ["max", "cls", "", None, True],
    "scope": ["video", "", "CLIP", 3, True, ["clip"]],
    "input": ["RANDOM", "", True, 1],
    "input_keep": [0, 1, -3, 0.0, 1.5, math.nan, True, "0.5", [0.5]],
    "restore": [None, 0, 1, "true"],
    "thresholds": [0.5, [], [1.1], ["0.5"], [None], "0.5", [True]],
    "mode_options": [1, "a", ["a"], {1: 2}, {"a": math.nan}, {"a": {3}}],
    "average": ["median", None, 1],
    "segments": [0, -1, 0.5, "2", True, [2]],
    "input_threshold": [-0.1, math.nan, math.inf, "0.1", True, [0.1]],
}

# Something of what is allowed, which the message has to say
ALLOWED: dict[str, list[str]] = {
    "r": ["int >= 0", "(0, 1)", "list"],
    "schedule": ["constant", "decreasing", "increasing", "[-1, 1]"],
    "mode": ["merge", "drop", "hybrid", "random_merge", "random_drop"],
    "threshold": ["[-1, 1]", "None"],
    "head_aggregation": ["mean", "concat"],
    "proportional_attention": ["True", "False", "None"],
    "pooling": ["mean", "weighted"],
    "scope": ["clip", "frame", "tube", "time", "None"],
    "input": ["random", "None"],
    "input_keep": ["share in (0, 1.0]", "number of tokens >= 2", "None"],
    "restore": ["True", "False"],
    "thresholds": ["list", "[-1, 1]", "one per layer", "None"],
    "mode_options": ["dictionary", "JSON-safe", "None"],
    "average": ["mean", "norm_preserving", "owner"],
    "segments": ["int >= 1", "None"],
    "input_threshold": [">= 0", "normalised pixels", "None"],
}

ACCEPTED_CASES = [(name, value) for name, values in ACCEPTED.items() for value in values]
REFUSED_CASES = [(name, value) for name, values in REFUSED.items() for value in values]


def make_config(model_type: str = "videomae", **fields: Any):
    return ARCHITECTURES[model_type].config_class(
        **TINY_CONFIGS[model_type], **{f"token_merging_{name}": value for name, value in fields.items()}
    )


def make_model(model_type: str = "videomae", **fields: Any):
    torch.manual_seed(0)
    return ARCHITECTURES[model_type].head_class(make_config(model_type, **fields)).eval()


def fields_of(config: Any) -> dict[str, Any]:
    return {name: getattr(config, f"token_merging_{name}") for name in DEFAULTS}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per architecture, saved by stock transformers."""
    folders = {}
    for model_type, architecture in ARCHITECTURES.items():
        folders[model_type] = tmp_path_factory.mktemp(model_type)
        config = architecture.stock_config_class(**TINY_CONFIGS[model_type])
        architecture.stock_head_class(config).save_pretrained(folders[model_type])
    return folders


def assert_refusal(error: pytest.ExceptionInfo[ValueError], name: str, value: Any) -> None:
    message = str(error.value)
    assert f"token_merging_{name}" in message
    assert f"got {value!r}" in message
    for allowed in ALLOWED[name]:
        assert allowed in message


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_defaults(model_type):
    assert fields_of(make_config(model_type)) == DEFAULTS


def test_this_file_knows_all_fields():
    fields = {name for name in make_config().to_dict() if name.startswith("token_merging_")}
    assert fields == {f"token_merging_{name}" for name in DEFAULTS}
    assert ACCEPTED.keys() == REFUSED.keys() == ALLOWED.keys() == DEFAULTS.keys()


class TestAcceptedValues:
    @pytest.mark.parametrize(("name", "value"), ACCEPTED_CASES)
    def test_in_the_constructor_and_when_set(self, name, value):
        config = make_config(**{name: value})
        assert getattr(config, f"token_merging_{name}") == value
        config = make_config()
        setattr(config, f"token_merging_{name}", value)
        assert getattr(config, f"token_merging_{name}") == value
        config = make_config()
        config.update_token_merging(**{name: value})
        assert fields_of(config) == {**DEFAULTS, name: value}

    @pytest.mark.parametrize(("name", "value"), ACCEPTED_CASES)
    def test_survive_json(self, name, value, tmp_path):
        config = make_config(**{name: value})
        config.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        changed = {
            key.removeprefix("token_merging_"): v for key, v in saved.items() if key.startswith("token_merging_")
        }
        merging = (name == "r" and bool(np.any(value))) or (name == "input" and value is not None)
        resolved = {**RESOLVED_WHEN_MERGING, **({"input_keep": 2 / 3} if name == "input" else {})} if merging else {}
        assert changed == {**resolved, **({} if value == DEFAULTS[name] else {name: value})}
        for loaded in (
            type(config).from_pretrained(tmp_path),
            AutoConfig.from_pretrained(tmp_path),
            type(config).from_dict(json.loads(config.to_json_string())),
            type(config).from_dict(json.loads(config.to_json_string(use_diff=False))),
            type(config).from_dict(config.to_dict()),
        ):
            assert fields_of(loaded) == {**DEFAULTS, **resolved, name: value}

    def test_hybrid_with_its_threshold(self):
        config = make_config(mode="hybrid", threshold=0.8)
        assert (config.token_merging_mode, config.token_merging_threshold) == ("hybrid", 0.8)

    @pytest.mark.parametrize(
        ("name", "value", "stored"),
        [
            ("r", np.int64(8), 8),
            ("r", np.float32(0.25), 0.25),
            ("r", (4, 2), [4, 2]),
            ("r", [np.int32(3), 0], [3, 0]),
            ("r", range(3), [0, 1, 2]),
            ("schedule", np.float64(0.5), 0.5),
            ("schedule", -1, -1.0),
            ("threshold", np.float32(0.5), 0.5),
            ("threshold", 1, 1.0),
        ],
        ids=str,
    )
    def test_numbers_and_sequences_of_other_kinds_become_plain_ones(self, name, value, stored):
        config = make_config(**{name: value})
        kept = getattr(config, f"token_merging_{name}")
        assert kept == stored
        assert type(kept) is type(stored)
        assert not isinstance(kept, list) or all(type(item) is int for item in kept)
        json.dumps(config.to_dict())

    def test_a_list_is_copied(self):
        r = [4, 2]
        config = make_config(r=r)
        r.append(-1)
        assert config.token_merging_r == [4, 2]

    def test_a_registered_mode_is_a_value(self):
        with pytest.raises(ValueError, match="token_merging_mode"):
            make_config(mode="test_mode")
        register_mode("test_mode")(MODES["drop"].assign)
        model = make_model(mode="test_mode", r=4)
        pixel_values = torch.randn(PIXEL_SHAPE)
        with torch.no_grad():
            assert torch.equal(model(pixel_values).logits, make_model(mode="drop", r=4)(pixel_values).logits)


class TestRefusedValues:
    """Whichever way a value out of range comes in: the error has the field, the value and what is allowed."""

    @pytest.mark.parametrize(("name", "value"), REFUSED_CASES)
    def test_in_the_constructor(self, name, value):
        with pytest.raises(ValueError, match="token_merging") as error:
            make_config(**{name: value})
        assert_refusal(error, name, value)

    @pytest.mark.parametrize(("name", "value"), REFUSED_CASES)
    def test_when_set_on_the_config(self, name, value):
        config = make_config()
        with pytest.raises(ValueError, match="token_merging") as error:
            setattr(config, f"token_merging_{name}", value)
        assert_refusal(error, name, value)
        assert fields_of(config) == DEFAULTS

    @pytest.mark.parametrize(("name", "value"), REFUSED_CASES)
    def test_in_set_token_merging_which_then_changes_nothing(self, name, value):
        config = make_config(mode="drop", scope="frame")
        before = fields_of(config)
        others = {"pooling": "mean", "head_aggregation": "concat", "r": 4}
        with pytest.raises(ValueError, match="token_merging") as error:
            config.update_token_merging(**{**others, name: value})
        assert_refusal(error, name, value)
        assert fields_of(config) == before

    @pytest.mark.parametrize(
        ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values[:3]]
    )
    def test_in_from_pretrained(self, checkpoints, name, value):
        for model_class in (AutoModelForVideoClassification, hf_video_tome.VideoMAEForVideoClassification):
            with pytest.raises(ValueError, match="token_merging") as error:
                model_class.from_pretrained(checkpoints["videomae"], **{f"token_merging_{name}": value})
            assert_refusal(error, name, value)

    @pytest.mark.parametrize(("name", "value"), [("r", -1), ("mode", "nonsense"), ("schedule", 7), ("scope", "video")])
    def test_in_the_file(self, checkpoints, tmp_path, name, value):
        contents = json.loads((checkpoints["videomae"] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**contents, f"token_merging_{name}": value}))
        with pytest.raises(ValueError, match="token_merging") as error:
            AutoConfig.from_pretrained(tmp_path)
        assert_refusal(error, name, value)

    def test_a_field_in_the_file_that_there_is_not(self, checkpoints, tmp_path):
        contents = json.loads((checkpoints["videomae"] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**contents, "token_merging_rr": 3}))
        with pytest.raises(ValueError, match=r"^token_merging_rr is not a setting of videomae: use "):
            AutoConfig.from_pretrained(tmp_path)
        config = make_model().config
        with pytest.raises(ValueError, match=r"^token_merging_rr is not a setting of videomae: use "):
            config.token_merging_rr = 3

    @pytest.mark.parametrize(("name", "value"), [(name, values[0]) for name, values in REFUSED.items()])
    def test_in_the_functions_and_the_method(self, name, value):
        model = make_model()
        stock = ARCHITECTURES["videomae"].stock_head_class(
            model.config.to_stock(ARCHITECTURES["videomae"].stock_config_class)
        )
        for change in (
            model.set_token_merging,
            lambda **s: hf_video_tome.set_token_merging(model, **s),
            lambda **s: hf_video_tome.apply_token_merging(model, **s),
            lambda **s: hf_video_tome.apply_token_merging(stock, **s),
        ):
            with pytest.raises(ValueError, match="token_merging") as error:
                change(**{name: value})
            assert_refusal(error, name, value)
        assert fields_of(model.config) == DEFAULTS


# Values that are fine alone and wrong together, or with the architecture: settings, and what the message has to say
WRONG_TOGETHER = [
    pytest.param("videomae", {"r": [1, 2, 3, 4]}, ["token_merging_r", "3", "got 4"], id="list longer than layers"),
    pytest.param(
        "videomae",
        {"r": [1, 2], "schedule": "decreasing"},
        ["token_merging_r", "'decreasing'"],
        id="list and schedule",
    ),
    pytest.param("videomae", {"r": [1, 2], "schedule": 0.5}, ["token_merging_r", "0.5"], id="list and inflection"),
    pytest.param(
        "videomae", {"mode": "hybrid"}, ["token_merging_threshold", "'hybrid'", "[-1, 1]", "None"], id="no threshold"
    ),
    pytest.param(
        "timesformer",
        {"scope": "clip"},
        ["token_merging_scope", "'frame', 'tube', 'time'", "timesformer", "got 'clip'"],
        id="scope clip for TimeSformer",
    ),
    (
        "vivit",
        {"r": 2, "mode": "absorb", "mode_options": {"score": "attention"}, "scope": "frame"},
        [
            "token_merging_scope must be 'clip'",
            "token_merging_mode='absorb'",
            "it reads the attention between all tokens",
        ],
    ),
]


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
@pytest.mark.parametrize("number", [1025, 10**9, 10**400, -1], ids=["one more", "many", "more", "negative"])
def test_layers_without_end_are_refused_before_they_are_listed(model_type: str, number: int) -> None:
    config_class = ARCHITECTURES[model_type].config_class
    fields = [name for name in vars(config_class()) if name.endswith("_layers")]
    assert fields
    for name in fields:
        with pytest.raises(ValueError, match=rf"{name} must be an int from 0 to 1024, got "):
            config_class(**{name: number})


def test_long_values_are_not_printed() -> None:
    for name in ("token_merging_mode", "token_merging_pooling", "token_merging_scope"):
        with pytest.raises(ValueError, match=rf"{name} must be one of .*\(100002 characters\)"):
            hf_video_tome.VideoMAEConfig(**{name: "x" * 10**5})
    with pytest.raises(ValueError, match=r"token_merging_threshold must be a cosine similarity .*401 characters"):
        hf_video_tome.VideoMAEConfig(token_merging_threshold=10**400)


class TestValuesThatDoNotGoTogether:
    @pytest.mark.parametrize(("model_type", "settings", "message"), WRONG_TOGETHER)
    def test_in_the_constructor(self, model_type, settings, message):
        with pytest.raises(ValueError, match="token_merging") as error:
            make_config(model_type, **settings)
        assert all(part in str(error.value) for part in message)

    @pytest.mark.parametrize(("model_type", "settings", "message"), WRONG_TOGETHER)
    def test_in_set_token_merging_which_then_changes_nothing(self, model_type, settings, message):
        model = make_model(model_type, r=2)
        before = fields_of(model.config)
        with pytest.raises(ValueError, match="token_merging") as error:
            model.set_token_merging(**settings)
        assert all(part in str(error.value) for part in message)
        assert fields_of(model.config) == before

    @pytest.mark.parametrize(("model_type", "settings", "message"), WRONG_TOGETHER)
    def test_in_from_pretrained(self, checkpoints, model_type, settings, message):
        with pytest.raises(ValueError, match="token_merging") as error:
            AutoModelForVideoClassification.from_pretrained(
                checkpoints[model_type], **{f"token_merging_{name}": value for name, value in settings.items()}
            )
        assert all(part in str(error.value) for part in message)

    @pytest.mark.parametrize(("model_type", "settings", "message"), WRONG_TOGETHER)
    def test_set_on_the_config_one_by_one_they_are_refused_before_anything_runs(self, model_type, settings, message):
        model = make_model(model_type, r=2)

        @torch.no_grad()
        def set_and_run() -> None:
            for name, value in settings.items():
                setattr(model.config, f"token_merging_{name}", value)
            model(torch.zeros(PIXEL_SHAPE))

        with pytest.raises(ValueError, match="token_merging") as error:
            set_and_run()
        assert all(part in str(error.value) for part in message)

    def test_in_the_file(self, checkpoints, tmp_path):
        contents = json.loads((checkpoints["timesformer"] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**contents, "token_merging_scope": "clip"}))
        with pytest.raises(ValueError, match="token_merging_scope"):
            AutoConfig.from_pretrained(tmp_path)

    def test_what_becomes_right_together_can_be_set_together(self):
        config = make_config()
        config.update_token_merging(threshold=0.4, mode="hybrid")
        config.update_token_merging(mode="merge", threshold=None)
        config.update_token_merging(schedule="decreasing", r=3)
        config.update_token_merging(r=[1, 2], schedule="constant")
        assert config.token_merging_r == [1, 2]

    def test_a_list_as_long_as_the_layers_is_right(self):
        assert make_config(r=[1, 2, 3]).token_merging_r == [1, 2, 3]


# Sizes of which no clip has a token: what the message has to say
WRONG_SIZES = [
    ("videomae", {"num_frames": -2}, "num_frames must be an int of at least 1, got -2"),
    ("videomae", {"num_frames": 1}, "num_frames must be at least 2, the frames of a tubelet, got 1"),
    ("videomae", {"num_channels": 0}, "num_channels must be an int of at least 1, got 0"),
    ("videomae", {"image_size": 7}, "image_size must be at least 8 x 8, the size of a patch, got 7 x 7"),
    ("videomae", {"image_size": [32, 7]}, "image_size must be at least 8 x 8, the size of a patch, got 32 x 7"),
    ("videomae", {"image_size": [32]}, r"image_size must be an int, or two of them .*, got \[32\]"),
    ("videomae", {"patch_size": 0}, "patch_size must be an int, or two of them .*, got 0"),
    ("videomae", {"tubelet_size": -1}, "tubelet_size must be an int of at least 1, got -1"),
    ("vivit", {"tubelet_size": [2, 8]}, r"tubelet_size must be three ints .*, got \[2, 8\]"),
    ("vivit", {"tubelet_size": [2, 0, 8]}, r"tubelet_size must be three ints .*, got \[2, 0, 8\]"),
    ("vivit", {"tubelet_size": [8, 8, 8]}, "num_frames must be at least 8"),
    ("timesformer", {"num_frames": 0}, "num_frames must be an int of at least 1, got 0"),
    ("timesformer", {"patch_size": 64}, "image_size must be at least 64 x 64, the size of a patch, got 32 x 32"),
    ("motionformer", {"patch_size": 64}, "image_size must be at least patch_size=64, got 32"),
    ("vjepa2", {"crop_size": 4}, "crop_size must be at least 8 x 8, the size of a patch, got 4 x 4"),
    ("vjepa2", {"frames_per_clip": 0}, "frames_per_clip must be an int of at least 1, got 0"),
    ("vjepa2", {"tubelet_size": 0}, "tubelet_size must be an int of at least 1, got 0"),
    ("videoprism_vision_model", {"tubelet_size": [1, 0, 8]}, r"tubelet_size must be three ints .*, got \[1, 0, 8\]"),
    ("videoprism_vision_model", {"image_size": 4}, "image_size must be at least 8 x 8"),
]


class TestClipsWithoutTokens:
    """Refused by the name of the field and its value, wherever the sizes come from."""

    @pytest.mark.parametrize(("model_type", "sizes", "message"), WRONG_SIZES)
    def test_in_the_constructor(self, model_type, sizes, message):
        with pytest.raises(ValueError, match=message):
            ARCHITECTURES[model_type].config_class(**{**TINY_CONFIGS[model_type], **sizes})

    @pytest.mark.parametrize(("model_type", "sizes", "message"), WRONG_SIZES)
    def test_in_the_file(self, model_type, sizes, message, checkpoints, tmp_path):
        contents = json.loads((checkpoints[model_type] / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**contents, **sizes}))
        with pytest.raises(ValueError, match=message):
            AutoConfig.from_pretrained(tmp_path)

    def test_when_they_are_set_later(self):
        config = make_config(r=2)
        config.image_size = 7
        for use in (config.token_merging_plan, lambda: config.token_layout):
            with pytest.raises(ValueError, match="image_size must be at least 8 x 8"):
                use()

    @pytest.mark.parametrize("model_type", [name for name in ARCHITECTURES if name != "videoprism_vision_model"])
    def test_of_another_shape_than_that_of_the_config(self, model_type):
        config = make_config(model_type, r=2)
        with pytest.raises(ValueError, match="must be at least 8 x 8, the size of a patch, got 32 x 4"):
            config.token_merging_plan(config.clip_shape._replace(width=4))

    def test_sizes_of_sides_that_differ_are_fine(self):
        config = ARCHITECTURES["vivit"].config_class(
            **{**TINY_CONFIGS["vivit"], "image_size": (48, 17), "tubelet_size": (2, 8, 4)}
        )
        assert config.tubelet_grid(config.clip_shape) == (2, 6, 4)

    def test_a_clip_shorter_than_a_tubelet_is_repeated_by_vjepa2(self):
        config = make_config("vjepa2")
        assert config.tubelet_grid(config.clip_shape._replace(frames=1)) == (1, 4, 4)


class TestUnknownSettings:
    @pytest.mark.parametrize("name", ["speed", "token_merging_speed", "R", "merge_mode"])
    def test_are_refused_by_name_with_those_that_exist(self, name):
        model = make_model()
        for change in (model.set_token_merging, model.config.update_token_merging):
            with pytest.raises(ValueError, match=f"{name} is not a setting of videomae") as error:
                change(r=4, **{name: 1})
            assert all(known in str(error.value) for known in DEFAULTS)
        assert fields_of(model.config) == DEFAULTS

    def test_names_with_the_prefix_are_known_too(self):
        model = make_model()
        model.set_token_merging(token_merging_r=4, mode="drop")
        assert fields_of(model.config) == {**DEFAULTS, "r": 4, "mode": "drop"}

    def test_one_setting_under_both_of_its_names_is_refused(self):
        model = make_model(r=1)
        for change in (
            model.set_token_merging,
            model.token_merging,
            lambda **s: hf_video_tome.mac_count(model, **s),
            lambda **s: load_classifier("videomae-moving-digits", **s),
        ):
            with pytest.raises(ValueError, match="r and token_merging_r are the same setting: give one of them"):
                change(r=4, token_merging_r=3)
        assert model.config.token_merging_r == 1

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_are_refused_as_keywords_of_loading(self, checkpoints, model_type):
        folder, architecture = checkpoints[model_type], ARCHITECTURES[model_type]
        for load in (
            AutoConfig.from_pretrained,
            architecture.config_class.from_pretrained,
            AutoModelForVideoClassification.from_pretrained,
            architecture.head_class.from_pretrained,
            architecture.config_class,
        ):
            arguments = () if load is architecture.config_class else (folder,)
            with pytest.raises(ValueError, match=f"^token_merging_rr is not a setting of {model_type}: use "):
                load(*arguments, token_merging_rr=3)
        config, unused = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, token_merging_r=3, other=4)
        assert (config.token_merging_r, unused) == (3, {"other": 4})


class TestSubclasses:
    """A subclass changes the default of a setting as that of any other field."""

    def test_a_plain_default_is_the_default_of_the_setting(self, tmp_path):
        class Merging(hf_video_tome.VideoMAEConfig):
            token_merging_r: int = 8
            token_merging_mode = "drop"
            token_merging_schedule: float = dataclasses.field(default=0.5)

        config = Merging(**TINY_CONFIGS["videomae"])
        changed = {**DEFAULTS, "r": 8, "mode": "drop", "schedule": 0.5}
        assert fields_of(config) == changed
        assert config.token_merging_plan().requested == [4, 8, 12]
        config.update_token_merging(r=2, schedule="constant")
        assert fields_of(config) == {**changed, "r": 2, "schedule": "constant"}
        config.save_pretrained(tmp_path)
        loaded = fields_of(Merging.from_pretrained(tmp_path))
        assert loaded == {**changed, **RESOLVED_WHEN_MERGING, "r": 2}
        assert fields_of(Merging(**TINY_CONFIGS["videomae"], token_merging_r=0)) == {**changed, "r": 0}
        assert hf_video_tome.VideoMAEConfig.token_merging_r == 0
        assert "token_merging_r: Tokens to remove per layer" not in (Merging.__doc__ or "")

    def test_of_a_subclass_of_a_subclass(self):
        class First(hf_video_tome.VJEPA2Config):
            token_merging_position: str = "destination"

        class Second(First):
            token_merging_r: list = dataclasses.field(default_factory=lambda: [4, 2])

        config = Second(**TINY_CONFIGS["vjepa2"])
        assert (config.token_merging_r, config.token_merging_position) == ([4, 2], "destination")

    def test_a_default_out_of_range_is_refused_where_it_is_written(self):
        with pytest.raises(ValueError, match=r"^token_merging_r must be an int >= 0, .*, got -8"):

            class Wrong(hf_video_tome.VideoMAEConfig):
                token_merging_r: int = -8


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_help_of_a_config_describes_each_setting_with_its_default(model_type):
    config_class = ARCHITECTURES[model_type].config_class
    text = pydoc.render_doc(config_class, renderer=pydoc.plaintext)
    for name, info in config_class.token_merging_fields.items():
        assert text.count(f"{name}: {info.description} Default: ") == 1
    assert "token_merging_r: Tokens to remove per layer: a number (150)" in text
    assert "Default: `0`." in text
    assert "Default: two thirds." in text
    assert ("Default: `'centroid'`." in text) == (model_type == "vjepa2")


class TestLoading:
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_keywords_reach_the_config(self, checkpoints, model_type):
        settings = {"r": [3, 1], "mode": "hybrid", "threshold": 0.5, "pooling": "mean", "scope": "frame"}
        model = AutoModelForVideoClassification.from_pretrained(
            checkpoints[model_type], **{f"token_merging_{name}": value for name, value in settings.items()}
        )
        assert fields_of(model.config) == {**DEFAULTS, **settings}
        # All modules look at the same config: a change reaches them all.
        assert all(
            module.config is model.config for module in model.modules() if hasattr(module, "token_merging_plan")
        )

    @pytest.mark.parametrize("kind", ["stock", "ours"])
    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_a_config_and_a_keyword(self, checkpoints, model_type, kind):
        architecture = ARCHITECTURES[model_type]
        config_class = architecture.stock_config_class if kind == "stock" else architecture.config_class
        config = config_class.from_pretrained(checkpoints[model_type])
        before = copy.deepcopy(config.to_dict())
        for model_class in (AutoModelForVideoClassification, architecture.head_class):
            model = model_class.from_pretrained(checkpoints[model_type], config=config, token_merging_r=8)
            assert type(model) is architecture.head_class
            assert type(model.config) is architecture.config_class
            assert model.config.token_merging_r == 8
            model.set_token_merging(mode="drop")
            assert type(config) is config_class
            assert config.to_dict() == before

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_a_stock_config_object_alone(self, model_type):
        architecture = ARCHITECTURES[model_type]
        config = architecture.stock_config_class(**TINY_CONFIGS[model_type])
        before = copy.deepcopy(config.to_dict())
        for model in (
            AutoModelForVideoClassification.from_config(config),
            architecture.head_class(config),
            architecture.head_class(config, token_merging_r=4),
        ):
            assert type(model) is architecture.head_class
            assert type(model.config) is architecture.config_class
            model.set_token_merging(r=8)
            assert type(config) is architecture.stock_config_class
            assert {k: v for k, v in config.to_dict().items() if k != "dtype"} == {
                k: v for k, v in before.items() if k != "dtype"
            }

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_a_keyword_of_the_class_leaves_the_config_alone(self, model_type):
        for class_name in ("head_class", "model_class"):
            config = make_config(model_type, mode="drop")
            model = getattr(ARCHITECTURES[model_type], class_name)(config, token_merging_r=4)
            assert fields_of(model.config) == {**DEFAULTS, "r": 4, "mode": "drop"}
            assert fields_of(config) == {**DEFAULTS, "mode": "drop"}

    @pytest.mark.parametrize("model_type", ARCHITECTURES)
    def test_labels_dtype_and_attention_of_a_stock_config_are_kept(self, checkpoints, model_type):
        architecture = ARCHITECTURES[model_type]
        config = architecture.stock_config_class.from_pretrained(checkpoints[model_type])
        config.id2label = {0: "running", 1: "walking"}
        converted = architecture.config_class.from_stock(config)
        assert converted.id2label == config.id2label
        assert converted.num_labels == 2
        assert converted.dtype == config.dtype
        assert converted.to_stock(architecture.stock_config_class).to_dict() == config.to_dict()

    def test_a_folder_of_our_own_reaches_stock_config_classes(self, tmp_path):
        """A stock config object read from a merged checkpoint still carries the fields; they count."""
        make_config(r=5, mode="drop").save_pretrained(tmp_path)
        stock = ARCHITECTURES["videomae"].stock_config_class.from_pretrained(tmp_path)
        merging = {**DEFAULTS, **RESOLVED_WHEN_MERGING, "r": 5, "mode": "drop"}
        assert fields_of(hf_video_tome.VideoMAEConfig.from_stock(stock)) == merging
        stock.token_merging_r = -1
        with pytest.raises(ValueError, match="token_merging_r"):
            hf_video_tome.VideoMAEConfig.from_stock(stock)


class TestTokenCounts:
    def test_of_configs_at_base_size(self):
        counts = hf_video_tome.token_counts(hf_video_tome.VideoMAEConfig(token_merging_r=150))
        assert counts == [1568, 1418, 1268, 1118, 968, 818, 668, 518, 368, 218, 109, 55, 28]
        assert hf_video_tome.token_counts(hf_video_tome.VivitConfig())[0] == 3137
        counts = hf_video_tome.token_counts(hf_video_tome.TimesformerConfig(token_merging_r=18))
        assert counts[:2] == [1569, 1569 - 8 * 18]

    def test_a_share_is_one_of_the_matched_patches(self):
        assert hf_video_tome.token_counts(hf_video_tome.VideoMAEConfig(token_merging_r=0.1))[1] == 1568 - 156
        assert hf_video_tome.token_counts(hf_video_tome.VivitConfig(token_merging_r=0.1))[1] == 3137 - 313
        assert hf_video_tome.token_counts(hf_video_tome.TimesformerConfig(token_merging_r=0.1))[1] == 1569 - 8 * 19

    def test_without_the_fields_they_are_refused(self):
        stock = ARCHITECTURES["videomae"].stock_config_class()
        with pytest.raises(ValueError, match="token merging fields, got VideoMAEConfig"):
            hf_video_tome.token_counts(stock)


class TestSettingsOfOneModeDoNotReachAnother:
    def test_thresholds_of_layers_are_those_of_dymu_alone(self) -> None:
        pixel_values = torch.randn(PIXEL_SHAPE)
        with torch.no_grad():
            expected = make_model(mode="hybrid", threshold=-1.0, r=8)(pixel_values).logits
            assert torch.equal(
                make_model(mode="hybrid", threshold=-1.0, r=8, thresholds=[1.0])(pixel_values).logits, expected
            )

    def test_the_scope_that_a_mode_chose_is_not_saved(self, tmp_path: Path) -> None:
        make_config(mode="frame_merge", r=1).save_pretrained(tmp_path)
        reloaded = AutoConfig.from_pretrained(tmp_path)
        assert reloaded.token_merging_plan().settings.scope == "time"
        reloaded = AutoConfig.from_pretrained(tmp_path, token_merging_mode="merge")
        assert reloaded.token_merging_plan().settings.scope == "clip"

    def test_a_new_mode_starts_with_its_own_options(self) -> None:
        config = make_config(mode="cluster", r=8, mode_options={"centres": "kkz"}, segments=2)
        config.update_token_merging(mode="pitome")
        assert (config.token_merging_mode_options, config.token_merging_segments) == (None, None)
        config.update_token_merging(mode_options={"centres": "kmedoids"}, mode="cluster")
        assert config.token_merging_mode_options == {"centres": "kmedoids"}
        config = type(config).from_dict(
            config.to_dict(), token_merging_mode_options={"score": "norm"}, token_merging_mode="absorb"
        )
        assert config.token_merging_mode_options == {"score": "norm"}

    def test_what_a_later_default_could_change_is_saved(self, tmp_path: Path) -> None:
        make_config(mode="cluster", r=8, input="run_length").save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["token_merging_segments"] == 4
        assert saved["token_merging_mode_options"] == {"centres": "dpc", "neighbours": 5, "iterations": 5}
        assert saved["token_merging_input_keep"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"input": "run_length", "input_threshold": 0.1, "r": 0.5},
            r"r must be an int, or a list of ints with token_merging_input_threshold=0.1 .*got 0.5",
        ),
        (
            {"input": "run_length", "input_threshold": 0.1, "input_keep": 1.0},
            "input_threshold must be None with token_merging_input_keep=1.0",
        ),
        ({"input": "random", "input_threshold": 0.1, "mode": "sta", "r": 1}, "token_merging_"),
        ({"mode": "cluster", "r": 4, "mode_options": {"centers": "kkz"}}, "options of this mode: centres"),
        ({"mode": "cluster", "r": 4, "mode_options": {"centres": "x"}}, r"mode_options\['centres'\] must be one of"),
        ({"mode": "merge", "r": 4, "mode_options": {"centres": "kkz"}}, "mode_options must be None for this mode"),
        ({"mode": "drop", "r": 4, "average": "owner"}, "average must be 'mean' with token_merging_mode='drop'"),
        ({"mode": "dymu", "r": 4, "thresholds": [0.5]}, "thresholds must be a list of 3 .*got 1 of them"),
        (
            {"mode": "merge", "r": 4, "scope": "tube", "segments": 2},
            "segments must be None with token_merging_scope",
        ),
        ({"mode": "sta", "r": 2, "scope": "time"}, "scope must be 'clip' with token_merging_mode='sta'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**fields)


def test_a_mode_that_needs_the_grid_is_refused_where_there_is_none() -> None:
    config = ARCHITECTURES["videomae"].config_class
    with pytest.raises(ValueError, match=r"mode must be another for this videomae .*got 'runs'"):
        config(**{**TINY_CONFIGS["videomae"], "use_mean_pooling": False}, token_merging_mode="runs", token_merging_r=8)
