"""Settings by name: what they promise, for every architecture and size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForVideoClassification, BertConfig

import hf_video_tome
from hf_video_tome import preset
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.cli import run
from hf_video_tome.cli.merging_options import PresetName
from hf_video_tome.configuration import PRESETS
from hf_video_tome.merging import SettingError
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

WITH_PAPER = [name for name, architecture in ARCHITECTURES.items() if architecture.paper_settings]


def factor(config: Any, settings: dict[str, Any]) -> float:
    unmerged = hf_video_tome.mac_count(config, **config.unmerged_settings).total
    return unmerged / hf_video_tome.mac_count(config, **settings).total


def least_factor(name: str, config: Any) -> float:
    if name == "balanced":
        return 2.5
    return 4.0 if config.default_token_merging_scope == "clip" else 3.0


def config_of(model: str) -> Any:
    if model in ARCHITECTURES:
        return ARCHITECTURES[model].config_class()
    return AutoConfig.from_pretrained(checkpoint_path(model))


@pytest.mark.parametrize("name", ["balanced", "fast"])
@pytest.mark.parametrize("model", [*ARCHITECTURES, *available()])
def test_each_saves_what_it_promises_and_no_more_than_it_has_to(model: str, name: str) -> None:
    config = config_of(model)
    settings = preset(name, config)
    assert least_factor(name, config) <= factor(config, settings) < 1.2 * least_factor(name, config)
    assert config.token_merging.is_off


@pytest.mark.parametrize("model_type", WITH_PAPER)
def test_the_paper_at_its_size_and_as_shares_at_others(model_type: str) -> None:
    config_class = ARCHITECTURES[model_type].config_class
    usual = preset("paper", config_class())
    assert {**usual, **hf_video_tome.paper_settings(model_type)} == {**usual, "restore": False}
    other = config_class(image_size=112)
    r = preset("paper", other)["r"]
    assert isinstance(r, float)
    removed = [hf_video_tome.token_counts(config_class(**_fields(preset("paper", it)), image_size=it.image_size))
               for it in (config_class(), other)]  # fmt: skip
    shares = [(counts[0] - counts[1]) / counts[0] for counts in removed]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def _fields(settings: dict[str, Any]) -> dict[str, Any]:
    return {f"token_merging_{name}": value for name, value in settings.items()}


@pytest.mark.parametrize("model_type", sorted(set(ARCHITECTURES) - set(WITH_PAPER)))
def test_what_the_paper_does_not_have_is_refused(model_type: str) -> None:
    with pytest.raises(SettingError, match=f"preset must be another for {model_type}.*got 'paper'"):
        preset("paper", ARCHITECTURES[model_type].config_class())


def test_other_names_and_models_are_refused() -> None:
    with pytest.raises(SettingError, match="preset must be one of 'paper', 'balanced', 'fast', got 'quick'"):
        preset("quick", hf_video_tome.VideoMAEConfig())
    with pytest.raises(ValueError, match=r"model must be or contain one of .*, got Linear"):
        preset("fast", torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="model_or_config must be a model or config"):
        preset("fast", BertConfig())
    with pytest.raises(SettingError, match=r"its layers can save a factor of 1\.\d only, not 4"):
        preset("fast", hf_video_tome.VideoMAEConfig(**{**TINY_CONFIGS["videomae"], "num_hidden_layers": 1}))


@pytest.fixture
def single_process(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "compiled": torch.compile,
    "peft": lambda model: get_peft_model(model, LoraConfig(target_modules=["query", "value"])),
    "ddp": DistributedDataParallel,
}


@pytest.mark.usefixtures("single_process")
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("merges", [True, False])
def test_a_model_is_found_inside_a_wrapper(wrapper: str, merges: bool) -> None:
    config = config_of("videomae-moving-digits")
    model = hf_video_tome.VideoMAEForVideoClassification(config)
    expected = preset("balanced", model)
    if not merges:
        hf_video_tome.remove_token_merging(model)
    wrapped = WRAPPERS[wrapper](model)
    assert type(wrapped) is not type(model)
    assert preset("balanced", wrapped) == expected


class TestExpanded:
    """All settings are replaced, and nothing remembers the name."""

    EXPECTED: ClassVar[dict[str, Any]] = {**preset("balanced", config_of("videomae-moving-digits")), "restore": False}

    def settings_of(self, model: Any) -> dict[str, Any]:
        return model.config.token_merging_settings()

    def test_by_from_pretrained_and_saved(self, tmp_path: Path) -> None:
        path = checkpoint_path("videomae-moving-digits")
        model = AutoModelForVideoClassification.from_pretrained(path, token_merging_preset="balanced")
        assert self.settings_of(model) == self.EXPECTED
        model.save_pretrained(tmp_path)
        assert "preset" not in (tmp_path / "config.json").read_text()
        loaded = AutoModelForVideoClassification.from_pretrained(tmp_path)
        assert loaded.config.token_merging_settings(resolved=True) == model.config.token_merging_settings(
            resolved=True
        )

    def test_by_every_other_way_to_set_it(self) -> None:
        model = AutoModelForVideoClassification.from_pretrained(
            checkpoint_path("videomae-moving-digits"), token_merging_r=3, token_merging_mode="drop"
        ).eval()
        clip = torch.randn(1, 16, 3, 48, 48, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            of_call = model(clip, token_merging_preset="balanced").logits
            with model.token_merging(preset="balanced"):
                of_block = model(clip).logits
            assert self.settings_of(model)["mode"] == "drop"
            model.set_token_merging(preset="balanced")
            assert self.settings_of(model) == self.EXPECTED
            assert torch.equal(of_call, model(clip).logits)
            assert torch.equal(of_block, model(clip).logits)
        model.config.token_merging_preset = "fast"
        assert self.settings_of(model) == {**preset("fast", model), "restore": False}
        assert model.config.token_merging_preset is None

    def test_what_a_base_model_returns_is_not_of_the_method(self) -> None:
        config = config_of("videomae-moving-digits")
        config.update_token_merging(restore=True)
        config.update_token_merging(preset="fast")
        assert config.token_merging_restore
        config.update_token_merging(preset="balanced", restore=False)
        assert not config.token_merging_restore
        assert "restore" not in preset("fast", config)

    def test_a_compiled_call_says_why_not(self) -> None:
        torch._dynamo.reset()
        model = hf_video_tome.VideoMAEForVideoClassification(
            hf_video_tome.VideoMAEConfig(**{**TINY_CONFIGS["videomae"], "num_hidden_layers": 1})
        ).eval()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        clip = torch.randn(1, 4, 3, 32, 32)
        with pytest.raises(Exception, match="token_merging_preset must be set before a model is compiled"):
            compiled(clip, token_merging_preset="paper")
        options = {"token_merging_mode": "runs", "token_merging_r": 8, "token_merging_mode_options": {"window": 1}}
        assert compiled(clip, **options).logits.isfinite().all()

    @pytest.mark.parametrize(
        "other", [{"token_merging_r": 4}, {"token_merging_mode": "drop"}, {"token_merging_r": [4, 2]}], ids=str
    )
    def test_never_together_with_another_setting(self, other: dict[str, Any]) -> None:
        path = checkpoint_path("videomae-moving-digits")
        name, value = next(iter(other.items()))
        message = re.escape(f"token_merging_preset must be left out with {name}={value!r}")
        with pytest.raises(SettingError, match=message):
            AutoModelForVideoClassification.from_pretrained(path, token_merging_preset="fast", **other)
        with pytest.raises(SettingError, match=message):
            hf_video_tome.VideoMAEConfig(token_merging_preset="fast", **other)
        with pytest.raises(SettingError, match=message):
            config_of("videomae-moving-digits").update_token_merging(preset="fast", **other)


def test_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["save", "vivit-moving-digits", str(tmp_path / "fast"), "--preset", "fast"]) == 0
    saved = AutoConfig.from_pretrained(tmp_path / "fast")
    assert saved.token_merging_settings()["r"] == preset("fast", saved)["r"]
    capsys.readouterr()
    assert run(["save", "vivit-moving-digits", str(tmp_path / "b"), "--preset", "fast", "--r", "4"]) == 2
    assert "error: --preset must be left out with --r 4 (a preset sets all of them)" in capsys.readouterr().err


def test_the_command_knows_all_of_them() -> None:
    assert [name.value for name in PresetName] == list(PRESETS)
