"""Forms that compute the same in less time: each against the plain form, alone and inside of the models."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_video_tome.merging import Plan
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.models.cpu import block_attention
from hf_video_tome.models.cpu.block_attention import attend_in_blocks, is_faster_in_blocks
from hf_video_tome.models.cpu.embed_tubelets import _tubelets_by_matrix, embed_tubelets
from hf_video_tome.models.fused_activation import fused_activation

from ..tiny import TINY_CONFIGS
from .common import OperationCounter, draw_pixels, logits_of

SDPA_ARCHITECTURES = [name for name in ARCHITECTURES if name != "videoprism_vision_model"]  # its soft-cap is eager's


# Context and residual of each of three layers, but not of a last one that computes CLS only; places in V-JEPA 2. Of
# TimeSformer and VideoPrism, which merge after the output projection, the states alone.
TENSORS_THAT_MERGE = {
    "videomae": 3 * 2,
    "vivit": 2 * 2,
    "timesformer": 2,
    "vjepa2": 3 * 3,
    "videoprism_vision_model": 3,
    "motionformer": 2 * 2,
}


@pytest.fixture(params=[True, False], ids=["blocks", "fused kernel"])
def in_blocks(request, monkeypatch):
    """Both kinds of CPUs: those on which blocks are faster, and all others."""
    monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", request.param)
    return request.param


def build(
    name: str, dtype: torch.dtype, implementation: str = "sdpa", r: int = 3, layers: int | None = None
) -> nn.Module:
    architecture, fields = ARCHITECTURES[name], dict(TINY_CONFIGS[name])
    if layers is not None:
        fields["num_hidden_layers"] = layers
    config = architecture.config_class(**fields, token_merging_r=r)
    config._attn_implementation = implementation
    torch.manual_seed(0)
    return architecture.head_class(config).to(dtype).eval()


class TestAttentionInBlocks:
    @pytest.mark.parametrize("num_queries", [1, 7, 50])
    @pytest.mark.parametrize("num_keys", [1, 9, 50])
    @pytest.mark.parametrize("biased", [False, True])
    # One row, some rows, some rows with a rest, some heads with a rest, everything.
    @pytest.mark.parametrize("block_bytes", [1, 4000, 7 * 50 * 8, 3 * 50 * 50 * 8, 1 << 30])
    def test_it_is_attention(self, num_queries, num_keys, biased, block_bytes):
        torch.manual_seed(0)
        # As the models have them: heads are no outer dimension in memory.
        query, key, value = (
            torch.randn(2, n, 4, 16, dtype=torch.float64).transpose(1, 2) for n in (num_queries, num_keys, num_keys)
        )
        bias = torch.randn(2, 1, 1, num_keys, dtype=torch.float64) if biased else None
        expected = scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.3).transpose(1, 2)
        actual = attend_in_blocks(query, key, value, bias, 0.3, block_bytes)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)

    def test_it_is_for_half_precision_on_cpus_without_gradients(self, monkeypatch):
        monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", True)
        query = torch.randn(1, 2, 3, 4, dtype=torch.bfloat16)
        with torch.no_grad():
            assert is_faster_in_blocks(query, training=False)
            assert not is_faster_in_blocks(query.float(), training=False)
            assert not is_faster_in_blocks(query.to("meta"), training=False)
            # Checkpointed layers of a training run without gradients first, then with them.
            assert not is_faster_in_blocks(query, training=True)
        assert not is_faster_in_blocks(query, training=False)

    def test_it_is_not_for_programs_that_go_to_other_machines(self, monkeypatch):
        monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", True)
        model, pixel_values = build("videomae", torch.bfloat16, layers=1), draw_pixels().bfloat16()
        with torch.no_grad():
            assert "attend_in_blocks" not in str(torch.export.export(model, (pixel_values,)).graph)

    @pytest.mark.parametrize("num_queries", [5, 50])  # all queries of some heads, some queries of one
    @pytest.mark.parametrize("biased", [False, True])
    def test_it_is_an_operator_for_compilers(self, num_queries, biased):
        query, key, value = (torch.randn(2, n, 4, 16).transpose(1, 2) for n in (num_queries, 50, 50))
        bias = torch.randn(2, 1, 1, 50) if biased else None
        torch.library.opcheck(block_attention._attend_in_blocks, (query, key, value, bias, 0.25, 3000))

    def test_a_compiled_model_attends_in_blocks_in_one_graph(self, monkeypatch):
        monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", True)
        graphs = []

        def backend(graph, example_inputs):
            graphs.append(str(graph.graph))
            return graph.forward

        # Nothing merges, as rounding may lead to other pairs; the trace keeps it from being the stock model.
        model, pixel_values = build("vivit", torch.bfloat16, r=0, layers=1), draw_pixels().bfloat16()
        compiled = torch.compile(model, backend=backend, fullgraph=True)
        with torch.no_grad():
            expected = model(pixel_values, output_token_merging=True).logits
            torch.testing.assert_close(compiled(pixel_values, output_token_merging=True).logits, expected)
        (graph,) = graphs
        assert "attend_in_blocks" in graph

    @pytest.mark.parametrize("name", SDPA_ARCHITECTURES)
    def test_logits_in_bfloat16_are_no_farther_off_than_those_of_eager_attention(self, name, in_blocks):
        pixel_values = draw_pixels()
        exact = logits_of(build(name, torch.float64, r=0), pixel_values.double())

        def error(implementation: str) -> float:
            # Nothing merges, as rounding may lead to other pairs; the trace keeps it from being the stock model.
            model = build(name, torch.bfloat16, implementation, r=0)
            with torch.no_grad():
                logits = model(pixel_values.bfloat16(), output_token_merging=True).logits
            return (logits.double() - exact).abs().max().item()

        assert error("sdpa") < 2 * error("eager") + 1e-3

    @pytest.mark.parametrize("name", SDPA_ARCHITECTURES)
    def test_blocks_are_what_runs_where_they_are_faster(self, name, in_blocks, monkeypatch):
        calls = itertools.count()
        original = attend_in_blocks
        monkeypatch.setattr(
            "hf_video_tome.models.attention.attend_in_blocks", lambda *args: (next(calls), original(*args))[1]
        )
        logits_of(build(name, torch.bfloat16), draw_pixels().bfloat16())
        assert (next(calls) > 0) == in_blocks


@pytest.mark.parametrize("name", SDPA_ARCHITECTURES)
def test_sdpa_weighs_tokens_by_a_channel_as_by_a_mask(name, monkeypatch):
    """On GPUs the channel keeps sdpa in its flash kernel; here both run on the CPU."""
    model, pixel_values = build(name, torch.float64), draw_pixels(dtype=torch.float64)
    model.set_token_merging(proportional_attention=True)
    by_mask = logits_of(model, pixel_values)
    asked = []
    monkeypatch.setattr("hf_video_tome.models.attention.takes_mask", lambda *args: bool(asked.append(args)))
    torch.testing.assert_close(logits_of(model, pixel_values), by_mask, rtol=0, atol=1e-9)
    assert asked


def operations_of(model: nn.Module, dtype: torch.dtype = torch.float32) -> list[str]:
    """What a forward call without gradients runs, operator by operator."""
    with OperationCounter() as counter:
        logits_of(model, draw_pixels(dtype=dtype))
    return counter.names


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weighted_means_are_one_kernel_for_every_tensor_that_merges(name, dtype):
    model = build(name, dtype, implementation="eager")
    assert sum("embedding_bag" in operation for operation in operations_of(model, dtype)) == TENSORS_THAT_MERGE[name]
    model.set_token_merging(r=0)
    assert not any("embedding_bag" in operation for operation in operations_of(model, dtype))


class TestTubelets:
    @pytest.mark.parametrize("shape", [(4, 3, 16, 24), (5, 3, 19, 27), (2, 1, 8, 4)])
    def test_the_matrix_product_is_the_convolution(self, shape):
        torch.manual_seed(0)
        projection = nn.Conv3d(shape[1], 6, kernel_size=(2, 8, 4), stride=(2, 8, 4)).double()
        pixel_values = torch.randn(2, *shape, dtype=torch.float64)
        expected = projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
        actual = _tubelets_by_matrix(projection.weight, projection.bias, pixel_values)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)

    def calls_of(self, projection: nn.Module, pixel_values: torch.Tensor) -> int:
        """How often the module itself is asked."""
        calls = []
        forward = type(projection).forward
        type(projection).forward = lambda self, x: (calls.append(1), forward(self, x))[1]
        try:
            embed_tubelets(projection, pixel_values)
        finally:
            type(projection).forward = forward
        return len(calls)

    def test_only_a_plain_convolution_in_half_precision_is_replaced(self):
        class Adapted(nn.Conv3d):
            pass

        def convolution(kind: type[nn.Conv3d] = nn.Conv3d) -> nn.Conv3d:
            return kind(3, 6, kernel_size=(2, 8, 8), stride=(2, 8, 8)).bfloat16()

        pixel_values = torch.randn(1, 4, 3, 16, 16, dtype=torch.bfloat16)
        assert self.calls_of(convolution(), pixel_values) == 1  # with gradients
        with torch.no_grad():
            assert self.calls_of(convolution(), pixel_values) == 0
            assert self.calls_of(convolution().float(), pixel_values.float()) == 1
            assert self.calls_of(convolution(Adapted), pixel_values) == 1
            hooked, seen = convolution(), []
            hooked.register_forward_hook(lambda *_: seen.append(1))
            embed_tubelets(hooked, pixel_values)
            assert seen == [1]

    @pytest.mark.parametrize("name", ["vivit", "vjepa2"])
    def test_merging_models_embed_by_it(self, name, monkeypatch):
        model, pixel_values, calls = build(name, torch.bfloat16), draw_pixels().bfloat16(), []
        expected = logits_of(model, pixel_values)
        embeddings = next(module for module in model.modules() if type(module).__name__.endswith("Embeddings"))

        def counted(*args):
            calls.append(1)
            return _tubelets_by_matrix(*args)

        monkeypatch.setattr("hf_video_tome.models.cpu.embed_tubelets._tubelets_by_matrix", counted)
        assert torch.equal(logits_of(model, pixel_values), expected)
        assert calls == [1]
        seen = []
        embeddings.register_forward_hook(lambda *_: seen.append(1))
        logits_of(model, pixel_values)
        assert seen == [1]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
    def test_vivit_embeds_in_the_form_that_is_faster_in_its_dtype(self, dtype):
        convolves = any("convolution" in operation for operation in operations_of(build("vivit", dtype), dtype))
        assert convolves == (dtype is torch.float32)


@pytest.mark.parametrize("name", ["gelu_fast", "gelu_new"])
def test_fused_activations_are_the_stock_ones(name):
    x = torch.linspace(-9, 9, 10001, dtype=torch.float64)
    assert fused_activation(ACT2FN[name]) is not ACT2FN[name]
    torch.testing.assert_close(fused_activation(ACT2FN[name])(x), ACT2FN[name](x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["gelu", "relu", "gelu_pytorch_tanh"])
def test_activations_that_are_one_kernel_stay(name):
    activation = ACT2FN[name]
    assert fused_activation(activation) is activation


def test_vivit_activates_by_one_kernel_in_every_layer():
    model = build("vivit", torch.float32)
    assert model.config.hidden_act == "gelu_fast"
    operations = operations_of(model)
    assert operations.count("aten.gelu.default") == model.config.num_hidden_layers
    assert not any("tanh" in operation for operation in operations)


def test_vivit_takes_other_modules_in_the_place_of_its_own():
    model, pixel_values = build("vivit", torch.float32), draw_pixels()
    expected = logits_of(model, pixel_values)
    for layer in model.vivit.layers:
        layer.mlp = nn.Sequential(layer.mlp, nn.Identity())
    model.vivit.embeddings.patch_embeddings = nn.Sequential(model.vivit.embeddings.patch_embeddings)
    torch.testing.assert_close(logits_of(model, pixel_values), expected)


def test_an_attention_function_of_ones_own_is_called(monkeypatch):
    monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", True)
    calls = []

    def own(*args, **kwargs):
        calls.append(1)
        return sdpa_attention_forward(*args, **kwargs)

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", own)
    logits_of(build("videomae", torch.bfloat16), draw_pixels().bfloat16())
    assert calls


def test_an_activation_that_somebody_looks_at_stays():
    activation = ACT2FN["gelu_fast"]
    handle = activation.register_forward_hook(lambda *_: None)
    assert fused_activation(activation) is activation
    handle.remove()


class TestLastLayer:
    """Heads that read CLS need nothing else of the last layer."""

    NAMES = ("vivit", "timesformer", "motionformer")

    @staticmethod
    def last_layer(model: nn.Module) -> nn.Module:
        base = model.base_model
        return (base.encoder.layer if hasattr(base, "encoder") else base.layers)[-1]

    @pytest.fixture
    def shortened(self, monkeypatch):
        """Whether the last layer returned CLS only, call by call."""
        shortened = []
        original = Plan.step

        def step(plan, layer, removed, tokens):
            made = original(plan, layer, removed, tokens)
            if layer == len(plan.requested) - 1:
                shortened.append(made.num_kept is not None)
            return made

        monkeypatch.setattr(Plan, "step", step)
        return shortened

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("r", [1, 3])
    def test_logits_are_the_same(self, name, r, shortened):
        model, pixel_values = build(name, torch.float64, r=r), draw_pixels(dtype=torch.float64)
        short = logits_of(model, pixel_values)
        whole = logits_of(model, pixel_values, output_hidden_states=True)
        assert shortened == [True, False]
        torch.testing.assert_close(short, whole, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("asked", ["output_hidden_states", "output_token_merging"])
    def test_what_is_asked_for_is_whole(self, name, asked, shortened):
        model = build(name, torch.float32, "eager")
        with torch.no_grad():
            outputs = model(draw_pixels(), **{asked: True})
        assert shortened == [False]
        if asked == "output_hidden_states":
            assert outputs.hidden_states[-1].shape[1] > 1

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("place", ["layer", "part of the layer", "base model"])
    @pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook"])
    def test_nothing_is_left_out_where_somebody_may_look(self, name, place, kind, shortened):
        model = build(name, torch.float32)
        layer = self.last_layer(model)
        places = {"layer": layer, "part of the layer": list(layer.children())[-1], "base model": model.base_model}
        handle = getattr(places[place], f"register_{kind}")(lambda *_: None)
        logits_of(model, draw_pixels())
        handle.remove()
        logits_of(model, draw_pixels())
        assert shortened == [False, True]

    @pytest.mark.parametrize("name", NAMES)
    def test_hooks_on_all_modules_count(self, name, shortened):
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        try:
            logits_of(build(name, torch.float32), draw_pixels())
        finally:
            handle.remove()
        assert shortened == [False]

    @pytest.mark.parametrize("name", NAMES)
    def test_hidden_states_asked_for_once_do_not_slow_later_calls(self, name, shortened):
        model = build(name, torch.float32)
        logits_of(model, draw_pixels(), output_hidden_states=True)
        logits_of(model, draw_pixels())
        assert shortened == [False, True]

    @pytest.mark.parametrize("name", NAMES)
    def test_with_gradients_no_parameter_goes_without(self, name, shortened):
        model = build(name, torch.float32)
        model(draw_pixels()).logits.sum().backward()
        assert shortened == [False]
        assert all(parameter.grad is not None for parameter in self.last_layer(model).parameters())

    @pytest.mark.parametrize("name", NAMES)
    def test_dropout_that_is_left_on_draws_for_all_tokens(self, name, shortened):
        model = build(name, torch.float32)
        next(module for module in model.base_model.modules() if isinstance(module, nn.Dropout)).train()
        logits_of(model, draw_pixels())
        assert shortened == [False]

    @pytest.mark.parametrize("name", NAMES)
    def test_training_computes_all_tokens(self, name, shortened):
        build(name, torch.float32).train()(draw_pixels())
        assert shortened == [False]

    @pytest.mark.parametrize("name", NAMES)
    def test_the_base_model_returns_all_tokens(self, name, shortened):
        with torch.no_grad():
            states = build(name, torch.float32).base_model(draw_pixels()).last_hidden_state
        assert shortened == [False]
        assert states.shape[1] > 1
