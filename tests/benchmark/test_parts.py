"""Where the time of a pass goes: every operator is timed once, for the kind of work that it is called for."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from hf_video_tome.benchmark import PARTS, ModelPool, Variant, run_benchmark, time_parts
from hf_video_tome.benchmark.page import parts_columns, parts_rows, write_page
from hf_video_tome.benchmark.parts import part_of
from hf_video_tome.benchmark.results import BenchmarkResults
from hf_video_tome.models import ARCHITECTURES
from hf_video_tome.models.cpu import block_attention
from tests.benchmark.test_benchmark import CPU, conditions, stock_model
from tests.tiny import TINY_CONFIGS


def ticks_of(name: str, variant: Variant) -> dict[str, float]:
    """The parts of a pass whose clock goes on by one whenever it is read: an operator takes one second."""
    model = ModelPool(stock_model(name), CPU).model(variant)
    clip = torch.randn(1, *model.config.clip_shape if not variant.is_stock else clip_shape(name))
    ticks = itertools.count()
    with torch.inference_mode():
        clip = clip.to(getattr(torch, variant.dtype))
        return time_parts(lambda: model(clip), CPU, clock=lambda: float(next(ticks)))


def clip_shape(name: str) -> tuple[int, ...]:
    return ARCHITECTURES[name].config_class(**TINY_CONFIGS[name]).clip_shape


def linear_calls(name: str) -> int:
    """How often the stock model calls a linear layer."""
    model, calls = stock_model(name), []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        model(torch.randn(1, *clip_shape(name)))
    return len(calls)


@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_work_is_told_apart(name: str) -> None:
    stock = ticks_of(name, Variant("float32", "eager"))
    merging = ticks_of(name, Variant("float32", "eager", {"r": 2}))
    assert list(stock) == list(merging) == list(PARTS)
    assert stock["linear layers"] == linear_calls(name)
    assert stock["merging"] == 0 < merging["merging"]
    for part in ("attention", "normalisation", "activation", "patch embedding", "other"):
        assert stock[part] > 0, part
        assert merging[part] > 0, part


def test_the_parts_add_up_to_the_whole() -> None:
    ticks = itertools.count()
    x, weight = torch.ones(2, 3), torch.ones(4, 3)

    def run() -> None:
        torch.nn.functional.linear(x, weight)
        x.add(1)

    parts = time_parts(run, CPU, clock=lambda: float(next(ticks)))
    # The clock is read at 0, at 1, 2, 3 and 4, 5, 6 of the two operators, and at 7; 1 to 2 and 4 to 5 are the looking.
    assert parts == {**dict.fromkeys(PARTS, 0.0), "linear layers": 1.0, "other": 4.0}


def test_attention_in_blocks_is_attention_though_it_calls_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_attention, "MULTIPLIES_BFLOAT16_WITHOUT_AMX", True)
    blocks = ticks_of("videomae", Variant("bfloat16", "sdpa", {"r": 2}))
    assert blocks["linear layers"] == linear_calls("videomae")
    assert blocks["attention"] > 0


def test_operators_that_nobody_knows_are_other_work() -> None:
    assert part_of("some_new_operator", None) == "other"


def test_looking_leaves_results_as_they_are() -> None:
    model = ModelPool(stock_model(), CPU).model(Variant("float32", "sdpa", {"r": 4}))
    clip, found = torch.randn(1, *model.config.clip_shape), []
    with torch.inference_mode():
        time_parts(lambda: found.append(model(clip).logits), CPU)
        assert torch.equal(found[0], model(clip).logits)


def test_a_benchmark_says_where_the_time_goes(tmp_path: Path) -> None:
    variants = [Variant("float32", "sdpa"), Variant("float32", "sdpa", {"r": 4})]
    measured = run_benchmark(stock_model(), variants, device=CPU, warmup=0, rounds=2, with_parts=True)
    results = BenchmarkResults(conditions(), measured)
    assert BenchmarkResults.load(results.save(tmp_path)) == results
    assert parts_columns(results, 1) == ["variant", *PARTS]
    stock, merging = parts_rows(results, 1)
    assert stock[:1] + merging[:1] == ["stock sdpa", "r = 4, sdpa"]
    assert stock[1 + PARTS.index("merging")] == "" != merging[1 + PARTS.index("merging")]
    page = write_page([tmp_path], tmp_path / "speed.md")[0].read_text(encoding="utf-8")
    assert f"| {' | '.join(merging)} |" in page


def test_without_asking_nothing_is_looked_into() -> None:
    measured = run_benchmark(stock_model(), [Variant("float32", "sdpa")], device=CPU, warmup=0, rounds=2)
    assert measured[0].parts is None
    assert parts_rows(BenchmarkResults(conditions(), measured), 1) == []
