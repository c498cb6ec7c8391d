"""What enters the first layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

import hf_video_tome
from hf_video_tome.merging import INPUT_STAGES, InputContext, keep_tokens, register_input_stage
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.models.pixel_dtype import pixel_dtype
from tests.models.common import draw_pixels, logits_of
from tests.tiny import TINY_CONFIGS
from tests.toys import toy_methods

JOINT = ("videomae", "vivit", "vjepa2")
PATCHES, FRAMES = 16, 2


def build(model_type: str, layers: int = 3, **settings: Any) -> Any:
    torch.manual_seed(0)
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    architecture = ARCHITECTURES[model_type]
    return architecture.head_class(
        architecture.config_class(**{**TINY_CONFIGS[model_type], "num_hidden_layers": layers}, **fields)
    ).eval()


@pytest.mark.parametrize("model_type", JOINT)
class TestEveryJointModel:
    def test_all_kept_is_the_stock_model(self, model_type):
        expected = logits_of(build(model_type), draw_pixels())
        for keep in (1.0, PATCHES * FRAMES, 10**6):
            assert torch.equal(logits_of(build(model_type, input="random", input_keep=keep), draw_pixels()), expected)

    @pytest.mark.parametrize(
        ("keep", "kept"), [(None, 22), (0.75, 24), (0.5, 16), (0.1, 16), (PATCHES, PATCHES), (20, 20)]
    )
    def test_it_keeps_what_it_is_told(self, model_type, keep, kept):
        model = build(model_type, input="random", input_keep=keep, r=2)
        prefix = model.config.token_layout.num_prefix_tokens
        with torch.no_grad():
            outputs = model(draw_pixels(), output_hidden_states=True, output_token_merging=True)
        counts = hf_video_tome.token_counts(model)
        assert counts[:2] == [prefix + kept, prefix + kept - 2]
        assert counts == [states.shape[1] for states in outputs.hidden_states]
        trace = outputs.token_merging
        assert trace.token_counts == (prefix + PATCHES * FRAMES, *counts[1:])
        for layer in range(1, len(counts)):
            assert (trace.layer_sizes[layer].sum(dim=1) == prefix + PATCHES * FRAMES).all()
            restored = trace.unmerge(outputs.hidden_states[layer], layer=layer)
            assert restored.shape[1] == prefix + PATCHES * FRAMES

    def test_a_share_as_r_is_one_of_the_tokens_that_enter(self, model_type):
        model = build(model_type, input="random", input_keep=20, r=[0.1, 0.5])
        prefix = model.config.token_layout.num_prefix_tokens
        assert hf_video_tome.token_counts(model)[:3] == [prefix + 20, prefix + 18, prefix + 9]

    def test_fewer_tokens_need_fewer_operations(self, model_type):
        whole, half = (
            hf_video_tome.mac_count(build(model_type, input="random", input_keep=x)).total for x in (1.0, 0.5)
        )
        assert half < 0.7 * whole

    def test_it_compiles_to_one_graph(self, model_type):
        torch._dynamo.reset()
        model = build(model_type, layers=1, input="random", input_keep=20, r=2)
        with torch.no_grad():
            logits = torch.compile(model, fullgraph=True, backend="eager")(draw_pixels()).logits
        assert logits.isfinite().all()

    def test_what_is_left_out_has_no_influence(self, model_type):
        def first(context: InputContext):
            kept = torch.arange(context.keep).expand(len(context.embeddings), -1)
            return keep_tokens(kept, context.embeddings.shape[1])

        register_input_stage("first")(first)
        model = build(model_type, input="first", input_keep=PATCHES, r=0)
        changed = draw_pixels()
        changed[:, changed.shape[1] // FRAMES :] = 7.0  # the second slot is not seen
        assert torch.equal(logits_of(model, draw_pixels()), logits_of(model, changed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "above", "threshold": 0.5, "r": 5}, "removes a number that depends on the clip"),
        ({"input": "long"}, "keeps a number of tokens that depends on the clip"),
    ],
)
def test_what_depends_on_content_is_not_compiled(settings, message):
    torch._dynamo.reset()
    with toy_methods():
        model = build("videomae", layers=1, **settings)
        with pytest.raises(Exception, match=message):
            torch.export.export(model, (draw_pixels(),), strict=False)
        with pytest.raises(Exception, match=message):
            torch.compile(model, fullgraph=True, backend="eager")(draw_pixels())


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="input_keep must be a share, or at least the 16 tokens of a frame, got 15"):
        build("videomae", input="random", input_keep=15)


@pytest.mark.parametrize("scope", ["frame", "tube", "time"])
def test_the_grid_is_gone(scope):
    with pytest.raises(ValueError, match=f"scope must be 'clip' with token_merging_input.*got '{scope}'"):
        build("videomae", input="random", scope=scope)


def test_masked_inputs_are_refused():
    model = build("videomae", input="random").videomae
    masked = torch.zeros(3, PATCHES * FRAMES, dtype=torch.bool)
    masked[:, ::2] = True
    with pytest.raises(ValueError, match="does not support masked inputs"):
        model(draw_pixels(), bool_masked_pos=masked)


COMPARING = ("run_length", "temporal_difference")


def changing_clips(batch_size: int = 2, frames: int = 8) -> torch.Tensor:
    """A clip in which one place changes from slot 2 on, and further ones with more and more noise."""
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(batch_size, 1, 3, 32, 32, generator=generator).repeat(1, frames, 1, 1, 1)
    still[:, 4:, :, :8, :8] += 2.0
    noise = torch.randn(still.shape, generator=generator)
    return still + noise * torch.arange(batch_size).view(-1, 1, 1, 1, 1)


def long_clip_model(model_type: str, **settings: Any) -> Any:
    field = {"vjepa2": "frames_per_clip"}.get(model_type, "num_frames")
    torch.manual_seed(0)
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    architecture = ARCHITECTURES[model_type]
    return architecture.head_class(
        architecture.config_class(**{**TINY_CONFIGS[model_type], field: 8}, **fields)
    ).eval()


@pytest.mark.parametrize("model_type", JOINT)
@pytest.mark.parametrize("stage", COMPARING)
class TestWhatChanged:
    def test_what_is_left_out_belongs_to_the_kept_one_of_its_run(self, model_type, stage):
        model = long_clip_model(model_type, input=stage, input_keep=17)
        prefix = model.config.token_layout.num_prefix_tokens
        with torch.no_grad():
            trace = model(changing_clips(), output_token_merging=True).token_merging
        holders = trace.sources[0, prefix:].view(4, PATCHES) - prefix
        assert holders[:, 1:].tolist() == [list(range(1, PATCHES))] * 4
        assert holders[:, 0].tolist() == [0, 0, PATCHES, PATCHES]
        assert trace.sizes[0].tolist() == [1.0] * prefix + [2.0] + [4.0] * 15 + [2.0]

    @torch.no_grad()
    def test_a_frozen_clip_is_its_first_slot_with_the_sizes_of_all(self, model_type, stage):
        """The logits of the stock model if every slot has the embeddings, and positions, of the first."""
        frozen = changing_clips()[:, :1].repeat(1, 8, 1, 1, 1).double()
        settings = {"input": stage, "input_threshold": 0.01, "proportional_attention": True}
        model = long_clip_model(model_type, **settings).double()
        for name, parameter in model.named_parameters():
            if name.endswith("position_embeddings"):  # zero at first in ViViT
                parameter.normal_()
        out = model(frozen, output_token_merging=True)
        prefix = model.config.token_layout.num_prefix_tokens
        assert out.token_merging.sizes.tolist() == [[1.0] * prefix + [4.0] * PATCHES] * 2

        model.set_token_merging(input=None, input_threshold=None)
        assert (model(frozen).logits - out.logits).abs().max() > 1e-8
        encoder = model.base_model

        def repeat_first_slot(module, args, embeddings):
            return torch.cat((embeddings[:, :prefix], embeddings[:, prefix : prefix + PATCHES].repeat(1, 4, 1)), dim=1)

        if model_type == "vjepa2":  # positions are rotations in every layer
            first = torch.arange(PATCHES).repeat(2, 4)
            for layer in encoder.encoder.layer:
                layer.register_forward_pre_hook(lambda module, args: (args[0], first))
            encoder = encoder.encoder
        encoder.embeddings.register_forward_hook(repeat_first_slot)
        torch.testing.assert_close(model(frozen).logits, out.logits, rtol=1e-11, atol=1e-11)

    @torch.no_grad()
    def test_half_precision_chooses_the_same_tubelets(self, model_type, stage):
        # A few grey levels, whose differences change in bfloat16.
        levels = torch.randint(230, 240, (2, 8, 3, 32, 32), generator=torch.Generator().manual_seed(0))
        pixel_values = (levels / 255 - 0.485) / 0.229
        settings = {"input": stage, "input_keep": 0.5}
        sources = []
        for dtype in (torch.float32, torch.bfloat16):
            model = long_clip_model(model_type, **settings).to(dtype)
            assert pixel_dtype(model) == torch.float32
            out = model(pixel_values, output_token_merging=True)
            assert out.logits.dtype == dtype
            sources.append(out.token_merging.sources)
        assert torch.equal(*sources)
        model.set_token_merging(input=None)
        assert pixel_dtype(model) == torch.bfloat16

    def test_base_models_see_the_clips_too(self, model_type, stage):
        model = long_clip_model(model_type, input=stage, input_keep=20).base_model
        options = {"skip_predictor": True} if model_type == "vjepa2" else {}
        prefix = model.config.token_layout.num_prefix_tokens
        for restore, length in [(False, 20), (True, 4 * PATCHES)]:
            model.set_token_merging(restore=restore)
            with torch.no_grad():
                assert model(changing_clips(), **options).last_hidden_state.shape[1] == prefix + length


@pytest.mark.parametrize("stage", INPUT_STAGES)
@pytest.mark.parametrize("position", ["destination", "centroid"])
def test_kept_tubelets_keep_their_position(stage, position):
    """Rotary positions of V-JEPA 2 are those of the kept tubelet, not the centroid of its run."""
    model = long_clip_model("vjepa2", input=stage, input_keep=30, position=position).vjepa2
    seen = []
    handle = model.encoder.layer[0].register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["step"].tokens), with_kwargs=True
    )
    with torch.no_grad():
        trace = model(changing_clips(), skip_predictor=True, output_token_merging=True).token_merging
    handle.remove()
    [tokens] = seen
    for clip, source in enumerate(trace.layer_sources[1]):
        first = [source.tolist().index(token) for token in range(30)]  # runs begin with their kept tubelet
        expected = [[n // PATCHES, n % PATCHES // 4, n % 4] for n in first]
        assert tokens.position[clip].tolist() == expected


@pytest.mark.parametrize(("share", "kept"), [(2 / 3, 192), (0.3, 87), (0.5, 144), (0.01, 36), (0.07, 36), (1.0, 288)])
def test_a_share_is_rounded_up(share, kept):
    config = hf_video_tome.VideoMAEConfig(
        image_size=96, num_frames=16, token_merging_input="run_length", token_merging_input_keep=share
    )
    assert hf_video_tome.token_counts(config)[0] == kept


def test_pretraining_models_refuse_masked_inputs():
    decoder = {"decoder_hidden_size": 16, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 1}
    config = transformers.VideoMAEConfig(**{**TINY_CONFIGS["videomae"], **decoder})
    model = transformers.VideoMAEForPreTraining(config).eval()
    hf_video_tome.apply_token_merging(model, restore=True, input="run_length")
    masked = torch.zeros(3, PATCHES * FRAMES, dtype=torch.bool)
    masked[:, ::2] = True
    with pytest.raises(ValueError, match="does not support masked inputs"):
        model(draw_pixels(), bool_masked_pos=masked)
