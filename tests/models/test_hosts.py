"""Encoders inside other models: a dual encoder, and hosts that are not known."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
import torch
import transformers
from transformers.models.videoprism import modeling_videoprism as stock

import hf_video_tome
from hf_video_tome.models import HOSTS, Host, register_host
from hf_video_tome.models.composite import CompositeConfigMixin, CompositeModelMixin
from hf_video_tome.registration import register, unregister

from ..tiny import TINY_CONFIGS


class VideoPrismConfig(CompositeConfigMixin, transformers.VideoPrismConfig):
    """The config of a dual encoder, whose video tower merges tokens."""


class VideoPrismClipModel(CompositeModelMixin, stock.VideoPrismClipModel):
    """A dual encoder, stock but for its video tower, which gives the full grid back."""

    config_class: ClassVar[Any] = VideoPrismConfig


TEXT = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 50,
    "max_position_embeddings": 8,
}
VISION = {name: value for name, value in TINY_CONFIGS["videoprism_vision_model"].items() if name != "num_labels"}
INPUT_IDS = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 2, 1]])


@pytest.fixture
def registered():
    unregister()
    register_host(
        Host(
            stock_class=stock.VideoPrismClipModel,
            model_class=VideoPrismClipModel,
            config_class=VideoPrismConfig,
            stock_config_class=transformers.VideoPrismConfig,
            encoders={"video_model.vision_model": "videoprism_vision_model"},
            auto_classes=("AutoModel",),
        )
    )
    register()
    try:
        yield
    finally:
        unregister()
        del HOSTS[stock.VideoPrismClipModel]
        register()


@pytest.fixture
def stock_model():
    torch.manual_seed(0)
    config = transformers.VideoPrismConfig(
        vision_config={**VISION, "num_auxiliary_layers": 1, "model_type": "videoprism_vision_model"}, text_config=TEXT
    )
    model = stock.VideoPrismClipModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def pixel_values():
    torch.manual_seed(1)
    return torch.rand(2, VISION["num_frames"], 3, VISION["image_size"], VISION["image_size"])


def embeddings(model: Any, pixel_values: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values_videos=pixel_values, input_ids=INPUT_IDS, **kwargs).video_embeds


@pytest.mark.usefixtures("registered")
class TestDualEncoder:
    @pytest.fixture
    def path(self, stock_model, tmp_path):
        stock_model.save_pretrained(tmp_path / "stock")
        return tmp_path / "stock"

    def test_with_r_0_it_is_bit_equal(self, stock_model, path, pixel_values):
        model = transformers.AutoModel.from_pretrained(path)
        assert type(model) is VideoPrismClipModel
        assert torch.equal(embeddings(model, pixel_values), embeddings(stock_model, pixel_values))

    def test_a_keyword_reaches_the_tower_and_is_saved_there(self, path, pixel_values, tmp_path):
        model = transformers.AutoModel.from_pretrained(path, token_merging_r=2)
        assert model.config.token_merging_r == model.config.vision_config.token_merging_r == 2
        assert model.video_model.vision_model.config is model.video_model.config
        model.save_pretrained(tmp_path / "saved")
        saved = json.loads((tmp_path / "saved" / "config.json").read_text())
        assert "token_merging_r" not in saved
        assert saved["vision_config"]["token_merging_r"] == 2
        assert "token_merging_restore" not in saved["vision_config"]
        again = transformers.AutoModel.from_pretrained(tmp_path / "saved")
        assert again.config.token_merging_r == 2
        assert torch.equal(embeddings(again, pixel_values), embeddings(model, pixel_values))

    def test_unset_it_saves_what_the_stock_model_saves(self, path, tmp_path):
        stock.VideoPrismClipModel.from_pretrained(path).save_pretrained(tmp_path / "plain")
        transformers.AutoModel.from_pretrained(path).save_pretrained(tmp_path / "ours")
        ours, expected = ((tmp_path / name / "config.json").read_text() for name in ("ours", "plain"))
        assert json.loads(ours) == json.loads(expected)

    def test_the_config_of_the_caller_stays_as_it_is(self):
        config = VideoPrismConfig(
            vision_config={**VISION, "num_auxiliary_layers": 1, "model_type": "videoprism_vision_model"},
            text_config=TEXT,
        )
        VideoPrismClipModel(config, token_merging_r=2)
        assert config.token_merging_r == 0
        assert not config.vision_config.token_merging_restore
        assert hf_video_tome.token_counts(config) == hf_video_tome.token_counts(config.vision_config)
        assert hf_video_tome.mac_count(config, r=2).total < hf_video_tome.mac_count(config).total

    def test_plain_transformers_reads_what_was_saved(self, stock_model, path, pixel_values, tmp_path):
        transformers.AutoModel.from_pretrained(path, token_merging_r=2).save_pretrained(tmp_path / "saved")
        unregister()
        plain = stock.VideoPrismClipModel.from_pretrained(tmp_path / "saved")
        assert torch.equal(embeddings(plain, pixel_values), embeddings(stock_model, pixel_values))

    def test_what_stands_around_the_tower_reads_the_full_grid(self, path, pixel_values):
        model = transformers.AutoModel.from_pretrained(path, token_merging_r=2)
        read: list[torch.Tensor] = []
        layer = model.video_model.auxiliary_layers[0]
        layer.register_forward_pre_hook(lambda module, args: read.append(args[0]))
        merged = embeddings(model, pixel_values)
        with torch.no_grad():
            tower = model.video_model.vision_model(
                pixel_values, token_merging_restore=False, output_token_merging=True
            )
        assert read[0].shape[1] == model.config.vision_config.token_layout.num_tokens
        torch.testing.assert_close(read[0], tower.token_merging.unmerge(tower.last_hidden_state))
        assert not torch.allclose(merged, embeddings(model, pixel_values, token_merging_r=0))

    def test_settings_of_a_call_a_block_and_the_model(self, stock_model, path, pixel_values):
        model = transformers.AutoModel.from_pretrained(path, token_merging_r=2)
        stock_embeddings = embeddings(stock_model, pixel_values)
        assert torch.equal(embeddings(model, pixel_values, token_merging_r=0), stock_embeddings)
        with hf_video_tome.token_merging(model, r=0):
            assert torch.equal(embeddings(model, pixel_values), stock_embeddings)
        merged = embeddings(model, pixel_values)
        assert not torch.equal(merged, stock_embeddings)
        hf_video_tome.set_token_merging(model, r=0)
        assert torch.equal(embeddings(model, pixel_values), stock_embeddings)

    def test_applied_to_an_instance_and_removed_again(self, stock_model, path, pixel_values):
        expected = embeddings(stock_model, pixel_values)
        model = hf_video_tome.apply_token_merging(stock_model, r=2)
        assert type(model) is VideoPrismClipModel
        loaded = transformers.AutoModel.from_pretrained(path, token_merging_r=2)
        assert torch.equal(embeddings(model, pixel_values), embeddings(loaded, pixel_values))
        assert hf_video_tome.token_counts(model)[-1] < hf_video_tome.token_counts(model)[0]
        hf_video_tome.remove_token_merging(model)
        assert type(model) is stock.VideoPrismClipModel
        assert type(model.config) is transformers.VideoPrismConfig
        assert torch.equal(embeddings(model, pixel_values), expected)


class TestUnknownHosts:
    @pytest.fixture
    def host(self):
        torch.manual_seed(0)
        config = {name: value for name, value in TINY_CONFIGS["videomae"].items() if name != "num_labels"}
        return transformers.VideoMAEForPreTraining(
            transformers.VideoMAEConfig(
                **config, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2
            )
        ).eval()

    def run(self, host, **kwargs):
        config = host.config
        torch.manual_seed(0)
        clips = torch.randn(2, config.num_frames, 3, config.image_size, config.image_size)
        tokens = (config.num_frames // config.tubelet_size) * (config.image_size // config.patch_size) ** 2
        masked = torch.zeros(2, tokens, dtype=torch.bool)
        masked[:, ::2] = True
        with torch.no_grad():
            return host(clips, bool_masked_pos=masked).logits

    def test_they_are_refused(self, host):
        with pytest.raises(ValueError, match=r"got VideoMAEForPreTraining.*restore=True"):
            hf_video_tome.apply_token_merging(host, r=3)
        assert type(host.videomae) is transformers.VideoMAEModel

    def test_with_restore_they_get_the_full_grid(self, host):
        expected = self.run(host)
        hf_video_tome.apply_token_merging(host, r=3, restore=True)
        assert host.config.token_merging_r == 3
        merged = self.run(host)
        assert merged.shape == expected.shape
        assert not torch.allclose(merged, expected)
        hf_video_tome.set_token_merging(host, r=0)
        assert torch.equal(self.run(host), expected)
        hf_video_tome.remove_token_merging(host)
        assert type(host.videomae) is transformers.VideoMAEModel
        assert torch.equal(self.run(host), expected)

    def test_the_full_grid_is_not_given_up_for_them(self, host):
        hf_video_tome.apply_token_merging(host, r=3, restore=True)
        for function in (hf_video_tome.apply_token_merging, hf_video_tome.set_token_merging):
            with pytest.raises(ValueError, match="restore=True"):
                function(host, restore=False)
