from __future__ import annotations

import pytest
import torch

import hf_video_tome
from tests.tiny import TINY_CONFIGS

from .common import TokenMergingModelTesterMixin, logits_of


class TestVivit(TokenMergingModelTesterMixin):
    model_type = "vivit"
    tiny_config = TINY_CONFIGS["vivit"]
    scopes = ("clip", "frame", "tube", "time")
    proportional_attention = True
    r = 6

    def test_pooling_has_no_say_in_a_head_that_reads_cls(self, pixel_values):
        mean, weighted = (logits_of(self.merging_model(pooling=p), pixel_values) for p in ("mean", "weighted"))
        assert torch.equal(mean, weighted)

    def test_oblong_frames(self):
        config = {"image_size": [32, 48]}
        pixel_values = torch.randn(2, 4, 3, 32, 48)
        stock = logits_of(self.stock_model(**config), pixel_values)
        assert torch.equal(logits_of(self.merging_model(r=0, config=config), pixel_values), stock)
        model = self.merging_model(config=config)
        with torch.no_grad():
            trace = model(pixel_values, output_token_merging=True).token_merging
        assert trace.token_counts[0] == 1 + 2 * 4 * 6
        assert hf_video_tome.token_counts(model) == list(trace.token_counts)

    def test_the_pooler_of_the_base_model_reads_cls(self, pixel_values):
        torch.manual_seed(0)
        config = self.architecture.config_class(**self.tiny_config, token_merging_r=self.r)
        model = self.architecture.model_class(config).eval()
        with torch.no_grad():
            outputs = model(pixel_values)
            torch.testing.assert_close(outputs.pooler_output, model.pooler(outputs.last_hidden_state))

    def test_an_attention_mask_with_merging_is_refused(self, pixel_values):
        base = self.merging_model().vivit
        with pytest.raises(ValueError, match="attention_mask must be None when tokens are merged"):
            base(pixel_values, attention_mask=torch.ones(3, 1, 33, 33))
