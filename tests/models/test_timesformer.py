from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.timesformer import modeling_timesformer as stock

import hf_video_tome
from tests.tiny import TINY_CONFIGS

from .common import DividedAttentionTesterMixin, TokenMergingModelTesterMixin, logits_of


class TestTimesformer(DividedAttentionTesterMixin, TokenMergingModelTesterMixin):
    model_type = "timesformer"
    tiny_config = TINY_CONFIGS["timesformer"]
    scopes = ("tube", "frame", "time")
    proportional_attention = True
    r = 3
    counts_along_time = (65, 49, 33, 17)

    def attended_tokens(self, model: nn.Module) -> list[int]:
        """Spatial attention is among the patches of one frame and a copy of CLS."""
        frames = model.config.num_frames
        return [1 + (tokens - 1) // frames for tokens in hf_video_tome.token_counts(model)[:-1]]

    def test_fused_attention_is_the_default(self, tmp_path):
        self.stock_model().save_pretrained(tmp_path)
        model = hf_video_tome.TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert model.config._attn_implementation == "sdpa"

    def test_building_a_model_leaves_the_config_to_others_that_run_with_it(self, monkeypatch):
        model = self.merging_model("sdpa")
        seen, build = [], stock.TimesformerModel.__init__

        def spy(self, config):
            seen.append((config._attn_implementation, model.config._attn_implementation))
            build(self, config)

        monkeypatch.setattr(stock.TimesformerModel, "__init__", spy)
        other = type(model)(model.config)
        assert seen == [("eager", "sdpa")]
        assert all(module.config is model.config for module in other.modules() if hasattr(module, "config"))

    @pytest.mark.parametrize("r", [0, 3])
    def test_attentions_are_there_with_fused_attention_too(self, pixel_values, r):
        eager, fused = (self.merging_model(name, r=r) for name in ("eager", "sdpa"))
        with torch.no_grad():
            expected, outputs = (model(pixel_values, output_attentions=True) for model in (eager, fused))
        for actual_weights, expected_weights in zip(outputs.attentions, expected.attentions, strict=True):
            torch.testing.assert_close(actual_weights, expected_weights, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("r", [0, 3])
    def test_the_config_can_ask_for_attentions_at_any_time(self, pixel_values, tmp_path, r):
        """As that of the stock model, whose attention is always eager."""
        model = self.merging_model("sdpa", r=r)
        with torch.no_grad():
            assert model(pixel_values).attentions is None
            model.config.output_attentions = True
            expected = model(pixel_values).attentions
        model.save_pretrained(tmp_path)
        again = hf_video_tome.TimesformerForVideoClassification.from_pretrained(tmp_path).eval()
        assert again.config._attn_implementation == "sdpa"
        for model in (again, type(again)(again.config)):
            assert len(model(pixel_values).attentions) == len(expected) == 3
        stock = self.stock_model()
        stock.config.output_attentions = True
        for actual_weights, expected_weights in zip(
            hf_video_tome.remove_token_merging(again)(pixel_values).attentions,
            stock(pixel_values).attentions,
            strict=True,
        ):
            assert actual_weights.shape == expected_weights.shape

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("attention_type", ["space_only", "joint_space_time"])
    def test_other_attention_types_run_unmerged(self, pixel_values, attention_type, implementation):
        config = {"attention_type": attention_type}
        expected = logits_of(self.stock_model(**config), pixel_values)
        actual = logits_of(self.merging_model(implementation, r=0, config=config), pixel_values)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("attention_type", ["space_only", "joint_space_time"])
    def test_other_attention_types_refuse_to_merge(self, attention_type):
        with pytest.raises(
            ValueError, match=rf"token_merging_r must be 0 for attention_type='{attention_type}'.*got 3"
        ):
            self.merging_model(config={"attention_type": attention_type})

    def test_tubes_assign_all_frames_alike_and_frames_do_not(self, pixel_values):
        alike = []
        for scope in ("tube", "frame"):
            model = self.merging_model(scope=scope)
            with torch.no_grad():
                sources = model(pixel_values, output_token_merging=True).token_merging.sources
            places = (sources[:, 1:].unflatten(1, (-1, 4)) - 1) // 4
            alike.append(bool((places == places[..., :1]).all()))
        assert alike == [True, False]

    def test_drop_path_trains(self, pixel_values):
        model = self.merging_model(config={"drop_path_rate": 1}).train()
        for layer in model.timesformer.encoder.layer:
            layer.drop_path = type(layer.drop_path)() if isinstance(layer.drop_path, nn.Identity) else layer.drop_path
            if not isinstance(layer.drop_path, nn.Identity):
                layer.drop_path.drop_prob = 0.5
        assert model(pixel_values).logits.isfinite().all()
