"""The benchmark without its command: order, arithmetic, memory, shared weights, tables and pictures."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

import hf_video_tome
from hf_video_tome.benchmark import (
    BenchmarkResults,
    MeasuredVariant,
    Memory,
    ModelPool,
    Ratio,
    Variant,
    interleave,
    machine,
    make_variants,
    peak_memory,
    ratio,
    run_benchmark,
    stopwatch,
)
from hf_video_tome.benchmark.page import columns, describe_conditions, footnotes, rows, write_page
from hf_video_tome.benchmark.plot import curves, save_plot
from hf_video_tome.benchmark.results import OUT_OF_MEMORY
from hf_video_tome.benchmark.runner import BenchmarkError, num_passes
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]


def stock_model(name: str = "videomae", **fields: Any) -> Any:
    architecture = ARCHITECTURES[name]
    return architecture.stock_head_class(architecture.stock_config_class(**{**TINY_CONFIGS[name], **fields})).eval()


class Recorder:
    """A timer that notes what it timed, and says that each pass took as long as it has tokens in it."""

    def __init__(self) -> None:
        self.order: list[tuple[str, Any]] = []

    def __call__(self, run: Callable[[], Any]) -> float:
        run()
        return 1.0


# --- timing
def test_variants_take_turns_and_getting_ready_is_not_timed() -> None:
    now, events = [0.0], []

    def prepare(name: str, seconds: float) -> Callable[[], Callable[[], None]]:
        def ready() -> Callable[[], None]:
            now[0] += 100  # were it timed, it would show

            def work() -> None:
                events.append(name)
                now[0] += seconds

            return work

        return ready

    steps = []
    runs = [prepare("A", 1), prepare("B", 2), prepare("C", 4)]
    seconds = interleave(runs, 3, stopwatch(lambda: now[0]), lambda: steps.append(len(events)))
    assert events == ["A", "B", "C"] * 3
    assert seconds == [[1, 1, 1], [2, 2, 2], [4, 4, 4]]
    assert steps == list(range(1, 10))


def test_what_slows_a_whole_round_cancels() -> None:
    slow = [1.0, 5.0, 1.0, 2.0]
    assert ratio([2 * factor for factor in slow], slow) == Ratio(2, 2, 2)


# --- running
def test_the_order_of_a_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[bool, int, int]] = []
    architecture = ARCHITECTURES["videomae"]
    for head_class in (architecture.stock_head_class, architecture.head_class):
        forward = head_class.forward

        def noting(self: Any, pixel_values: torch.Tensor, *, forward: Any = forward, **kwargs: Any) -> Any:
            stock = type(self) is architecture.stock_head_class
            calls.append((stock, 0 if stock else self.config.token_merging_r, len(pixel_values)))
            assert not self.training
            assert torch.is_inference_mode_enabled()
            return forward(self, pixel_values, **kwargs)

        monkeypatch.setattr(head_class, "forward", noting)
    variants = make_variants(
        [{"r": 2}, {"r": 5}], dtypes=["float32"], attn_implementations=["sdpa"], stock_attn_implementations=["sdpa"]
    )
    passes = []
    measured = run_benchmark(
        stock_model(),
        variants,
        device=CPU,
        batch_sizes=[3, 1],
        warmup=1,
        rounds=2,
        with_memory=False,
        timer=Recorder(),
        advance=lambda: passes.append(1),
    )
    turn = [(True, 0), (False, 2), (False, 5)]
    expected = [(*one, size) for size in (3, 1) for _ in range(1 + 1 + 2) for one in turn]
    assert calls == expected
    assert len(passes) == len(calls) == num_passes(len(variants), 2, 1, 2)
    assert [entry.batch_size for entry in measured] == [3] * 3 + [1] * 3
    assert all(entry.seconds == [1.0, 1.0] for entry in measured)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_models_share_weights_and_are_what_they_are_called(name: str) -> None:
    architecture, source = ARCHITECTURES[name], stock_model(name)
    pool = ModelPool(source, CPU)
    stock, merging = pool.model(Variant("float32", "eager")), pool.model(Variant("float32", "eager", {"r": 3}))
    assert type(stock) is architecture.stock_head_class
    assert type(merging) is architecture.head_class
    assert all(a is b for a, b in zip(stock.parameters(), merging.parameters(), strict=True))
    half = pool.model(Variant("bfloat16", "eager"))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert {parameter.dtype for parameter in stock.parameters()} == {torch.float32}
    assert stock.config._attn_implementation == merging.config._attn_implementation == "eager"
    clip = torch.randn(1, *merging.config.clip_shape)
    with torch.inference_mode():
        source.set_attn_implementation("eager") if name != "timesformer" else None
        expected = source(clip).logits.reshape(1, -1)
        torch.testing.assert_close(stock(clip).logits.reshape(1, -1), expected, rtol=0, atol=0)
        assert not torch.equal(merging(clip).logits, expected)


def test_settings_of_one_variant_do_not_stay_for_the_next() -> None:
    pool = ModelPool(stock_model(), CPU)
    first = Variant("float32", "sdpa", {"r": 3, "mode": "drop", "schedule": "decreasing"})
    assert pool.model(first).config.token_merging_mode == "drop"
    config = pool.model(Variant("float32", "sdpa", {"r": 4})).config
    assert (config.token_merging_r, config.token_merging_mode, config.token_merging_schedule) == (
        4,
        "merge",
        "constant",
    )


def test_a_variant_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stock_class = ARCHITECTURES["videomae"].stock_head_class
    forward = stock_class.forward

    def too_large(self: Any, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        if self.config._attn_implementation == "eager":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pixel_values, **kwargs)

    monkeypatch.setattr(stock_class, "forward", too_large)
    variants = [Variant("float32", "sdpa"), Variant("float32", "eager"), Variant("float32", "sdpa", {"r": 2})]
    measured = run_benchmark(stock_model(), variants, device=CPU, warmup=0, rounds=2)
    assert [entry.failure for entry in measured] == [None, OUT_OF_MEMORY, None]
    assert [len(entry.seconds) for entry in measured] == [2, 0, 2]
    results = BenchmarkResults(conditions(), measured)
    assert results.speedup(measured[2], "eager") is None
    assert "out of memory" in rows(results, 1)[1]
    assert "Variants without numbers did not fit in memory." in footnotes(results)
    assert BenchmarkResults.from_dict(json.loads(json.dumps(results.to_dict()))) == results


def test_what_cannot_run_says_which_variant_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such kernel\nwith details")

    monkeypatch.setattr(ARCHITECTURES["videomae"].head_class, "forward", fail)
    with pytest.raises(BenchmarkError, match=r"^r = 2, sdpa, fp32 cannot run here: no such kernel$"):
        run_benchmark(stock_model(), [Variant("float32", "sdpa", {"r": 2})], device=CPU, rounds=2)


# --- memory
def test_peak_memory_is_what_is_alive_at_once() -> None:
    kept = torch.zeros(1_000_000)

    def one_after_the_other() -> None:
        for _ in range(5):
            kept + 1

    def together() -> object:
        copies = [kept + 1 for _ in range(5)]
        return sum(copies[1:], copies[0]) is None

    peak = peak_memory(one_after_the_other, CPU)
    assert peak == pytest.approx(4_000_000, rel=0.01)
    assert peak_memory(together, CPU) == pytest.approx(6 * 4_000_000, rel=0.2)


def test_eager_attention_needs_more_memory_than_fused() -> None:
    model = stock_model("vivit", num_frames=16, image_size=64)
    variants = [Variant("float32", "sdpa"), Variant("float32", "eager"), Variant("float32", "sdpa", {"r": 100})]
    measured = run_benchmark(model, variants, device=CPU, warmup=0, rounds=2)
    fused, eager, merging = (entry.memory for entry in measured)
    assert fused is not None
    assert eager is not None
    assert merging is not None
    tokens = measured[0].token_counts[0]
    assert eager.peak_bytes > fused.peak_bytes + 4 * tokens**2 * 4  # the weights of four heads
    assert fused.weight_bytes == eager.weight_bytes == merging.weight_bytes
    assert fused.weight_bytes == sum(parameter.numel() * 4 for parameter in model.parameters())


# --- results
def conditions() -> dict[str, Any]:
    return {
        "model": "videomae",
        "model_type": "videomae",
        "weights": "random",
        "config": {"hidden_size": 32},
        "clip_shape": [4, 3, 32, 32],
        "dtypes": ["float32"],
        "batch_sizes": [1],
        "warmup": 0,
        "rounds": 3,
        "seed": 0,
        **machine(CPU),
        "command": "hf-video-tome benchmark videomae --r 8",
    }


def measured(variant: Variant, seconds: list[float], batch_size: int = 1) -> MeasuredVariant:
    r = (variant.settings or {}).get("r", 0)
    changes = {"r": 0} if variant.settings is None else dict(variant.settings)
    config = hf_video_tome.VideoMAEConfig(**TINY_CONFIGS["videomae"])
    count = hf_video_tome.mac_count(config, **changes)
    return MeasuredVariant(
        variant=variant,
        batch_size=batch_size,
        requested_per_layer=r,
        token_counts=[32, 32 - r],
        macs=count.to_dict(),
        mac_ratio=hf_video_tome.mac_count(config).total / count.total,
        seconds=seconds,
        first_seconds=1.0,
        memory=Memory(2**20, 2**21),
    )


def some_results() -> BenchmarkResults:
    return BenchmarkResults(
        conditions(),
        [
            measured(Variant("float32", "sdpa"), [2.0, 4.0, 2.0]),
            measured(Variant("float32", "eager"), [4.0, 8.0, 4.0]),
            measured(Variant("float32", "sdpa", {"r": 0}), [2.0, 4.0, 2.0]),
            measured(Variant("float32", "sdpa", {"r": 4}), [1.5, 3.0, 1.5]),
            measured(Variant("float32", "sdpa", {"r": 8}), [1.0, 2.0, 2.0]),
            measured(Variant("float32", "sdpa", {"r": 8, "schedule": "decreasing"}), [0.5, 1.0, 0.5]),
            measured(Variant("bfloat16", "sdpa"), [1.0, 2.0, 1.0]),
            measured(Variant("bfloat16", "sdpa", {"r": 8}), [0.5, 1.0, 0.5]),
            measured(Variant("float32", "sdpa"), [20.0, 20.0, 20.0], batch_size=8),
            measured(Variant("float32", "sdpa", {"r": 8}), [5.0, 5.0, 5.0], batch_size=8),
        ],
    )


def test_speedups_are_over_the_same_dtype_and_batch_size() -> None:
    results = some_results()
    merged, half, batched = results.measured[4], results.measured[7], results.measured[9]
    assert results.speedup(merged, "sdpa") == Ratio(2.0, 1.5, 2.0)
    assert results.speedup(merged, "eager") == Ratio(4.0, 3.0, 4.0)
    assert results.share(merged) == pytest.approx(2.0 / merged.mac_ratio)
    assert results.speedup(half, "sdpa") == Ratio(2, 2, 2)
    assert results.speedup(half, dtype="float32") == Ratio(4, 4, 4)
    assert results.speedup(half, "eager") is None  # not measured in bfloat16
    assert results.speedup(batched) == Ratio(4, 4, 4)
    assert results.speedup(batched, "eager") is None
    assert results.share(results.measured[0]) is None


def test_without_sdpa_the_reference_is_eager() -> None:
    both = [Variant("float32", "eager"), Variant("float32", "sdpa", {"r": 8})]
    results = BenchmarkResults(conditions(), [measured(both[0], [3.0, 3.0]), measured(both[1], [1.0, 1.0])])
    assert results.reference_attention == "eager"
    assert results.speedup(results.measured[1]) == Ratio(3, 3, 3)
    assert rows(results, 1)[1][4] == "–"
    assert "The stock model has no sdpa attention." in footnotes(results)


def test_a_row_counts_all_tokens_of_the_clip_with_an_input_stage() -> None:
    config = hf_video_tome.VideoMAEConfig(**TINY_CONFIGS["videomae"])
    variants = [Variant("float32", "sdpa", {"r": r, "input": "random", "input_keep": 0.5}) for r in (0, 4)]
    stock = ARCHITECTURES["videomae"].stock_head_class(config.to_stock(transformers.VideoMAEConfig))
    found = BenchmarkResults(conditions(), run_benchmark(stock, variants, device=CPU, warmup=0, rounds=1))
    again = BenchmarkResults.from_dict(json.loads(json.dumps(found.to_dict())))
    for results in (found, again):
        results.check_model(config)
        assert [entry.token_counts[0] for entry in results.measured] == [16, 16]
        assert [cells[1] for cells in rows(results, 1)] == ["32 → 16", f"32 → {results.measured[1].token_counts[-1]}"]
    for entry in (old := found.to_dict())["results"]:
        del entry["num_tokens"]
    assert [cells[1] for cells in rows(BenchmarkResults.from_dict(old), 1)] == [
        "16",
        f"16 → {results.measured[1].token_counts[-1]}",
    ]


def test_a_row_of_the_table() -> None:
    results = some_results()
    merged = results.measured[4]
    row = dict(zip(columns(results), rows(results, 1)[4], strict=True))
    assert row == {
        "variant": "r = 8, sdpa, fp32",
        "tokens": "32 → 24",
        "ms": "2000",
        "spread": "25.0%",
        "vs sdpa": "2.00 ± 0.25",
        "vs eager": "4.00 ± 0.50",
        "vs fp32": "2.00 ± 0.25",
        "MACs": f"{merged.mac_ratio:.2f}",
        "reached": f"{2 / merged.mac_ratio:.0%}",
        "peak MiB": "1",
    }
    assert {len(cells) for cells in rows(results, 1)} == {len(columns(results))}


def test_results_are_written_and_read(tmp_path: Path) -> None:
    results = some_results()
    path = results.save(tmp_path / "new" / "folder")
    assert BenchmarkResults.load(path) == BenchmarkResults.load(path.parent) == results
    assert [item.name for item in path.parent.iterdir()] == ["results.json"]


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"format": 1}', '{"format": 99, "results": []}'])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"results\.json: not benchmark results"):
        BenchmarkResults.load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "speed").glob("*.json")), ids=lambda path: path.stem)
def test_published_results_are_still_read(path: Path) -> None:
    results = BenchmarkResults.load(path)
    assert results.measured
    has_memory = any(entry.memory for entry in results.measured)
    assert ("peak MiB" in columns(results)) == ("Peak memory: " in describe_conditions(results)) == has_memory


def test_memory_that_was_not_measured_is_not_spoken_of() -> None:
    results = some_results()
    without = [replace(entry, memory=None) for entry in results.measured]
    bare = BenchmarkResults({**conditions(), "memory_method": "as in older files"}, without)
    assert columns(bare) == columns(results)[:-1]
    assert rows(bare, 1) == [cells[:-1] for cells in rows(results, 1)]
    assert "memory" not in " ".join([describe_conditions(bare), *footnotes(bare)])
    assert "memory_method" in machine(CPU)
    assert "memory_method" not in machine(CPU, with_memory=False)


# --- pictures and pages
def test_the_curves_of_the_picture() -> None:
    results = some_results()
    found = {curve.name: curve for curve in curves(results, 1)}
    assert list(found) == ["sdpa, fp32", "decreasing, sdpa, fp32", "sdpa, bf16"]
    points = found["sdpa, fp32"].points
    assert [point.r for point in points] == [0, 4, 8]
    assert [point.speedup.median for point in points] == pytest.approx([1, 4 / 3, 2])
    assert [point.mac_ratio for point in points] == sorted(point.mac_ratio for point in points)
    assert points[0].mac_ratio == 1
    assert [point.r for point in found["decreasing, sdpa, fp32"].points] == [0, 8]
    assert [point.r for point in found["sdpa, bf16"].points] == [8]


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    path = save_plot(some_results(), tmp_path / "speed.png")
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
    # Settings with one r each are no curves.
    schedules = BenchmarkResults(conditions(), [some_results().measured[index] for index in (0, 4, 5)])
    bars = save_plot(schedules, tmp_path / "bars.png")
    assert bars is not None
    with Image.open(bars) as shown, Image.open(path) as curved:
        assert shown.height < curved.height
    stock_only = BenchmarkResults(conditions(), some_results().measured[:2])
    assert save_plot(stock_only, tmp_path / "nothing.png") is None
    assert not (tmp_path / "nothing.png").exists()


def test_the_page(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_page", ROOT / "examples" / "benchmark_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    first, second = tmp_path / "first", tmp_path / "second.json"
    results = some_results()
    data = results.save(first)
    second.write_bytes(data.read_bytes())
    page = tmp_path / "docs" / "speed.md"
    assert script.main([str(first), str(second), "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("\n## ") == 2
    files = [page.parent / "speed" / name for name in ("first.json", "first.png", "second.json", "second.png")]
    assert re.findall(r"!\[[^]]+\]\((\S+)\)", text) == ["speed/first.png", "speed/second.png"]
    assert re.findall(r"\[All data\]\((\S+)\)", text) == ["speed/first.json", "speed/second.json"]
    assert all(file.read_bytes() == data.read_bytes() for file in files[::2])
    assert text.count("| r = 8, sdpa, fp32 | 32 → 24 |") == 4
    assert text.count(describe_conditions(results)) == 2
    assert text.count(conditions()["command"]) == 2
    # The page is made again from the data beside it.
    assert write_page(files[::2], page) == [page, *files]
    assert page.read_text(encoding="utf-8") == text


def test_sources_of_a_page_have_names_of_their_own(tmp_path: Path) -> None:
    folders = [some_results().save(tmp_path / name / "videomae").parent for name in ("first", "second")]
    with pytest.raises(ValueError, match="'videomae' more than once"):
        write_page(folders, tmp_path / "speed.md")


def test_sections_of_a_page_are_told_apart(tmp_path: Path) -> None:
    some = some_results()
    plain = BenchmarkResults(conditions(), some.measured[:4])
    batched = BenchmarkResults(conditions(), some.measured[8:])
    schedules = BenchmarkResults(conditions(), [some.measured[0], *some.measured[4:6]])
    compiled = BenchmarkResults(
        {**conditions(), "inductor_freezing": True},
        [some.measured[0], measured(Variant("float32", "sdpa", {"r": 8}, compiled=True), [1.0, 2.0, 1.0])],
    )
    folders = []
    for number, results in enumerate((plain, batched, schedules, compiled)):
        folders.append(results.save(tmp_path / str(number)).parent)
    page = write_page(folders, tmp_path / "speed.md")[0].read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == [
        "videomae, float32, batch size 1, CPU",
        "videomae, float32, batch size 8, CPU",
        "videomae, float32, schedules, batch size 1, CPU",
        "videomae, float32, compiled and frozen, batch size 1, CPU",
    ]


def test_a_page_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match=r"results\.json"):
        write_page([tmp_path / "missing" / "results.json"], tmp_path / "speed.md")
    assert not (tmp_path / "speed.md").exists()
