from __future__ import annotations

import copy
import json
import math
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from transformers import AutoModel
from transformers.models.vjepa2 import modeling_vjepa2 as stock

import hf_video_tome
from hf_video_tome.merging import MergeSettings, Step, TokenLayout, Tokens
from hf_video_tome.models.vjepa2 import modeling_vjepa2 as ours
from hf_video_tome.models.vjepa2.rotary import grid_positions, rotary_tables, rotate
from tests.merging import reference
from tests.tiny import TINY_CONFIGS

from .common import DETERMINISTIC_MODES, WRONG_SHAPES, TokenMergingModelTesterMixin, draw_pixels, logits_of

PREDICTOR_MASK = [torch.arange(8).repeat(3, 1)]


class TestVJEPA2(TokenMergingModelTesterMixin):
    model_type = "vjepa2"
    tiny_config = TINY_CONFIGS["vjepa2"]
    scopes = ("clip", "frame", "tube", "time")
    proportional_attention = False
    r = 6
    # Any number of frames fits: rotary positions go on beyond those of the pre-training.
    wrong_shapes: ClassVar[list[tuple[tuple[int, ...], str, str]]] = [
        *[case for case in WRONG_SHAPES if "frames=" not in case[2]],
        ((2, 0, 3, 32, 32), "must have at least 1 frame", "got 0 in shape (2, 0, 3, 32, 32)"),
    ]
    base_model_kwargs: ClassVar[dict[str, Any]] = {"skip_predictor": True}

    # Numbers of frames

    @pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 5, 8, 14])
    def test_other_numbers_of_frames_are_as_in_the_stock_model(self, num_frames):
        pixel_values = torch.randn(2, num_frames, 3, 32, 32)
        stock_logits = logits_of(self.stock_model(), pixel_values)
        model = self.merging_model(r=0)
        assert torch.equal(logits_of(model, pixel_values), stock_logits)
        with torch.no_grad():  # the code that merges, with nothing to merge
            torch.testing.assert_close(model(pixel_values, output_token_merging=True).logits, stock_logits)

    @pytest.mark.parametrize("num_frames", [1, 3, 8, 11])
    def test_clips_of_other_numbers_of_frames_merge_by_their_own_layout(self, num_frames):
        pixel_values = torch.randn(2, num_frames, 3, 32, 32)
        for scope in self.scopes:
            model = self.merging_model(r=0.25, scope=scope)
            with torch.no_grad():
                counts = model(pixel_values, output_token_merging=True).token_merging.token_counts
            fitting = self.merging_model(r=0.25, scope=scope, config={"frames_per_clip": num_frames})
            assert list(counts) == hf_video_tome.token_counts(fitting)
            assert counts[0] == 16 * max(num_frames // 2, 1)
            # A share of the tokens of each matched set, rounded down: of one to five time slots, one or none.
            slots = counts[0] // 16
            assert counts[1] == (16 * (slots - slots // 4) if scope == "time" else counts[0] * 3 // 4)

    def test_a_clip_shorter_than_a_tubelet_is_repeated(self):
        config = {"tubelet_size": 4, "frames_per_clip": 8}
        pixel_values = torch.randn(2, 3, 3, 32, 32)
        expected = logits_of(self.stock_model(**config), pixel_values)
        model = self.merging_model(r=0, config=config)
        with torch.no_grad():
            outputs = model(pixel_values, output_token_merging=True)
        assert outputs.token_merging.token_counts[0] == 3 * 16
        torch.testing.assert_close(outputs.logits, expected)

    def test_the_config_has_the_number_of_frames_that_the_pipeline_asks_for(self, tmp_path):
        config = hf_video_tome.VJEPA2Config(**self.tiny_config)
        assert config.num_frames == config.frames_per_clip == 4
        config.num_frames = 8
        assert config.token_layout.num_frames == 4
        config.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["frames_per_clip"] == 8
        assert "num_frames" not in saved

    # The base model

    @pytest.mark.parametrize("settings", [{"r": 6}, {"r": 6, "mode": "drop"}])
    def test_merging_and_the_predictor_are_refused_together(self, pixel_values, settings):
        base = self.merging_model(**settings).vjepa2
        with pytest.raises(ValueError, match="skip_predictor must be True"):
            base(pixel_values)
        for masks in ({"context_mask": PREDICTOR_MASK}, {"target_mask": PREDICTOR_MASK}):
            with pytest.raises(ValueError, match="context_mask and target_mask must be None"):
                base(pixel_values, skip_predictor=True, **masks)

    def test_without_merging_the_predictor_runs_as_ever(self, checkpoint, pixel_values):
        model = AutoModel.from_pretrained(checkpoint).eval()
        expected = stock.VJEPA2Model.from_pretrained(checkpoint).eval()
        masks = {"context_mask": PREDICTOR_MASK, "target_mask": [torch.arange(8, 20).repeat(3, 1)]}
        with torch.no_grad():
            for kwargs in ({}, masks, {"skip_predictor": True}):
                actual_outputs, outputs = (m(pixel_values, **kwargs) for m in (model, expected))
                assert type(actual_outputs) is type(outputs)
                assert actual_outputs.keys() == outputs.keys()
                assert torch.equal(actual_outputs.last_hidden_state, outputs.last_hidden_state)
                assert torch.equal(actual_outputs.masked_hidden_state, outputs.masked_hidden_state)
                if outputs.predictor_output is not None:
                    predicted, expected_prediction = (
                        o.predictor_output.last_hidden_state for o in (actual_outputs, outputs)
                    )
                    assert torch.equal(predicted, expected_prediction)

    def test_vision_features_are_merged(self, pixel_values):
        model = self.merging_model().vjepa2
        with torch.no_grad():
            features = model.get_vision_features(pixel_values)
            outputs = model(pixel_values, skip_predictor=True)
        assert torch.equal(features, outputs.last_hidden_state)
        assert torch.equal(features, outputs.masked_hidden_state)
        assert features.shape[1] == hf_video_tome.token_counts(model)[-1]

    # The pooler

    @pytest.mark.parametrize("mode", ["merge", "drop"])
    def test_the_pooler_weighs_tokens_as_the_pooling_says(self, pixel_values, mode):
        by_pooling = {
            p: logits_of(self.merging_model(mode=mode, pooling=p), pixel_values) for p in ("mean", "weighted")
        }
        model = self.merging_model(mode=mode)
        with torch.no_grad():
            outputs = model.vjepa2(pixel_values, skip_predictor=True)
            plain = model.classifier(stock.VJEPA2AttentivePooler.forward(model.pooler, outputs.last_hidden_state))
        torch.testing.assert_close(by_pooling["mean"], plain)
        assert torch.allclose(by_pooling["weighted"], plain, atol=1e-4) == (mode == "drop")

    @pytest.mark.usefixtures("uncompiled_flex_attention")
    @pytest.mark.parametrize("implementation", ["eager", "sdpa", "flex_attention"])
    def test_a_token_of_size_s_is_pooled_like_s_equal_tokens(self, implementation):
        pooler = self.merging_model(implementation, config={"num_pooler_layers": 2}).pooler
        size = torch.tensor([[1, 3, 2, 1, 1], [2, 2, 2, 1, 1]])
        tokens = torch.randn(2, 5, 32)
        copies = torch.stack([one.repeat_interleave(count, 0) for one, count in zip(tokens, size, strict=True)])
        with torch.no_grad():
            expected = pooler(copies)
            torch.testing.assert_close(pooler(tokens, size.float()), expected, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(pooler(tokens), expected, atol=1e-2)

    def test_dropout_of_the_pooler_counts_in_training_only(self, pixel_values):
        config = {"attention_dropout": 0.5}
        expected = logits_of(self.merging_model(), pixel_values)
        model = self.merging_model(config=config)
        assert torch.equal(logits_of(model, pixel_values), expected)
        model.train()
        assert not torch.equal(logits_of(model, pixel_values), logits_of(model, pixel_values))

    def test_drop_path_trains(self, pixel_values):
        model = self.merging_model(config={"drop_path_rate": 0.3}).train()
        losses = [model(pixel_values, labels=torch.tensor([1, 0, 5])).loss for _ in range(4)]
        assert len({loss.item() for loss in losses}) > 1
        sum(losses).backward()

    # Positions

    @pytest.mark.parametrize("implementation", ["eager", "sdpa"])
    def test_a_token_of_size_s_is_attended_to_like_s_equal_tokens_in_its_place(self, implementation):
        layer = self.merging_model(implementation).vjepa2.encoder.layer[0]
        layout, settings = TokenLayout(0, 1, 5), MergeSettings(proportional_attention=True)
        size = torch.tensor([[1, 3, 2, 1, 1]])
        tokens, position = torch.randn(1, 5, 32), torch.rand(1, 5, 3) * 9
        copies, positions = (x[0].repeat_interleave(size[0], 0)[None] for x in (tokens, position))
        with torch.no_grad():
            one, _ = layer(
                tokens,
                step=Step(0, Tokens(size.float(), position=position), layout, settings),
            )
            several, _ = layer(copies, step=Step(0, Tokens(position=positions), layout, settings))
        torch.testing.assert_close(one[0].repeat_interleave(size[0], 0)[None], several, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("position", ["destination", "centroid"])
    @pytest.mark.parametrize("proportional_attention", [False, True])
    @pytest.mark.parametrize(("mode", "threshold"), [it for it in DETERMINISTIC_MODES if it[0] in reference.MODES])
    def test_the_encoder_equals_one_in_plain_loops(self, mode, threshold, proportional_attention, position):
        """Matching, averaging and positions by the reference; attention by the stock one, on positions of its own."""
        settings = {"mode": mode, "threshold": threshold, "position": position}
        model = self.merging_model(proportional_attention=proportional_attention, **settings).double()
        pixel_values = draw_pixels(dtype=torch.float64, batch_size=2)
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True, output_token_merging=True)
            for clip in range(2):
                self.check_clip(model, outputs, clip, proportional_attention, **settings)

    def check_clip(self, model, outputs, clip, proportional_attention, mode, threshold, position):
        encoder, scope = model.vjepa2.encoder, model.config.token_layout
        states = outputs.hidden_states[0][clip]
        grid = [[float(t), float(h), float(w)] for t in range(2) for h in range(4) for w in range(4)]
        places, members = grid, [[token] for token in range(32)]
        weighs = proportional_attention and mode != "drop"
        for index, layer in enumerate(encoder.layer):
            sizes = torch.tensor([len(held) for held in members], dtype=torch.float64)
            attention = layer.attention
            normed = layer.norm1(states)
            queries, keys, values = (
                projection(normed).view(len(states), 2, 16).transpose(0, 1)
                for projection in (attention.query, attention.key, attention.value)
            )
            turned = [turn(x, torch.tensor(places, dtype=torch.float64)) for x in (queries, keys)]
            logits = turned[0] @ turned[1].transpose(-1, -2) / 4 + (sizes.log() if weighs else 0)
            context = (logits.softmax(-1) @ values).transpose(0, 1).flatten(1)
            states = attention.proj(context) + states

            # A token of the reference carries its state and its place, which are averaged alike.
            metrics = keys.mean(0).tolist()
            tokens = [
                reference.Token([*state, *place], metric, held)
                for state, place, metric, held in zip(states.tolist(), places, metrics, members, strict=True)
            ]
            owners = [
                reference.Token([*place], metric, held)
                for place, metric, held in zip(places, metrics, members, strict=True)
            ]
            arguments = (self.r, 0, scope.num_frames, False, "clip")
            tokens = reference.reduce_sequence(tokens, *arguments, mode, threshold)
            owners = reference.reduce_sequence(owners, *arguments, "drop")
            states = torch.tensor([token.state[:32] for token in tokens], dtype=torch.float64)
            centroids = [token.state[32:] for token in tokens]
            places = centroids if position == "centroid" else [owner.state for owner in owners]
            members = [token.members for token in tokens]
            states = layer.mlp(layer.norm2(states)) + states
            torch.testing.assert_close(
                outputs.hidden_states[index + 1][clip], states, rtol=1e-5, atol=1e-5, msg=f"layer {index}"
            )
            holder = {member: slot for slot, held in enumerate(members) for member in held}
            sources = outputs.token_merging.layer_sources[index + 1][clip].tolist()
            assert sources == [holder.get(token, -1) for token in range(32)]

    def test_the_choice_of_positions_has_an_effect(self, pixel_values):
        destination, centroid = (
            logits_of(self.merging_model(position=p), pixel_values) for p in ("destination", "centroid")
        )
        assert not torch.allclose(destination, centroid, atol=1e-4)
        assert torch.equal(logits_of(self.merging_model(), pixel_values), centroid)
        destination, centroid = (
            logits_of(self.merging_model(mode="drop", position=p), pixel_values) for p in ("destination", "centroid")
        )
        assert torch.equal(destination, centroid)

    def test_the_choice_of_positions_is_saved_and_loaded(self, tmp_path, pixel_values):
        model = self.merging_model(position="destination")
        model.save_pretrained(tmp_path)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["token_merging_position"] == "destination"
        loaded = hf_video_tome.VJEPA2ForVideoClassification.from_pretrained(tmp_path, attn_implementation="eager")
        assert torch.equal(logits_of(loaded, pixel_values), logits_of(model, pixel_values))
        loaded.set_token_merging(position="centroid")
        loaded.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["token_merging_position"] == "centroid"
        removed = hf_video_tome.remove_token_merging(copy.deepcopy(model))
        assert not hasattr(removed.config, "token_merging_position")

    @pytest.mark.parametrize("value", ["source", "", None, 1])
    def test_other_positions_are_refused(self, value):
        model = self.merging_model(r=3)
        message = r"token_merging_position must be one of 'destination', 'centroid', got"
        with pytest.raises(ValueError, match=message):
            hf_video_tome.VJEPA2Config(token_merging_position=value)
        with pytest.raises(ValueError, match=message):
            model.set_token_merging(r=4, position=value)
        assert model.config.token_merging_r == 3

    def test_other_architectures_refuse_the_setting(self):
        config = hf_video_tome.VideoMAEConfig(**TINY_CONFIGS["videomae"])
        with pytest.raises(ValueError, match="token_merging_position is not a setting of videomae"):
            config.update_token_merging(position="centroid")
        assert "position" not in config.token_merging_settings()
        with pytest.raises(ValueError, match="token_merging_position is not a setting of videomae"):
            hf_video_tome.VideoMAEForVideoClassification(config, token_merging_position="centroid")


def turn(x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """Rotary embedding, pair by pair: x (H, N, 16), position (N, 3), 4 channels per axis."""
    output = x.clone()
    for axis in range(3):
        for pair in range(2):
            first = 4 * axis + 2 * pair
            # The two channels of a pair have frequencies of their own: so it is in the checkpoints.
            for channel, other, sign in ((first, first + 1, -1), (first + 1, first, 1)):
                frequency = 10000 ** -((channel % 2) / 2)
                for token in range(x.shape[1]):
                    angle = frequency * position[token, axis].item()
                    output[:, token, channel] = x[:, token, channel] * math.cos(angle)
                    output[:, token, channel] += sign * x[:, token, other] * math.sin(angle)
    return output


class TestRotary:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("head_dim", [16, 24, 64])
    def test_whole_positions_give_what_the_stock_layer_gives(self, dtype, head_dim):
        config = stock.VJEPA2Config(crop_size=48, patch_size=8)
        attention = stock.VJEPA2RopeAttention(config, 2 * head_dim, 2)
        x = torch.randn(2, 2, 40 * 36, head_dim).to(dtype)
        expected = attention.apply_rotary_embeddings(x, attention.get_position_ids(x.transpose(1, 2)))
        position = grid_positions(40, 6, 6, torch.promote_types(dtype, torch.float32), x.device)
        assert torch.equal(rotate(x, *rotary_tables(position, attention.d_dim, dtype)), expected)

    def test_positions_of_its_own_for_each_clip(self):
        position = torch.rand(2, 5, 3) * 7
        x = torch.randn(2, 3, 5, 16)
        together = rotate(x, *rotary_tables(position, 4, x.dtype))
        for clip in range(2):
            alone = rotate(x[clip : clip + 1], *rotary_tables(position[clip : clip + 1], 4, x.dtype))
            torch.testing.assert_close(together[clip : clip + 1], alone)
            torch.testing.assert_close(together[clip], turn(x[clip], position[clip]))

    def test_unmerged_layers_of_a_model_that_merges_equal_the_stock_ones(self):
        """The last layer merges: all before it see whole positions, through the code that merges."""
        tester = TestVJEPA2()
        pixel_values = draw_pixels()
        with torch.no_grad():
            expected = tester.stock_model()(pixel_values, output_hidden_states=True).hidden_states
            actual = tester.merging_model(r=[0, 0, 6])(pixel_values, output_hidden_states=True).hidden_states
        for own, other in zip(actual[:3], expected[:3], strict=True):
            torch.testing.assert_close(own, other)
        assert actual[3].shape[1] == expected[3].shape[1] - 6


def test_stock_eager_attention_is_the_one_here_but_for_the_mask():
    query, key, value = torch.randn(3, 2, 3, 5, 16).to(torch.bfloat16)
    for module in (nn.Identity().train(), nn.Identity().eval()):
        results = [
            function(module, query, key, value, None, scaling=0.25, dropout=0.0)
            for function in (stock.eager_attention_forward, ours.eager_attention_forward)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
