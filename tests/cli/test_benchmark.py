"""`hf-video-tome benchmark` through its entry point."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config

from hf_video_tome.benchmark import BenchmarkResults
from hf_video_tome.benchmark.page import footnotes
from hf_video_tome.cli import run
from hf_video_tome.cli.commands import benchmark
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import TINY_CONFIGS

FAST = ["--warmup", "0", "--rounds", "2", "--device", "cpu"]


def tiny(name: str, changed: str = "") -> list[str]:
    """The architecture at the size of the tests, with another value of one field."""
    fields = {field: f"{field}={json.dumps(value)}" for field, value in TINY_CONFIGS[name].items()}
    if changed:
        fields[changed.partition("=")[0]] = changed
    return [name, *(word for field in fields.values() for word in ("--config-option", field))]


def results_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert run(["benchmark", *arguments, *FAST, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One benchmark with all kinds of variants, and its files."""
    folder = tmp_path_factory.mktemp("speed") / "videomae"
    arguments = ["--r", "0", "--r", "4", "--r", "0.25", "--schedule", "constant", "--schedule", "decreasing"]
    arguments += ["--dtype", "bfloat16", "--float32-baseline", "--batch-size", "2", "--batch-size", "1"]
    assert run(["benchmark", *tiny("videomae"), *arguments, *FAST, "--output", str(folder)]) == 0
    return folder


def test_the_files_of_a_benchmark(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["results.json", "speed.png"]
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    names = [entry["name"] for entry in content["results"] if entry["batch_size"] == 2]
    assert names == [
        "stock sdpa, fp32",
        "stock sdpa, bf16",
        "stock eager, bf16",
        "r = 0, sdpa, bf16",
        "r = 4, constant, sdpa, bf16",
        "r = 4, decreasing, sdpa, bf16",
        "r = 0.25, constant, sdpa, bf16",
        "r = 0.25, decreasing, sdpa, bf16",
    ]
    assert [entry["batch_size"] for entry in content["results"]] == [2] * 8 + [1] * 8
    for entry in content["results"]:
        assert len(entry["seconds"]) == 2
        assert all(value > 0 for value in entry["seconds"])
        assert entry["memory"]["weight_bytes"] > 0
        assert entry["clips_per_second"] == pytest.approx(entry["batch_size"] / entry["median_seconds"])
        low, median, high = (entry["speedup"]["stock_eager"] or {"low": 0, "median": 0, "high": 0}).values() or (
            0,
        ) * 3
        assert entry["dtype"] == "float32" or min(low, median, high) > 0
    stock, merged = content["results"][1], content["results"][4]
    assert stock["speedup"]["stock_sdpa"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert stock["share_of_mac_ratio"] is None
    assert merged["token_counts"] == [32, 28, 24, 20]
    assert merged["requested_per_layer"] == 4
    assert merged["macs"]["total"] < stock["macs"]["total"]
    assert merged["mac_ratio"] == pytest.approx(stock["macs"]["total"] / merged["macs"]["total"])
    speedup = merged["speedup"]["stock_sdpa"]["median"]
    assert merged["share_of_mac_ratio"] == pytest.approx(speedup / merged["mac_ratio"])


def test_conditions_say_what_is_needed_and_nothing_private(folder: Path) -> None:
    text = (folder / "results.json").read_text(encoding="utf-8")
    facts = json.loads(text)["conditions"]
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["clip_shape"] == [4, 3, 32, 32]
    assert facts["cpu"]
    assert facts["weights"] == "random"
    assert str(folder) not in text
    assert str(Path.home()) not in text
    words = shlex.split(facts["command"])
    assert words[:3] == ["hf-video-tome", "benchmark", "videomae"]
    assert words[words.index("--dtype") + 1] == "bfloat16"
    assert "--output" not in words


def test_results_are_read_as_they_were_written(folder: Path) -> None:
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert BenchmarkResults.load(folder).to_dict() == content


@pytest.mark.parametrize(("share", "is_busy"), [(0.4, True), (0.85, True), (0.97, False)])
def test_a_busy_machine_is_noticed_said_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], share: float, is_busy: bool
) -> None:
    monkeypatch.setattr(time, "thread_time", lambda: share * time.perf_counter())
    words = ["benchmark", *tiny("videomae"), "--r", "4", "--no-memory", *FAST, "--output", str(tmp_path / "out")]
    warning = f"The machine was busy: the model had a processor for {100 * share:.0f} % of the time"
    assert run(words) == 0
    assert (warning in capsys.readouterr().out) == is_busy
    assert run([*words, "--overwrite", "--json"]) == 0
    captured = capsys.readouterr()
    assert (f"note: {warning}" in captured.err) == is_busy
    content = json.loads(captured.out)
    assert content["processor_share"] == pytest.approx(share, rel=0.01)
    assert content["conditions"]["load_average"] >= 0
    for entry in content["results"]:
        measured = entry["processor_time"]
        assert measured["thread_seconds"] == pytest.approx(share * measured["wall_seconds"], rel=0.05)
        assert measured["wall_seconds"] >= sum(entry["seconds"])
        assert measured["process_seconds"] > 0
    results = BenchmarkResults.load(tmp_path / "out")
    assert results.processor_share == content["processor_share"]
    assert any(warning in line for line in footnotes(results)) == is_busy


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a processor to share")
def test_a_machine_that_really_is_busy_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    """Three processes on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    burn = "print('on', flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout is not None
            other.stdout.readline()
        options = ["--warmup", "0", "--rounds", "40", "--device", "cpu"]
        assert run(["benchmark", *tiny("videomae"), "--r", "4", "--no-memory", *options]) == 0
    finally:
        os.sched_setaffinity(0, before)
        for other in others:
            other.kill()
            other.communicate()
    assert "The machine was busy" in capsys.readouterr().out


def test_results_of_older_versions_say_nothing_of_it(folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for entry in content["results"]:
        del entry["processor_time"]
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    results = BenchmarkResults.load(tmp_path)
    assert results.processor_share is None
    assert not any("busy" in line for line in footnotes(results))


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", *tiny("videomae"), "--r", "4", *FAST]) == 0
    text = capsys.readouterr().out
    head = next(line for line in text.splitlines() if line.startswith("variant"))
    assert head.split() == [
        "variant",
        "tokens",
        "ms",
        "spread",
        "vs",
        "sdpa",
        "vs",
        "eager",
        "MACs",
        "reached",
        "peak",
        "MiB",
    ]
    assert "r = 4, sdpa" in text
    assert "32 → 20" in text
    assert "videomae (videomae; hidden_size 32" in " ".join(text.split())


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = results_of([*tiny(name), "--r", "2", "--no-memory"], capsys)
    names = [entry["name"] for entry in content["results"]]
    stock = [found for found in names if found.startswith("stock")]
    has_sdpa = name not in ("timesformer", "videoprism_vision_model")
    assert stock == (["stock sdpa, fp32"] if has_sdpa else []) + ["stock eager, fp32"]
    merged = content["results"][-1]
    assert (merged["speedup"]["stock_sdpa"] is not None) == has_sdpa
    assert merged["speedup"]["stock_eager"]["median"] > 0
    assert merged["share_of_mac_ratio"] > 0
    assert merged["mac_ratio"] > 1
    assert merged["memory"] is None
    assert "memory_method" not in content["conditions"]
    assert "--no-memory" in content["conditions"]["command"]


def test_a_stock_model_without_sdpa_is_said_to_have_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", *tiny("timesformer"), "--r", "2", *FAST]) == 0
    assert "The stock model has no sdpa attention." in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("uncompiled_flex_attention")
def test_other_attention_is_measured_of_stock_models_too(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--attn-implementation", "eager", "--attn-implementation", "flex_attention", "--r", "2"]
    content = results_of([*tiny("vivit", "num_hidden_layers=1"), *arguments, "--no-memory"], capsys)
    assert [entry["name"].removesuffix(", fp32") for entry in content["results"]] == [
        "stock sdpa",
        "stock eager",
        "stock flex_attention",
        "r = 2, eager",
        "r = 2, flex_attention",
    ]


def test_a_checkpoint_that_comes_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    content = results_of(["vivit-moving-digits", "--r", "20", "--mode", "drop"], capsys)
    facts, merged = content["conditions"], content["results"][-1]
    assert (facts["model"], facts["model_type"], facts["weights"]) == ("vivit-moving-digits", "vivit", "checkpoint")
    assert merged["settings"] == {"r": 20, "mode": "drop"}


def test_settings_saved_with_a_checkpoint_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture = ARCHITECTURES["videomae"]
    fields = {"token_merging_r": 3, "token_merging_schedule": "increasing"}
    config = architecture.config_class(**TINY_CONFIGS["videomae"], **fields)
    architecture.head_class(config).save_pretrained(tmp_path / "mine")
    content = results_of([str(tmp_path / "mine")], capsys)
    assert content["results"][-1]["settings"] == {"r": 3, "schedule": "increasing"}
    assert content["conditions"]["model"] == "mine"
    assert str(tmp_path) not in json.dumps(content["conditions"])


def test_r_is_the_papers_unless_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    content = results_of([*tiny("videomae"), "--no-memory"], capsys)
    assert content["results"][-1]["settings"] == {"r": 150}
    assert content["results"][-1]["token_counts"] == [32, 16, 8, 4]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_models_are_measured_beside_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = []
    plain = torch.compile

    def compile_fast(model: Any, **options: Any) -> Any:
        graphs.append(options)
        return plain(model, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", compile_fast)
    with torch._inductor.config.patch(freezing=True):
        model = tiny("vivit", "num_hidden_layers=1")
        content = results_of([*model, "--r", "2", "--r", "4", "--compile", "--no-memory"], capsys)
    assert content["conditions"]["inductor_freezing"]
    assert content["conditions"]["command"].startswith("TORCHINDUCTOR_FREEZING=1 hf-video-tome benchmark vivit")
    assert [entry["name"] for entry in content["results"] if entry["compiled"]] == [
        "stock sdpa, compiled, fp32",
        "stock eager, compiled, fp32",
        "r = 2, sdpa, compiled, fp32",
        "r = 4, sdpa, compiled, fp32",
    ]
    assert graphs == [{"fullgraph": True, "dynamic": False}] * 3


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["videomae", "--r", "-1"], "--r must be"),
        (["videomae", "--r", "0.7"], "--r must be"),
        (["videomae", "--schedule", "rising"], "--schedule must be one of"),
        (["videomae", "--mode", "hybrid"], "--threshold must be"),
        (["videomae", "--mode", "blend"], "--mode must be one of"),
        (["timesformer", "--scope", "clip"], "--scope must be one of"),
        (["videomae", "--dtype", "int8"], "--dtype"),
        (["videomae", "--rounds", "1"], "--rounds"),
        (["videomae", "--batch-size", "0"], "--batch-size"),
        (["videomae", "--device", "cuda:99"], "--device must be a device of this machine"),
        (["videomae", "--attn-implementation", "magic"], "--attn-implementation magic"),
        (["videoprism_vision_model", "--r", "8", "--attn-implementation", "sdpa"], "--attn-implementation sdpa"),
        (["vjepa2"], "--r must be given"),
        (["videomae-moving-digits"], "--r must be given"),
        (
            ["videomae-moving-digits", "--r", "8", "--config-option", "num_frames=8"],
            "--config-option needs the name of an architecture",
        ),
        (["videomae", "--config-option", "num_frames"], "--config-option must be NAME=VALUE"),
        (["videomae", "--config-option", "num_fraems=8"], "no field 'num_fraems'"),
        (["videomae", "--config-option", "token_merging_r=8"], "use the token merging options"),
        (["videomae", "--config-option", "num_frames=many"], "--config-option"),
        (["videomae", "--config-option", "num_frames=-2"], "--config-option: num_frames must be an int of at least 1"),
        (["videomae", "--config-option", "image_size=15"], "--config-option: image_size must be at least 16 x 16"),
        (["videomae", "--config-option", "patch_size=0"], "--config-option: patch_size must be an int, or two"),
        (["vivit", "--config-option", "tubelet_size=[2,8]"], "--config-option: tubelet_size must be three ints"),
        (["videomae", "--config-option", "num_hidden_layers=0"], "must have a layer that merges, got 0"),
        (["videomae", "--config-option", "dtype=foo"], "--config-option: "),
        (["videomae", "--threads", "100000"], "--threads must be at most"),
        (["videomae", "--threads", "0"], "--threads"),
        (["no/such/folder", "--r", "8"], "MODEL no/such/folder: no such folder; a checkpoint is a folder"),
        (["videomae", "--overwrite"], "--overwrite has no effect without --output"),
        (["videomae", "--output", "clip.mp4/x"], "--output clip.mp4/x: "),
        (
            ["videomae", "--output", "earlier"],
            "--output earlier already has a results.json: replace it with --overwrite",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_before_any_model_is_built(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(benchmark, "_build", lambda *_: pytest.fail("a model was built"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "results.json").write_text("{}")
    assert run(["benchmark", *arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert not captured.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "earlier"]


@pytest.mark.parametrize(
    ("name", "option", "expected"),
    [
        ("videomae", "hidden_act=foo", "hidden_act=foo: such a model cannot be built: KeyError: 'foo'"),
        ("videomae", "num_attention_heads=0", "such a model cannot be built: ZeroDivisionError"),
        ("videomae", "hidden_size=-4", "such a model cannot be built: RuntimeError"),
        ("timesformer", "patch_size=[8,8]", "stock eager, fp32 cannot run here: "),  # for squares alone
    ],
)
def test_a_config_that_makes_no_model_ends_in_one_line(
    name: str, option: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*tiny(name, option), "--attn-implementation", "eager", "--r", "2", *FAST]
    assert run(["benchmark", *arguments]) == 2
    assert expected in capsys.readouterr().err.splitlines()[-1]


def test_earlier_results_are_replaced_when_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["benchmark", *tiny("videomae"), *FAST, "--no-memory", "--output", str(tmp_path)]
    assert run([*command, "--r", "2"]) == 0
    before = (tmp_path / "results.json").read_bytes()
    assert run([*command, "--r", "4"]) == 2
    assert (tmp_path / "results.json").read_bytes() == before
    assert run([*command, "--r", "0", "--overwrite"]) == 0
    names = [entry["name"] for entry in json.loads((tmp_path / "results.json").read_text())["results"]]
    assert names[-1] == "r = 0, sdpa, fp32"
    assert not (tmp_path / "speed.png").exists()  # r = 0 alone is no curve, and the old picture is of other results


def test_compiling_without_a_compiler_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    assert run(["benchmark", "videomae", "--compile", "--device", "cpu"]) == 2
    assert "--compile needs a C++ compiler" in capsys.readouterr().err


def test_a_plot_without_matplotlib_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_video_tome.cli.common.find_spec", lambda name: None)
    assert run(["benchmark", "videomae", "--output", str(tmp_path)]) == 2
    assert 'pip install "hf-video-tome[viz]"' in capsys.readouterr().err


def test_a_list_of_r_that_is_too_long_ends_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", *tiny("videomae"), "--r", "1,1,1,1", *FAST]) == 2
    assert "--r must be a list of at most 3 entries" in capsys.readouterr().err
