from __future__ import annotations

import pytest
import torch
from torch import nn

import hf_video_tome
from tests.tiny import TINY_CONFIGS

from .common import TokenMergingModelTesterMixin, draw_pixels, logits_of


class TestTimesformer(TokenMergingModelTesterMixin):
    model_type = "timesformer"
    tiny_config = TINY_CONFIGS["timesformer"]
    scopes = ("tube", "frame", "time")
    proportional_attention = True
    r = 3

    def attended_tokens(self, model: nn.Module) -> list[int]:
        """Spatial attention is among the patches of one frame and a copy of CLS."""
        frames = model.config.num_frames
        return [1 + (tokens - 1) // frames for tokens in hf_video_tome.token_counts(model)[:-1]]

    def test_fused_attention_is_the_default(self, tmp_path):
        self.stock_model().save_pretrained(tmp_path)
        model = hf_video_tome.TimesformerForVideoClassification.from_pretrained(tmp_path)
        assert model.config._attn_implementation == "sdpa"

    @pytest.mark.parametrize("r", [0, 3])
    def test_attentions_are_there_with_fused_attention_too(self, pixel_values, r):
        eager, fused = (self.merging_model(name, r=r) for name in ("eager", "sdpa"))
        with torch.no_grad():
            expected, outputs = (model(pixel_values, output_attentions=True) for model in (eager, fused))
        for actual_weights, expected_weights in zip(outputs.attentions, expected.attentions, strict=True):
            torch.testing.assert_close(actual_weights, expected_weights, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    @pytest.mark.parametrize("attention_type", ["space_only", "joint_space_time"])
    def test_other_attention_types_run_unmerged(self, pixel_values, attention_type, implementation):
        config = {"attention_type": attention_type}
        expected = self._logits_or_error(self.stock_model(**config), pixel_values)
        actual = self._logits_or_error(self.merging_model(implementation, r=0, config=config), pixel_values)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)

    @staticmethod
    def _logits_or_error(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
        return logits_of(model, pixel_values)

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

    @pytest.mark.parametrize("r", [1, [0, 2], 10**6])
    def test_merging_equal_frames_changes_nothing(self, r):
        """Frames that show the same and do not know when count, merged, as often as they are there."""
        frame = draw_pixels(dtype=torch.float64)[:, :1]
        for implementation in self.implementations:
            model = self.merging_model(implementation, r=r, scope="time").double()
            nn.init.zeros_(model.timesformer.embeddings.time_embeddings)
            pixel_values = frame.expand(-1, model.config.num_frames, -1, -1, -1)
            counts = hf_video_tome.token_counts(model)
            assert counts[-1] < counts[0]
            merged = logits_of(model, pixel_values)
            model.set_token_merging(r=0)
            unmerged = logits_of(model, pixel_values)
            torch.testing.assert_close(merged, unmerged)

    def test_weights_along_time_have_an_effect(self, pixel_values):
        on, off = (
            logits_of(self.merging_model(scope="time", r=1, proportional_attention=p), pixel_values)
            for p in (True, False)
        )
        assert not torch.allclose(on, off, atol=1e-4)

    def test_along_time_whole_frames_merge(self, pixel_values):
        model = self.merging_model(scope="time", r=1)
        layout = model.config.token_layout
        with torch.no_grad():
            outputs = model(pixel_values, output_token_merging=True, output_attentions=True)
        trace = outputs.token_merging
        assert list(trace.token_counts) == hf_video_tome.token_counts(model)
        assert trace.token_counts == (65, 49, 33, 17)
        _, size = layout.split(trace.sizes, "time")
        assert torch.equal(size, size[:, :1].expand_as(size))
        assert (size.sum(-1) == layout.num_frames).all()

    def test_one_frame_merges(self):
        model = self.merging_model(config={"num_frames": 1})
        with torch.no_grad():
            trace = model(torch.randn(2, 1, 3, 32, 32), output_token_merging=True).token_merging
        assert trace.token_counts == (17, 14, 11, 8)
        assert (trace.sources[:, 1:] > 0).all()

    def test_drop_path_trains(self, pixel_values):
        model = self.merging_model(config={"drop_path_rate": 1}).train()
        for layer in model.timesformer.encoder.layer:
            layer.drop_path = type(layer.drop_path)() if isinstance(layer.drop_path, nn.Identity) else layer.drop_path
            if not isinstance(layer.drop_path, nn.Identity):
                layer.drop_path.drop_prob = 0.5
        assert model(pixel_values).logits.isfinite().all()
