"""Compiled and exported models compute what the models themselves do: `torch.compile`, `torch.export`, ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import RecompileError
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler
from torch.export import ExportedProgram

import hf_video_tome
from hf_video_tome.merging import (
    MergeSettings,
    TokenLayout,
    Tokens,
    bipartite_soft_matching,
    cosine_matching,
    merge_tokens,
    random_scores,
)
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

from .common import ALL_MODES, draw_pixels, logits_of

R = 3
BATCH_SIZES = (1, 2, 5)
LAYERS_FIELDS = ("num_hidden_layers", "num_spatial_layers")


def has_compiler() -> bool:
    """Whether inductor has what it makes its kernels with."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


needs_a_compiler = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler, which inductor needs")
every_architecture = pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))


def build(model_type: str, layers: int = 2, **settings: Any) -> nn.Module:
    """A model of few layers, which merge."""
    architecture, fields = ARCHITECTURES[model_type], dict(TINY_CONFIGS[model_type])
    fields |= {name: layers for name in LAYERS_FIELDS if name in fields}
    fields |= {f"token_merging_{name}": value for name, value in {"r": R, **settings}.items()}
    config = architecture.config_class(**fields)
    torch.manual_seed(0)
    return architecture.head_class(config).eval()


def open_batch(model: nn.Module) -> dict[str, Any]:
    return {model.main_input_name: {0: torch.export.Dim("batch", min=1, max=64)}}


class Matcher(nn.Module):
    """A matching as a module, which exporters want."""

    def __init__(self, match: Any) -> None:
        super().__init__()
        self.match = match

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.match(x))


# torch.jit


@every_architecture
def test_a_traced_model_computes_what_the_model_does(model_type: str) -> None:
    model = build(model_type)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; sizes become constants, as they are meant to
        traced = torch.jit.trace(model, draw_pixels(0), strict=False, check_trace=False)
        torch.testing.assert_close(traced(draw_pixels(1))["logits"], model(draw_pixels(1)).logits)


# torch.compile


class Merger(nn.Module):
    """All of a model that depends on the mode: merging, and the sizes that it leaves to attention."""

    def __init__(self, mode: str, threshold: float | None, sizes: Tensor | None = None) -> None:
        super().__init__()
        self.layout, self.settings = TokenLayout(1, 2, 16), MergeSettings(mode=mode, threshold=threshold)
        self.sizes = sizes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        state = Tokens(size=self.sizes)
        for r in (6, 5) if self.sizes is None else (6,):
            x, state = merge_tokens(x, x, r, state, self.layout, self.settings)
        return x, torch.ones(()) if state.size is None else state.size


def compile_and_count(module: nn.Module) -> tuple[nn.Module, CompileCounterWithBackend]:
    """As one graph, which runs as it is: how it is captured is what depends on the package."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    return torch.compile(module, fullgraph=True, backend=counter), counter


@every_architecture
def test_a_compiled_model_is_one_graph(model_type: str) -> None:
    model = build(model_type, proportional_attention=True)
    compiled, counter = compile_and_count(model)
    for seed in range(2):
        torch.testing.assert_close(logits_of(compiled, draw_pixels(seed)), logits_of(model, draw_pixels(seed)))
    assert counter.frame_count == 1


def test_a_compiled_model_follows_a_change_of_settings() -> None:
    """Each choice is one graph, which stays for later."""
    model, choices = build("vivit", layers=1), [{"r": R}, {"r": 0}, {"r": R, "mode": "drop"}]
    compiled, counter = compile_and_count(model)
    for number, settings in enumerate([*choices, choices[0] | {"mode": "merge"}], start=1):
        model.set_token_merging(**settings)
        torch.testing.assert_close(logits_of(compiled, draw_pixels()), logits_of(model, draw_pixels()))
        assert counter.frame_count == min(number, len(choices))


@pytest.mark.parametrize(("mode", "threshold"), ALL_MODES)
def test_every_mode_compiles_as_one_graph_and_once(mode: str, threshold: float | None) -> None:
    merger = Merger(mode, threshold)
    compiled, counter = compile_and_count(merger)
    for seed in range(2):
        x = torch.randn(2, 33, 8)
        torch.manual_seed(seed)
        expected = merger(x)
        torch.manual_seed(seed)
        for actual, same in zip(compiled(x), expected, strict=True):
            torch.testing.assert_close(actual, same)
    assert counter.frame_count == 1


@needs_a_compiler
def test_the_default_compiler_computes_what_the_model_does_and_compiles_once() -> None:
    """Inductor, which the tests above leave out for its time: it calls a C++ compiler for every kernel."""
    torch._dynamo.reset()
    model = build("videomae", layers=1)
    compiled = torch.compile(model, fullgraph=True)
    for number in range(2):
        pixel_values = draw_pixels(number)
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            logits = logits_of(compiled, pixel_values)
        torch.testing.assert_close(logits, logits_of(model, pixel_values), rtol=1e-4, atol=1e-5)
    model.set_token_merging(mode="drop")
    with torch._dynamo.config.patch(error_on_recompile=True), pytest.raises(RecompileError):
        logits_of(compiled, pixel_values)


@needs_a_compiler
def test_in_half_precision_the_compiler_computes_what_the_kernels_for_cpus_do() -> None:
    """Uncompiled models have kernels of their own without gradients on CPUs, which compiled ones do not run.

    The pairs are random: by similarity, another rounding in half precision can choose another pair.
    """
    torch._dynamo.reset()
    dtype, tolerance = torch.bfloat16, 0.1
    model, pixel_values = build("vivit", mode="random_merge").to(dtype), draw_pixels(dtype=dtype)
    compiled = torch.compile(model, fullgraph=True, options={"fallback_random": True})
    torch.manual_seed(0)
    expected = logits_of(model, pixel_values)
    torch.manual_seed(0)
    torch.testing.assert_close(logits_of(compiled, pixel_values), expected, rtol=0, atol=tolerance)
    assert not torch.allclose(logits_of(model, pixel_values), expected, atol=2 * tolerance)  # other pairs


# torch.export


def export(model: nn.Module, strict: bool = False) -> ExportedProgram:
    inputs = {model.main_input_name: draw_pixels()}
    return torch.export.export(model, (), inputs, dynamic_shapes=open_batch(model), strict=strict)


def check_saved(program: ExportedProgram, model: nn.Module, path: Path) -> None:
    torch.export.save(program, path)
    loaded = torch.export.load(path).module()
    for batch_size in BATCH_SIZES:
        pixel_values = draw_pixels(7, batch_size)
        with torch.no_grad():
            logits = loaded(**{model.main_input_name: pixel_values}).logits
        torch.testing.assert_close(logits, logits_of(model, pixel_values))


# All are exported with an open batch on their way to ONNX, below.
def test_a_saved_program_runs_batches_of_any_size(tmp_path: Path) -> None:
    model = build("vivit", layers=1)
    check_saved(export(model), model, tmp_path / "model.pt2")


def test_a_program_can_be_made_by_the_strict_tracer(tmp_path: Path) -> None:
    """Which is that of torch.compile: the tests above run it for every architecture."""
    model = build("videomae", layers=1)
    check_saved(export(model, strict=True), model, tmp_path / "model.pt2")


def test_a_program_can_be_for_one_shape() -> None:
    model = build("videomae", layers=1, mode="drop")
    program = torch.export.export(model, (draw_pixels(),)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(draw_pixels(7)).logits, model(draw_pixels(7)).logits)
        with pytest.raises((AssertionError, RuntimeError), match="3"):
            program(draw_pixels(7, batch_size=2))


@pytest.mark.parametrize("mode", ["random_merge", "random_drop"])
def test_random_modes_export_with_an_open_batch(mode: str) -> None:
    model = build("videomae", layers=1, mode=mode)
    module = export(model).module()
    for batch_size in BATCH_SIZES:
        pixel_values = draw_pixels(7, batch_size)
        torch.manual_seed(0)
        expected = logits_of(model, pixel_values)
        torch.manual_seed(0)
        with torch.no_grad():
            torch.testing.assert_close(module(pixel_values=pixel_values).logits, expected)


def test_many_tokens_export_with_an_open_batch() -> None:
    """Scores of many tokens are computed block by block, and a graph has a fixed number of these."""
    metric = torch.randn(3, 1, 40, 8)
    matcher = Matcher(lambda x: cosine_matching(x, r=9, block_size=100))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(matcher, (metric,), dynamic_shapes=({0: batch},)).module()
    for batch_size in BATCH_SIZES:
        metric = torch.randn(batch_size, 1, 40, 8)
        torch.testing.assert_close(program(metric), matcher(metric))


# ONNX


def to_onnx(model: nn.Module, *args: Tensor, **kwargs: Any) -> onnxruntime.InferenceSession:
    program = torch.onnx.export(model, args, dynamo=True, verbose=False, optimize=False, **kwargs)
    assert program is not None
    return onnxruntime.InferenceSession(program.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])


# Two layers of ViViT, and the optimiser, which takes long, are in `test_export_example.py`; VideoMAE, which attends as
# ViViT does, is exported by the page on it. Of the others one layer merges.
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES.keys() - {"vivit", "videomae"}))
def test_onnx_runs_batches_of_any_size(model_type: str) -> None:
    model = build(model_type, layers=1, proportional_attention=True)
    name = model.main_input_name
    inputs = {name: draw_pixels()}
    session = to_onnx(model, kwargs=inputs, output_names=["logits"], dynamic_shapes=open_batch(model))
    assert session.get_inputs()[0].shape[0] == "batch"
    for batch_size in BATCH_SIZES:
        pixel_values = draw_pixels(7, batch_size)
        logits = torch.from_numpy(session.run(["logits"], {name: pixel_values.numpy()})[0])
        torch.testing.assert_close(logits, logits_of(model, pixel_values), rtol=1e-4, atol=1e-4)


def test_onnx_knows_every_mode() -> None:
    # A step that finds sizes does all that one without them does: of one mode, both are in the graph.
    sizes = torch.randint(1, 4, (2, 33)).float()
    modes = [*ALL_MODES, ("cluster", None)]
    mergers = {mode: Merger(mode, threshold, None if mode == "merge" else sizes) for mode, threshold in modes}
    together = Matcher(lambda x: (y for merger in mergers.values() for y in merger(x)))
    session = to_onnx(together, torch.randn(2, 33, 8))
    x = torch.randn(2, 33, 8)
    first, second = (iter(session.run(None, {"x": x.numpy()})) for _ in range(2))
    for mode, merger in mergers.items():
        for expected in merger(x):
            actual, again = torch.from_numpy(next(first)), torch.from_numpy(next(second))
            assert actual.shape == expected.shape
            if not mode.startswith("random"):
                torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
                assert torch.equal(actual, again)
            elif actual.ndim == 3:  # states: merged at random anew, by a generator that is not PyTorch's
                assert actual.isfinite().all()
                assert not torch.allclose(actual, again, atol=1e-3)


@pytest.mark.parametrize(("stage", "r"), [("run_length", 4), ("temporal_difference", 0), ("random", 0)])
def test_onnx_knows_every_input_stage(stage: str, r: int) -> None:
    config = hf_video_tome.VideoMAEConfig(**{**TINY_CONFIGS["videomae"], "num_hidden_layers": 1, "num_frames": 8})
    config.update_token_merging(input=stage, input_keep=0.5, r=r)
    torch.manual_seed(0)
    model = hf_video_tome.VideoMAEForVideoClassification(config).eval()
    clips = torch.randn(2, 8, 3, 32, 32)
    session = to_onnx(model, clips, output_names=["logits"])
    [logits] = session.run(["logits"], {session.get_inputs()[0].name: clips.numpy()})
    assert np.isfinite(logits).all()
    if stage != "random":
        torch.testing.assert_close(torch.from_numpy(logits), logits_of(model, clips), rtol=1e-4, atol=1e-4)


def test_onnx_draws_random_scores_anew() -> None:
    session = to_onnx(Matcher(lambda x: (random_scores(x),)), torch.zeros(2, 1, 41, 8))
    first, second = (session.run(None, {"x": torch.zeros(2, 1, 41, 8).numpy()})[0] for _ in range(2))
    assert first.shape == (2, 1, 21, 20)
    assert 0 <= first.min() < 0.1
    assert 0.9 < first.max() < 1
    assert (first != second).any()


@pytest.mark.parametrize("num_protected", [0, 1])
def test_onnx_breaks_ties_alike(num_protected: int) -> None:
    """Of pairs that are equally alike, as in a clip of black frames, those that come first are taken."""
    matcher = Matcher(lambda x: bipartite_soft_matching(x, r=9, num_protected=num_protected)[:4])
    session = to_onnx(matcher, torch.rand(2, 1, 21, 20))
    scores = torch.randint(3, (2, 1, 21, 20), generator=torch.Generator().manual_seed(0)).float()
    for actual, expected in zip(session.run(None, {"x": scores.numpy()}), matcher(scores), strict=True):
        torch.testing.assert_close(torch.from_numpy(actual), expected)
