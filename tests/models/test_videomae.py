from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tiny import TINY_CONFIGS

from .common import LABELS, TokenMergingModelTesterMixin, draw_pixels, logits_of


class TestVideoMAE(TokenMergingModelTesterMixin):
    model_type = "videomae"
    tiny_config = TINY_CONFIGS["videomae"]
    scopes = ("clip", "frame", "tube", "time")
    proportional_attention = False
    r = 6

    @pytest.mark.parametrize("pooling", ["mean", "weighted"])
    def test_pooling(self, pixel_values, pooling):
        model = self.merging_model(pooling=pooling)
        with torch.no_grad():
            outputs = model(pixel_values, output_token_merging=True, output_hidden_states=True)
            states, sizes = outputs.hidden_states[-1], outputs.token_merging.sizes
            weights = sizes if pooling == "weighted" else torch.ones_like(sizes)
            pooled = (states * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
            expected = model.classifier(model.fc_norm(pooled))
        torch.testing.assert_close(outputs.logits, expected)

    def test_pooling_has_an_effect(self, pixel_values):
        mean, weighted = (logits_of(self.merging_model(pooling=p), pixel_values) for p in ("mean", "weighted"))
        assert not torch.allclose(mean, weighted, atol=1e-4)

    def test_without_mean_pooling_the_token_that_the_head_reads_is_never_merged(self, pixel_values):
        config = {"use_mean_pooling": False}
        stock = self.stock_model(**config)
        assert torch.equal(
            logits_of(self.merging_model(r=0, config=config), pixel_values), logits_of(stock, pixel_values)
        )
        model = self.merging_model(config=config)
        with torch.no_grad():
            trace = model(pixel_values, output_token_merging=True).token_merging
        assert (trace.sources[:, 0] == 0).all()
        assert (trace.sizes[:, 0] == 1).all()
        assert hf_counts(model) == list(trace.token_counts)

    def test_oblong_frames(self):
        config = {"image_size": [32, 48]}
        pixel_values = torch.randn(2, 4, 3, 32, 48)
        stock = logits_of(self.stock_model(**config), pixel_values)
        assert torch.equal(logits_of(self.merging_model(r=0, config=config), pixel_values), stock)
        for scope in self.scopes:
            model = self.merging_model(scope=scope, config=config)
            with torch.no_grad():
                trace = model(pixel_values, output_token_merging=True).token_merging
            assert trace.token_counts[0] == 2 * 4 * 6
            assert hf_counts(model) == list(trace.token_counts)

    def test_masked_clips_merge_what_is_visible(self, pixel_values):
        model = self.merging_model()
        base = model.videomae
        mask = torch.zeros(3, 32, dtype=torch.bool)
        mask[:, ::4] = True
        with torch.no_grad():
            outputs = base(pixel_values, bool_masked_pos=mask, output_token_merging=True)
        assert outputs.token_merging.token_counts == (24, 18, 12, 6)
        assert outputs.last_hidden_state.shape[1] == 6
        model.set_token_merging(scope="frame")
        with pytest.raises(ValueError, match=r"token_merging_scope='frame'.*32.*24.*'clip'"):
            base(pixel_values, bool_masked_pos=mask)

    def test_regression_heads_use_their_own_loss(self, pixel_values):
        model = self.merging_model(config={"num_labels": 1})
        outputs = model(pixel_values, labels=LABELS.float())
        torch.testing.assert_close(outputs.loss, nn.functional.mse_loss(outputs.logits.squeeze(), LABELS.float()))


def hf_counts(model: nn.Module) -> list[int]:
    import hf_video_tome

    return hf_video_tome.token_counts(model)


def test_double_precision_is_possible():
    model = TestVideoMAE().merging_model().double()
    assert logits_of(model, draw_pixels(dtype=torch.float64)).dtype == torch.float64
