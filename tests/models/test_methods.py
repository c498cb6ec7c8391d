"""The contracts of every method on every architecture that supports it: see `methods.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.merging import INPUT_STAGES, MODES, SettingError
from hf_video_tome.models import ARCHITECTURES
from tests.merging.mode_families import ALL_MODES
from tests.tiny import TINY_CONFIGS

from .methods import METHODS, Method

FRAMES = 8  # 4 slots of 16 patches for tubelets of 2 frames
FRAMES_FIELDS = {"vjepa2": "frames_per_clip"}


def configure(model_type: str, settings: dict[str, Any], **config: Any) -> Any:
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    size = {FRAMES_FIELDS.get(model_type, "num_frames"): FRAMES}
    return ARCHITECTURES[model_type].config_class(**{**TINY_CONFIGS[model_type], **size, **config, **fields})


def build(model_type: str, settings: dict[str, Any], **config: Any) -> Any:
    torch.manual_seed(0)
    return ARCHITECTURES[model_type].head_class(configure(model_type, settings, **config)).eval()


def is_supported(model_type: str, name: str) -> bool:
    try:
        configure(model_type, METHODS[name].settings).token_merging_plan()
    except SettingError:
        return False
    return True


SUPPORTED = {name: [model_type for model_type in ARCHITECTURES if is_supported(model_type, name)] for name in METHODS}
EVERY_CASE = [(name, model_type) for name, supported in SUPPORTED.items() for model_type in supported]
# Another architecture from method to method: what is the same code is not run on all of them.
ONE_EACH = [(name, supported[i % len(supported)]) for i, (name, supported) in enumerate(SUPPORTED.items())]
# Graphs take seconds, and those of V-JEPA 2 twice as long, for a head that `test_export.py` makes graphs of.
GRAPHS = [
    (name, model_type if model_type != "vjepa2" else next(it for it in SUPPORTED[name] if it != "vjepa2"))
    for name, model_type in ONE_EACH
]


def clips(dtype: torch.dtype = torch.float32) -> Tensor:
    """A nearly still clip, one in which the left half moves, and noise."""
    noise = torch.randn(3, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    still = noise[:, :1] + 0.01 * noise
    half = still.clone()
    half[..., :16] = noise[..., :16]
    return torch.stack((still[0], half[1], noise[2])).to(dtype)


def is_adaptive(method: Method) -> bool:
    return MODES[method.settings.get("mode", "merge")].adaptive or "input_threshold" in method.settings


@torch.no_grad()
def run(model: Any, pixel_values: Tensor, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return model(pixel_values, output_token_merging=True, output_hidden_states=True)


def is_random(method: Method) -> bool:
    return "random" in repr(method.settings)


def test_every_method_is_here() -> None:
    modes = {method.settings.get("mode", "merge") for method in METHODS.values()}
    assert set(MODES) - set(ALL_MODES) <= modes
    assert set(INPUT_STAGES) <= {method.settings.get("input") for method in METHODS.values()}
    assert all(SUPPORTED.values()), SUPPORTED


@pytest.fixture
def method(name: str) -> Method:
    return METHODS[name]


@pytest.fixture
def model(method: Method, model_type: str) -> Any:
    return build(model_type, method.settings)


@pytest.mark.parametrize(("name", "model_type"), EVERY_CASE)
class TestEveryArchitecture:
    def test_counts_are_known_and_fewer(self, model: Any, method: Method) -> None:
        outputs = run(model, clips())
        counts, full = hf_video_tome.token_counts(model), model.config.token_layout.num_tokens
        trace = outputs.token_merging
        assert trace.token_counts[0] == full
        if is_adaptive(method):
            assert all(own <= most for own, most in zip(trace.token_counts, counts, strict=True) if most < full)
            assert len(set(trace.clip_token_counts[:, -1].tolist())) > 1, "not adaptive"
        else:
            assert list(trace.token_counts[1:]) == counts[1:]
        assert (trace.clip_token_counts[:, -1] < full).all()
        unmerged = build(model.config.model_type, {})
        assert is_adaptive(method) or hf_video_tome.mac_count(model).total < hf_video_tome.mac_count(unmerged).total

    def test_the_trace_adds_up(self, model: Any, method: Method) -> None:
        trace, full = run(model, clips()).token_merging, model.config.token_layout.num_tokens
        assert bool((trace.sources < 0).any()) == method.drops
        for source, size in zip(trace.layer_sources, trace.layer_sizes, strict=True):
            counted = torch.zeros_like(size).scatter_add(1, source.clamp_min(0), (source >= 0).to(size.dtype))
            if not method.drops:
                torch.testing.assert_close(counted, size)
                assert (size.sum(dim=1) == full).all()
            assert (counted[size > 0] > 0).all() or method.drops
        assert trace.unmerge(trace.sizes.unsqueeze(-1)).shape == (3, full, 1)

    def test_a_batch_gives_each_clip_what_it_would_get_alone(self, model: Any, method: Method) -> None:
        if is_random(method):
            pytest.skip("random numbers depend on the batch")
        # The attention of transformers' VideoPrism has a softmax in float32.
        tolerance = 1e-5 if model.config.model_type == "videoprism_vision_model" else 1e-9
        model, pixel_values = model.double(), clips(torch.float64)
        together = run(model, pixel_values)
        for index in range(len(pixel_values)):
            alone = run(model, pixel_values[index : index + 1])
            torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=tolerance, atol=tolerance)
            own = alone.token_merging.clip_token_counts[0]
            assert torch.equal(together.token_merging.clip_token_counts[index], own)


@pytest.mark.parametrize(("name", "model_type"), ONE_EACH)
class TestOneArchitecture:
    def test_a_second_call_equals_the_first(self, model: Any) -> None:
        first = run(model, clips()).logits
        run(model, clips()[:2])
        assert torch.equal(run(model, clips()).logits, first)

    def test_it_changes_the_answer_and_nothing_merged_does_not(self, model: Any) -> None:
        stock = build(model.config.model_type, {})
        merged, unmerged = run(model, clips()).logits, run(stock, clips()).logits
        assert (merged - unmerged).abs().max() > 1e-4
        model.set_token_merging(r=0, input=None, input_keep=None, input_threshold=None)
        assert torch.equal(run(model, clips()).logits, unmerged)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, model: Any, dtype: torch.dtype) -> None:
        assert run(model.to(dtype), clips(dtype)).logits.isfinite().all()

    def test_checkpointing_changes_no_gradient(self, model: Any) -> None:
        gradients = []
        for checkpointing in (False, True):
            model.zero_grad()
            if checkpointing:
                if not model.supports_gradient_checkpointing:
                    pytest.skip("transformers has none")
                model.gradient_checkpointing_enable()
                model.train()
            torch.manual_seed(0)
            model(clips(), labels=torch.tensor([1, 0, 5])).loss.backward()
            gradients.append([it.grad.clone() for it in model.parameters() if it.grad is not None])
        assert all(gradient.isfinite().all() for gradient in gradients[0])
        for own, checkpointed in zip(*gradients, strict=True):
            torch.testing.assert_close(own, checkpointed, rtol=1e-4, atol=1e-5)

    def test_a_saved_model_has_the_same_settings(self, model: Any, tmp_path: Path) -> None:
        model.save_pretrained(tmp_path)
        loaded = AutoModelForVideoClassification.from_pretrained(tmp_path).eval()
        assert loaded.config.token_merging_plan() == model.config.token_merging_plan()
        assert torch.equal(run(loaded, clips()).logits, run(model, clips()).logits)

    def test_hidden_states_belong_to_the_trace(self, model: Any) -> None:
        if model.config.default_token_merging_scope != "clip":
            pytest.skip("of frames, not of a clip: see the tests of the architecture")
        outputs = run(model, clips())
        lengths = [states.shape[1] for states in outputs.hidden_states]
        assert lengths[1:] == list(outputs.token_merging.token_counts[1:])


@pytest.fixture
def one_layer(method: Method, model_type: str) -> Any:
    """As few layers as the settings are for: each takes a second to make a graph of."""
    layers = len(method.settings.get("thresholds", [0]))
    field = "num_spatial_layers" if model_type == "videoprism_vision_model" else "num_hidden_layers"
    return build(model_type, method.settings, **{field: layers})


WHY_NOT = r"depends on the clip|not be compiled|cannot be compiled"


@pytest.mark.parametrize(("name", "model_type"), GRAPHS)
class TestGraphs:
    def test_it_is_one_graph_or_says_why_not(self, one_layer: Any, method: Method) -> None:
        torch._dynamo.reset()
        compiled = torch.compile(one_layer, fullgraph=True, backend="eager")
        if not method.compiles:
            with pytest.raises(Exception, match=WHY_NOT):
                compiled(clips())
            return
        torch.manual_seed(0)
        with torch.no_grad():
            logits = compiled(clips()).logits
        if not is_random(method):
            torch.testing.assert_close(logits, run(one_layer, clips()).logits, rtol=1e-4, atol=1e-4)

    def test_a_program_can_be_exported(self, one_layer: Any, method: Method) -> None:
        if not method.compiles:
            with pytest.raises(Exception, match=WHY_NOT):
                torch.export.export(one_layer, (clips(),), strict=False)
            return
        program = torch.export.export(one_layer, (clips(),), strict=False)
        logits = program.module()(clips()).logits
        if not is_random(method):
            torch.testing.assert_close(logits, run(one_layer, clips()).logits, rtol=1e-4, atol=1e-4)
