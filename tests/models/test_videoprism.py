from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModel, AutoModelForVideoClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.videoprism import modeling_videoprism as stock
from transformers.pipelines import VideoClassificationPipeline
from typer.testing import CliRunner

import hf_video_tome
from hf_video_tome.cli import app
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.merging import MergeSettings, Step, TokenLayout, Tokens
from hf_video_tome.models.videoprism import modeling_videoprism as ours
from tests.flex import skip_if_flex_cannot_run_here
from tests.tiny import BATCH_SIZE, NUM_LABELS, TINY_CONFIGS

from .common import OperationCounter, TokenMergingModelTesterMixin, draw_pixels, logits_of

NUM_FRAMES = TINY_CONFIGS["videoprism_vision_model"]["num_frames"]


class TestVideoPrism(TokenMergingModelTesterMixin):
    model_type = "videoprism_vision_model"
    tiny_config = TINY_CONFIGS["videoprism_vision_model"]
    scopes = ("tube", "frame")
    proportional_attention = True
    r = 4
    layers_field = "num_spatial_layers"
    implementations = ("eager",)  # transformers refuses sdpa, which has no soft-cap

    @property
    def num_layers(self) -> int:
        return self.tiny_config["num_spatial_layers"] + self.tiny_config["num_temporal_layers"]

    def sequences(self, hidden_states: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        """Those of the spatial encoder hold each frame by itself; the temporal encoder merges nothing."""
        spatial = hidden_states[: self.tiny_config["num_spatial_layers"] + 1]
        return [states.reshape(BATCH_SIZE, -1, states.shape[-1]) for states in spatial]

    def attended_tokens(self, model: nn.Module) -> list[int]:
        """Spatial attention is among the tokens of one frame, temporal attention among the frames of one place."""
        counts = hf_video_tome.token_counts(model)[:-1]
        return [tokens // NUM_FRAMES for tokens in counts] + [NUM_FRAMES] * model.config.num_temporal_layers

    def test_r_zero_does_no_extra_work(self, pixel_values):
        """But for a view, which takes the dimension of the one pooling query off the logits."""
        counters = []
        for model in (self.stock_model(), self.merging_model(r=0)):
            with OperationCounter() as counter, torch.no_grad():
                model(pixel_values)
            counters.append([name for name in counter.names if name not in ("aten.squeeze.dim", "aten.view.default")])
        assert counters[0] == counters[1]

    @pytest.mark.parametrize("proportional_attention", [True, False])
    def test_sdpa_equals_eager(self, proportional_attention):
        """There is no sdpa with a soft-cap: the stock model refuses it, and so does this one."""
        for model in (self.stock_model(), self.merging_model(proportional_attention=proportional_attention)):
            with pytest.raises(ValueError, match="scaled_dot_product_attention"):
                model.set_attn_implementation("sdpa")
            with pytest.raises(ValueError, match="scaled_dot_product_attention"):
                type(model)._from_config(copy.deepcopy(model.config), attn_implementation="sdpa")

    @pytest.mark.usefixtures("uncompiled_flex_attention")
    def test_the_attention_implementation_can_be_changed_at_any_time(self):
        pixel_values = draw_pixels(2)  # no two pairs so nearly alike that rounding chooses between them
        for model in (
            self.merging_model("eager"),
            hf_video_tome.apply_token_merging(self.stock_model(), r=self.r),
        ):
            expected = logits_of(model, pixel_values)
            for implementation in ("flex_attention", "eager"):
                model.set_attn_implementation(implementation)
                assert model.config._attn_implementation == implementation
                torch.testing.assert_close(logits_of(model, pixel_values), expected, rtol=1e-4, atol=1e-5)

    # Logits

    @pytest.mark.parametrize("r", [0, 3])
    def test_logits_have_no_dimension_for_the_pooling_query(self, pixel_values, r):
        model = self.merging_model(r=r)
        outputs = model(pixel_values, labels=torch.tensor([1, 0, 5]))
        assert outputs.logits.shape == (BATCH_SIZE, NUM_LABELS)
        hf_video_tome.remove_token_merging(model)
        outputs = model(pixel_values)
        assert outputs.logits.shape == (BATCH_SIZE, 1, NUM_LABELS)  # once it has not, the squeeze can go

    def test_the_pipeline_needs_that(self, pixel_values):
        """Its last step fails on the logits of the stock model."""
        pipelines = []
        for model in (self.merging_model(), self.stock_model()):
            pipelines.append(VideoClassificationPipeline.__new__(VideoClassificationPipeline))
            pipelines[-1].model = model
        with torch.no_grad():
            assert len(pipelines[0].postprocess(pipelines[0].model(pixel_values[:1]))) == 5
            outputs = pipelines[1].model(pixel_values[:1])
        with pytest.raises(TypeError, match="unhashable"):
            pipelines[1].postprocess(outputs)

    def test_several_labels_per_clip_have_a_loss(self, pixel_values):
        """Unlike in the stock model, whose logits do not have the shape of such labels."""
        labels = torch.zeros(BATCH_SIZE, NUM_LABELS)
        labels[:, 2] = 1
        model = self.merging_model(config={"problem_type": "multi_label_classification"})
        outputs = model(pixel_values, labels=labels)
        expected = nn.functional.binary_cross_entropy_with_logits(outputs.logits, labels)
        torch.testing.assert_close(outputs.loss, expected)
        with pytest.raises(ValueError, match="must be the same"):
            self.stock_model(problem_type="multi_label_classification")(pixel_values, labels=labels)

    # What the sizes do

    @pytest.mark.usefixtures("uncompiled_flex_attention")
    @pytest.mark.parametrize("softcap", [0.05, 50.0])
    @pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
    def test_a_token_of_size_s_weighs_like_s_tokens_whatever_the_soft_cap(self, implementation, softcap):
        """Were log(size) soft-capped too, 0.05 would leave nothing of it."""
        self.check_sizes(implementation, attn_logit_softcapping=softcap)

    def test_a_token_of_size_s_weighs_like_s_tokens_in_compiled_flex_attention(self):
        # One head: torch 2.13 compiles flex attention wrongly on CPUs with AVX2 for heads of 16 and less.
        try:
            self.check_sizes("flex_attention", num_attention_heads=1)
        except Exception:
            skip_if_flex_cannot_run_here()
            raise

    def check_sizes(self, implementation: str, **fields: Any) -> None:
        torch.manual_seed(0)
        config = hf_video_tome.VideoPrismVisionConfig(**{**self.tiny_config, **fields})
        config._attn_implementation = implementation
        attention = ours.VideoPrismAttention(config).eval()
        states, sizes = torch.randn(2 * 4, 3, 32), torch.tensor([3, 1, 2])
        step = Step(0, Tokens(sizes.float().repeat(2, 4)), TokenLayout(0, 4, 6), MergeSettings(scope="frame"))
        with torch.no_grad():
            output, _, reduction = attention(states, step=step)
        config._attn_implementation = "eager"
        with torch.no_grad():
            expected, _ = attention(states.repeat_interleave(sizes, dim=1))
            unweighted, _ = attention(states)
        torch.testing.assert_close(output, expected[:, [0, 3, 4]], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(output, unweighted, atol=1e-2)
        assert reduction.tokens is step.tokens

    def test_temporal_attention_does_not_weigh_frames(self, pixel_values):
        """Sizes say how much of a frame a token covers, not how often it is seen."""
        model = self.merging_model(scope="frame")
        seen: list[tuple[str, dict[str, Any]]] = []
        for name, module in model.named_modules():
            if isinstance(module, stock.VideoPrismLayer):
                module.register_forward_pre_hook(
                    lambda _, args, kwargs, name=name: seen.append((name, kwargs)), with_kwargs=True
                )
        logits_of(model, pixel_values)
        assert len(seen) == self.num_layers
        for name, kwargs in seen:
            assert ("step" in kwargs) == ("spatial_layers" in name)
            assert kwargs.get("attention_mask") is None

    @pytest.mark.parametrize("mode", ["merge", "drop"])
    def test_the_pooling_head_weighs_tokens_as_the_pooling_says(self, pixel_values, mode):
        by_pooling = {
            p: logits_of(self.merging_model(mode=mode, pooling=p), pixel_values) for p in ("mean", "weighted")
        }
        model = self.merging_model(mode=mode)
        with torch.no_grad():
            outputs = model.vision_model(pixel_values)
            plain = model.classifier(model.head_layernorm(model.head(outputs.last_hidden_state)[0]))[:, 0]
            torch.testing.assert_close(by_pooling["mean"], plain)
            assert torch.equal(by_pooling["mean"], by_pooling["weighted"]) == (mode == "drop")
            if mode == "drop":
                assert outputs.token_sizes is None
                return
            for index in range(BATCH_SIZE):
                repeated = outputs.last_hidden_state[index].repeat_interleave(outputs.token_sizes[index].long(), dim=0)
                assert len(repeated) == 64
                logits = model.classifier(model.head_layernorm(model.head(repeated[None])[0]))[0, 0]
                torch.testing.assert_close(by_pooling["weighted"][index], logits, rtol=1e-4, atol=1e-5)

    def test_the_pooling_head_weighs_tokens_without_proportional_attention_too(self, pixel_values):
        logits = [
            logits_of(self.merging_model(proportional_attention=False, pooling=p), pixel_values)
            for p in ("mean", "weighted")
        ]
        assert not torch.allclose(*logits, atol=1e-4)

    # Attention implementations that cannot weigh tokens

    @pytest.fixture
    def unbiased(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """An implementation that takes no mask, like flash attention."""

        def unbiased(module, query, key, value, attention_mask, **kwargs):
            return stock.eager_attention_forward(module, query, key, value, None, **kwargs)

        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "unbiased", unbiased)
        return "unbiased"

    def test_implementations_that_would_leave_sizes_out_are_refused(self, pixel_values, unbiased):
        model = self.merging_model(unbiased)
        message = "attn_implementation must be 'eager' or 'flex_attention' .*got 'unbiased'; or set token_merging_"
        with pytest.raises(ValueError, match=message + "proportional_attention=False"):
            model(pixel_values)
        model.set_token_merging(proportional_attention=False)
        with pytest.raises(ValueError, match=message + "pooling='mean'"):
            model(pixel_values)
        model.set_token_merging(pooling="mean")
        expected = self.merging_model(proportional_attention=False, pooling="mean")
        assert torch.equal(logits_of(model, pixel_values), logits_of(expected, pixel_values))

    @pytest.mark.parametrize("settings", [{"r": 0}, {"mode": "drop"}])
    def test_they_run_where_there_are_no_sizes(self, pixel_values, unbiased, settings):
        logits = [logits_of(self.merging_model(name, **settings), pixel_values) for name in (unbiased, "eager")]
        assert torch.equal(*logits)

    # Places and frames

    def test_tubes_assign_all_frames_alike_and_frames_do_not(self, pixel_values):
        alike = []
        for scope in self.scopes:
            model = self.merging_model(scope=scope)
            with torch.no_grad():
                trace = model(pixel_values, output_token_merging=True).token_merging
            left = trace.token_counts[-1] // NUM_FRAMES
            places = trace.sources.unflatten(1, (NUM_FRAMES, -1)) - left * torch.arange(NUM_FRAMES)[:, None]
            assert places.min() >= 0
            assert places.max() < left  # no token left its frame
            alike.append(bool((places == places[:, :1]).all()))
        assert alike == [True, False]

    def test_the_states_of_both_encoders_come_with_the_output(self, pixel_values):
        model = self.merging_model().vision_model
        with torch.no_grad():
            outputs = model(pixel_values, output_hidden_states=True)
            states = outputs.last_temporal_hidden_state
            last = model.layernorm2(states).unflatten(0, (BATCH_SIZE, -1))
            assert torch.equal(outputs.last_hidden_state.unflatten(1, (NUM_FRAMES, -1)), last.transpose(1, 2))
            # The token of place p in frame t is the one of the spatial encoder, after the temporal one.
            assert torch.equal(outputs.last_spatial_hidden_state, outputs.hidden_states[3])
            embeddings = model.temporal_embeddings(
                model.layernorm1(outputs.last_spatial_hidden_state), pixel_values.shape
            )
            for layer in model.temporal_layers:
                embeddings = layer(embeddings)
        assert torch.equal(embeddings, states)
        assert states.shape == (BATCH_SIZE * 4, NUM_FRAMES, 32)
        assert [tuple(states.shape[:2]) for states in outputs.hidden_states] == [
            *((BATCH_SIZE * NUM_FRAMES, places) for places in (16, 12, 8, 4)),
            (BATCH_SIZE * 4, NUM_FRAMES),
            (BATCH_SIZE, NUM_FRAMES * 4),
        ]

    def test_frames_that_are_swapped_after_the_spatial_encoder_swap_their_tokens(self, pixel_values):
        """A matching shared by all frames does not depend on their order."""
        order = [2, 0, 3, 1]
        model = self.merging_model().vision_model
        with torch.no_grad():
            frames, swapped = (
                model(pixels).last_spatial_hidden_state.unflatten(0, (-1, NUM_FRAMES))
                for pixels in (pixel_values, pixel_values[:, order])
            )
        torch.testing.assert_close(swapped, frames[:, order])

    @pytest.mark.parametrize("scope", ["clip", "time"])
    def test_a_scope_across_frames_is_refused(self, scope):
        with pytest.raises(
            ValueError, match=rf"must be one of 'frame', 'tube' for videoprism_vision_model, got '{scope}'"
        ):
            self.merging_model(scope=scope)

    def test_a_list_has_an_entry_for_each_spatial_layer_at_most(self):
        assert self.merging_model(r=[3, 2, 1]).config.num_merging_layers == 3
        with pytest.raises(ValueError, match="at most 3 entries"):
            self.merging_model(r=[3, 2, 1, 1])

    @pytest.mark.parametrize("num_frames", [1, 2])
    def test_few_frames_merge(self, num_frames):
        model = self.merging_model(config={"num_frames": num_frames})
        pixel_values = torch.randn(2, num_frames, 3, 32, 32)
        with torch.no_grad():
            outputs = model(pixel_values, output_token_merging=True)
        assert outputs.logits.shape == (2, NUM_LABELS)
        assert outputs.token_merging.token_counts == tuple(num_frames * places for places in (16, 12, 8, 4))

    # Clips of other shapes

    def test_oblong_frames(self):
        config = {"image_size": [32, 48], "tubelet_size": [1, 8, 16]}
        pixel_values = torch.randn(2, 4, 3, 32, 48)
        expected = logits_of(self.stock_model(**config), pixel_values)
        assert torch.equal(logits_of(self.merging_model(r=0, config=config), pixel_values), expected)
        model = self.merging_model(config=config)
        with torch.no_grad():
            trace = model(pixel_values, output_token_merging=True).token_merging
        assert trace.token_counts[0] == 4 * 4 * 3
        assert hf_video_tome.token_counts(model) == list(trace.token_counts)

    @pytest.mark.parametrize("shape", [(4, 48, 48), (4, 32, 64), (6, 32, 32), (2, 24, 16), (4, 32, 32)])
    def test_positions_are_interpolated_as_in_the_stock_model(self, shape):
        frames, *size = shape
        pixel_values = torch.randn(2, frames, 3, *size)
        expected = logits_of(self.stock_model(), pixel_values, interpolate_pos_encoding=True)
        model = self.merging_model(r=0)
        assert torch.equal(logits_of(model, pixel_values, interpolate_pos_encoding=True), expected)
        for scope in self.scopes:
            model.set_token_merging(r=0.25, scope=scope)
            with torch.no_grad():
                outputs = model(pixel_values, interpolate_pos_encoding=True, output_token_merging=True)
            patches = size[0] // 8 * size[1] // 8
            assert outputs.token_merging.token_counts[:2] == (frames * patches, frames * (patches - patches // 4))
            assert outputs.logits.isfinite().all()

    def test_interpolation_does_not_make_channels_fit(self):
        with pytest.raises(ValueError, match=r"^pixel_values_videos do not fit.* channels=3.*got channels=1"):
            self.merging_model()(torch.randn(1, 4, 1, 32, 32), interpolate_pos_encoding=True)

    # Checkpoints as they are on the Hub, and real files

    def test_a_backbone_lacks_nothing_but_the_head(self, tmp_path):
        config = transformers.VideoPrismVisionConfig(**self.tiny_config)
        transformers.VideoPrismVisionModel(config).save_pretrained(tmp_path)
        model, report = AutoModelForVideoClassification.from_pretrained(
            tmp_path, token_merging_r=self.r, output_loading_info=True
        )
        assert type(model) is hf_video_tome.VideoPrismForVideoClassification
        assert {name.split(".")[0] for name in report["missing_keys"]} == {"head", "head_layernorm", "classifier"}
        assert not report["unexpected_keys"]

    @pytest.mark.parametrize("processor", [None, "video_preprocessor_config.json"])
    def test_the_command_line_classifies_a_file(self, checkpoint, tmp_path, processor):
        frames = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), dtype=np.uint8)
        write_video(tmp_path / "clip.mp4", frames, fps=10)
        if processor:
            settings = {
                "video_processor_type": "LlavaOnevisionVideoProcessor",
                "size": {"height": 32, "width": 32},
                "do_resize": True,
                "do_center_crop": None,
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": False,
                "resample": 2,
            }
            (checkpoint / processor).write_text(json.dumps(settings))
        arguments = ["classify", str(tmp_path / "clip.mp4"), "--model", str(checkpoint), "--r", "4", "--json"]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        answer = json.loads(result.stdout)
        assert result.exit_code == 0
        assert answer["token_counts"] == [64, 48, 32, 16]
        assert len(answer["results"][0]["top"]) == 5
        assert ("saved" in answer["transform"]["source"]) == bool(processor)

    # The models that hold a vision model

    @pytest.mark.parametrize("way", ["video", "clip"])
    def test_models_that_use_the_vision_model_in_their_own_way_are_refused(self, way):
        vision = transformers.VideoPrismVisionConfig(**self.tiny_config)
        if way == "video":
            model = transformers.VideoPrismVideoModel(vision)
        else:
            model = transformers.VideoPrismClipModel(clip_config(vision))
        types = [type(module) for module in model.modules()]
        for function in (hf_video_tome.apply_token_merging, hf_video_tome.remove_token_merging):
            with pytest.raises(
                ValueError, match=f"got VideoPrism{way.title()}Model, which uses VideoPrismVisionModel"
            ):
                function(model)
        assert [type(module) for module in model.modules()] == types

    def test_the_contrastive_model_loads_as_ever(self, tmp_path):
        model = transformers.VideoPrismClipModel(clip_config(transformers.VideoPrismVisionConfig(**self.tiny_config)))
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert type(loaded) is transformers.VideoPrismClipModel
        assert [type(module) for module in loaded.modules()] == [type(module) for module in model.modules()]
        assert type(loaded.config.vision_config) is transformers.VideoPrismVisionConfig


def clip_config(vision: transformers.VideoPrismVisionConfig) -> transformers.VideoPrismConfig:
    text = transformers.VideoPrismTextConfig(
        vocab_size=11, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    return transformers.VideoPrismConfig(vision_config=vision.to_dict(), text_config=text.to_dict())
