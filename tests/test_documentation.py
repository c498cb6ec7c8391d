"""The snippets of the README and of the docs run as they stand, and print what they say they print.

Only the Hub ids are replaced, by local checkpoints of the same geometry (frames, image and patch size, layers) but of
little width, and compilers by one that runs graphs as they are. Commands in blocks that are neither Python nor bash
are not run: their options and values are checked.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import typer
from PIL import Image, ImageSequence
from transformers import AutoModelForVideoClassification

import hf_video_tome
from hf_video_tome.benchmark import BenchmarkResults
from hf_video_tome.checkpoints import available, checkpoint_path
from hf_video_tome.cli import app, run
from hf_video_tome.cli.merging_options import parse_settings
from hf_video_tome.conversion.state_dict import convertible_architectures
from hf_video_tome.data import DATASETS
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```(python|text|bash)\n(.*?)```", re.DOTALL)
SHIPPED = "videomae-moving-digits"
NARROW = {"hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 48, "num_labels": 400}


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


PAGES_WITH_PYTHON = [page for page in PAGES if any(language == "python" for language, _ in blocks(page))]
# From what is run to a page that shows it.
COMMANDS = {
    line.split("#")[0].strip(): page
    for page in PAGES
    for language, code in blocks(page)
    if language == "bash"
    for line in code.splitlines()
    if line.startswith("hf-video-tome ") and "demo" not in line.split()[:2]
}
# All others are shown and not run: they take long, or need data that is not here.
COMMAND_LINE = re.compile(r"^(?:hf-video-tome|.* -m hf_video_tome) (.+)$", re.MULTILINE)
SHOWN = [
    (page, arguments.strip())
    for page in PAGES
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    if language not in ("python", "text", "bash")
    for arguments in COMMAND_LINE.findall(code.replace("\\\n", " "))
]


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """From the Hub ids that the pages name to local folders."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    videomae = transformers.models.videomae.modeling_videomae.VideoMAEForVideoClassification(
        transformers.models.videomae.VideoMAEConfig(**NARROW)
    )
    vivit = transformers.models.vivit.modeling_vivit.VivitForVideoClassification(
        transformers.models.vivit.VivitConfig(**NARROW)
    )
    vjepa2 = transformers.models.vjepa2.modeling_vjepa2.VJEPA2ForVideoClassification(
        transformers.models.vjepa2.VJEPA2Config(
            frames_per_clip=16,
            hidden_size=24,
            num_attention_heads=2,
            pred_hidden_size=12,
            pred_num_attention_heads=1,
            pred_num_hidden_layers=1,
            num_labels=174,
        )
    )
    folders = {}
    for name, model in {
        "facebook/vjepa2-vitl-fpc16-256-ssv2": vjepa2,
        "MCG-NJU/videomae-base-finetuned-kinetics": videomae,
        "google/vivit-b-16x2-kinetics400": vivit,
    }.items():
        folders[name] = str(folder / name.replace("/", "--"))
        model.save_pretrained(folders[name])
    transformers.VideoMAEImageProcessor().save_pretrained(folders["MCG-NJU/videomae-base-finetuned-kinetics"])
    transformers.VivitImageProcessor().save_pretrained(folders["google/vivit-b-16x2-kinetics400"])
    processor = {"video_processor_type": "VJEPA2VideoProcessor", "crop_size": {"height": 256, "width": 256}}
    path = Path(folders["facebook/vjepa2-vitl-fpc16-256-ssv2"], "video_preprocessor_config.json")
    path.write_text(json.dumps(processor))
    return folders


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a real clip.mp4 of 40 frames and the mode that a page adds, which is the working directory."""
    (tmp_path / "my_modes.py").write_text(blocks(ROOT / "docs" / "adding-a-mode.md")[0][1])
    frames = np.random.default_rng(0).integers(0, 255, (40, 120, 160, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, fps=25)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace_hub_ids(code: str, stand_ins: dict[str, str]) -> str:
    for name, folder in stand_ins.items():
        code = code.replace(name, folder)
    return code


@pytest.fixture
def quick_graphs(page: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs run as they are, and those that are exported are of one layer: all six take minutes."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    if page.name == "export.md":
        short = tmp_path_factory.mktemp("short")
        model = AutoModelForVideoClassification.from_pretrained(checkpoint_path(SHIPPED), num_hidden_layers=1)
        model.save_pretrained(short)
        monkeypatch.setattr("hf_video_tome.checkpoints.checkpoint_path", {SHIPPED: short}.__getitem__)


@pytest.mark.usefixtures("quick_graphs")
@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_snippets_run_and_print_what_they_say(page: Path, stand_ins: dict[str, str], workplace: Path) -> None:
    namespace: dict[str, object] = {}
    printed = ""
    for language, code in blocks(page):
        if language == "python":
            stdout = io.StringIO()
            with contextlib.redirect_stdout(stdout):
                exec(compile(replace_hub_ids(code, stand_ins), f"{page.name}", "exec"), namespace)
            printed = stdout.getvalue()
        elif language == "text" and printed:
            assert printed == code
            printed = ""
    assert not printed, f"{page.name} does not show what its last snippet prints: {printed}"


@pytest.mark.parametrize(("command", "page"), COMMANDS.items(), ids=lambda value: getattr(value, "name", None))
def test_commands_run(
    command: str, page: Path, stand_ins: dict[str, str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Which are rendered and decoded anew each time; two classes have two clips.
    command = command.replace("num_test=120", "num_test=12").replace("num_test=240", "num_test=122")
    status = run(shlex.split(replace_hub_ids(command, stand_ins))[1:])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert printed.out.strip()


def parse(arguments: str) -> tuple[str, dict[str, Any]]:
    """What a command is asked to do: its name, and the values of its options, read and checked but not used."""
    asked: list[tuple[str, dict[str, Any]]] = []
    root = typer.main.get_command(app)

    def record_in_place_of_commands(command: Any, path: str) -> None:
        for name, child in getattr(command, "commands", {}).items():
            record_in_place_of_commands(child, f"{path} {name}".strip())
        if not hasattr(command, "commands"):
            command.callback = lambda **values: asked.append((path, values))

    record_in_place_of_commands(root, "")
    root.main(args=shlex.split(arguments, comments=True), standalone_mode=False)
    ((name, values),) = asked
    return name, values


def listed(value: Any) -> list[Any]:
    """The values of an option that can be given once or more than once."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


@pytest.mark.parametrize(("page", "arguments"), SHOWN, ids=lambda value: getattr(value, "name", None))
def test_commands_that_are_shown_only_have_options_and_values_that_exist(page: Path, arguments: str) -> None:
    _, values = parse(arguments)
    config = hf_video_tome.VideoMAEConfig()
    for setting in ("r", "mode", "schedule", "scope", "pooling", "threshold", "head_aggregation"):
        for value in listed(values.get(setting)):
            asked = {"r": None, "schedule": None, setting: value, "threshold": 0.5 if value == "hybrid" else None}
            config.update_token_merging(**parse_settings(**asked))
    for dataset in listed(values.get("dataset")):
        assert dataset in DATASETS
    for model in listed(values.get("model")):
        made_by_the_page = re.search(rf"(save \S+|--output|--output_dir) {re.escape(model)}\b", page.read_text())
        known = model in (*available(), *ARCHITECTURES, "MODEL") or "/" in model or made_by_the_page
        assert known, f"no checkpoint {model!r}"
    for architecture in listed(values.get("architecture")):
        assert architecture in convertible_architectures(), "no converter"


def test_there_are_commands_that_are_shown_only() -> None:
    pages = {page.name for page, _ in SHOWN}
    assert {"benchmark.md", "hub.md", "speed.md", "evaluation.md", "converting.md"} <= pages


@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate MODEL --dataset kinetics400 --rr 3",
        "evaluate MODEL --dataset kinetics401",
        "benchmark videomae --dtype float31",
        "benchmark videomae --r 0.7",
        "benchmark videomae --mode marge",
        "benchmark videomea --r 3",
        "analyze layer videomae-moving-digits",
        "analyze layers videomea-moving-digits --r 3",
        "benchmark videomae --rounds few",
        "convert vivit checkpoint.pth folder",
        "save videomae-moving-digits",
    ],
)
def test_a_command_that_could_not_run_would_be_noticed(arguments: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(arguments)
    refusals = ("No such", "nvalid", "valid integer", "not one of", "Missing", "must be")  # by version of Typer
    by_this_test = ("no checkpoint", "kinetics401", "convertible")
    with pytest.raises(Exception, match="|".join(refusals + by_this_test)):
        test_commands_that_are_shown_only_have_options_and_values_that_exist(page, arguments)


STARTING_POINTS = {
    "VideoMAE-B, 16 frames": "videomae",
    "ViViT-B, 32 frames": "vivit",
    "TimeSformer-B, 8 frames": "timesformer",
    "Motionformer-B, 16 frames": "motionformer",
    "VideoPrism-B, 16 frames": "videoprism_vision_model",
    "V-JEPA 2 large, 64 frames": "vjepa2",
}


def test_the_table_of_starting_points_is_what_is_counted() -> None:
    rows = re.findall(
        r"^\| (.+?) \| (\d+).* \| (\d+) → (\d+) \| ([\d.]+) \| ([\d.]+) \|$",
        (ROOT / "docs" / "which-settings.md").read_text(),
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == list(STARTING_POINTS)
    for name, r, first, last, constant, decreasing in rows:
        model_type = STARTING_POINTS[name]
        config = ARCHITECTURES[model_type].config_class(token_merging_r=int(r))
        counts = hf_video_tome.token_counts(config)
        assert (counts[0], counts[-1]) == (int(first), int(last))
        unmerged = hf_video_tome.mac_count(config, r=0).total
        for schedule, times in (("constant", constant), ("decreasing", decreasing)):
            assert f"{unmerged / hf_video_tome.mac_count(config, schedule=schedule).total:.2f}" == times
        paper = ARCHITECTURES[model_type].paper_settings
        assert not paper or paper["r"] == int(r)


MEASURED = {
    "VideoMAE, 16 frames": ("videomae.json", "videomae-4.json"),
    "the same, decreasing schedule": ("videomae-schedules.json",),
    "ViViT, 32 frames": ("vivit.json", "vivit-4.json"),
    "TimeSformer, 8 frames": ("timesformer.json", "timesformer-4.json"),
    "Motionformer, 16 frames": ("motionformer.json",),
    "V-JEPA 2-L, 16 frames": ("vjepa2.json",),
    "VideoPrism, 16 frames": ("videoprism.json",),
}


def test_the_speeds_in_the_readme_are_those_that_were_measured() -> None:
    table = re.findall(r"^\| ([^|]+?) \| (\d+) \| (.+) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    rows = {name: (int(r), cells.replace("**", "").split(" | ")) for name, r, cells in table if name in MEASURED}
    assert list(rows) == list(MEASURED)
    for name, (r, cells) in rows.items():
        schedule = "decreasing" if "decreasing" in name else "constant"
        found: list[list[str]] = []
        for file in MEASURED[name]:
            results = BenchmarkResults.load(ROOT / "docs" / "speed" / file)
            single, half = (
                entry
                for entry in results.measured
                if (entry.variant.settings or {}).get("r") == r
                and entry.variant.settings.get("schedule", "constant") == schedule
            )
            assert (single.variant.dtype, half.variant.dtype) == ("float32", "bfloat16")
            ratios = results.speedup(single), results.speedup(half), results.speedup(half, dtype="float32")
            assert f"{single.mac_ratio:.2f}x" == cells[0]
            found.append([f"{ratio.median:.{digits}f}x" for ratio, digits in zip(ratios, (2, 2, 1), strict=True)])
        assert [" / ".join(column) for column in zip(*found, strict=True)] == cells[1:], name


def test_the_accuracies_on_the_page_of_analyses_are_those_that_were_measured() -> None:
    """Cells of the table: merge / drop at r = 0, 36, 72 and 144, or 0, 4, 9 and 18 per frame."""
    text = (ROOT / "docs" / "analysis.md").read_text()
    rows = re.findall(r"^\| (\S[^|]+?) \| ([\d.]+) % \| ((?:[\d.]+ / [\d.]+ % \|? ?){3})", text, re.MULTILINE)
    assert [name for name, _, _ in rows] == ["VideoMAE", "ViViT", "TimeSformer", "Motionformer", "V-JEPA 2"]
    for name, unmerged, cells in rows:
        model = name.lower().replace("-", "").replace(" ", "")
        with (ROOT / "docs" / "analysis" / f"accuracy-{model}.csv").open() as file:
            points = [point for point in csv.DictReader(file) if point["schedule"] == "constant"]
        curves = [
            [f"{100 * float(point['accuracy']):.1f}" for point in points if point["mode"] == mode]
            for mode in ("merge", "drop")
        ]
        assert {curve[0] for curve in curves} == {unmerged}
        assert re.findall(r"([\d.]+) / ([\d.]+) %", cells) == list(zip(*(curve[2:] for curve in curves), strict=True))


def run_example(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", [script, *arguments])
    monkeypatch.syspath_prepend(ROOT / "examples")  # as Python does with the folder of a script
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    assert end.value.code == 0


def test_the_picture_of_the_matching_can_be_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "matching.png"
    run_example(monkeypatch, "draw_matching.py", "--output", str(picture))
    with Image.open(picture) as drawn, Image.open(ROOT / "docs" / "visualization" / "matching.png") as shown:
        assert share_that_differs(drawn, shown) < 0.02


def share_that_differs(drawn: Image.Image, shown: Image.Image) -> float:
    """Share of pixels of all frames that differ clearly. On another CPU a merge can go another way, but not many."""
    frames = [
        np.stack([np.asarray(frame.convert("RGB"), dtype=int) for frame in ImageSequence.Iterator(image)])
        for image in (drawn, shown)
    ]
    assert frames[0].shape == frames[1].shape
    return float((np.abs(frames[0] - frames[1]).max(-1) > 16).mean())


def test_the_pictures_of_merged_tokens_can_be_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_example(monkeypatch, "draw_tokens.py", "--output", str(tmp_path))
    pictures = sorted(path.name for path in tmp_path.iterdir())
    assert pictures == sorted({path.name for path in (ROOT / "docs" / "visualization").iterdir()} - {"matching.png"})
    for name in pictures:
        with Image.open(tmp_path / name) as drawn, Image.open(ROOT / "docs" / "visualization" / name) as shown:
            assert share_that_differs(drawn, shown) < 0.02, name


@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_examples_say_what_they_do(
    script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_example(monkeypatch, script, "--help")
    assert f"python examples/{script}" in capsys.readouterr().out


def test_scripts_that_are_named_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"examples/[\w/]+\.(?:py|sh)", page.read_text()):
            assert (ROOT / script).exists(), f"{page.name} names {script}"


def test_pages_link_to_pages_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
