"""The code that travels with a checkpoint does what the package does, where the package is not."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForVideoClassification

from hf_video_tome import ClipProcessor
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.hub import collect_remote_code, save_checkpoint, save_remote_code
from hf_video_tome.models import ARCHITECTURES
from tests.tiny import PIXEL_SHAPE, TINY_CONFIGS

GOLDEN = Path(__file__).parents[1] / "golden"
# Saved in the Hub's older layout, which transformers converts when it loads.
OLD_LAYOUTS = ("videomae", "vivit", "timesformer")


def build(model_type: str, **settings: object) -> Any:
    architecture = ARCHITECTURES[model_type]
    fields = {f"token_merging_{name}": value for name, value in settings.items()}
    return architecture.head_class(architecture.config_class(**TINY_CONFIGS[model_type], **fields)).eval()


def logits(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(pixel_values).logits


def ask(folder: Path, *asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Has the worker answer, in processes without the package, one after the other."""
    files = [(folder / f"requests-{number}.json", folder / f"answers-{number}.json") for number in range(len(asked))]
    for (questions, _), requests in zip(files, asked, strict=True):
        questions.write_text(json.dumps(requests))
    worker = Path(__file__).with_name("trusting_worker.py")
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-I", str(worker), *(str(file) for pair in files for file in pair)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    return [answer for _, answers in files for answer in json.loads(answers.read_text())]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One process loads everything; then another one what the first saved."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("remote-code")
    pixel_values = torch.randn(PIXEL_SHAPE)
    np.save(root / "clips.npy", pixel_values.numpy())
    expected, requests = {}, []

    def add(name: str, model: Any, pixels: Path, trust: bool = True) -> None:
        inputs = torch.from_numpy(np.load(pixels))
        merged = logits(model, inputs)
        model.set_token_merging(r=0)
        expected[name] = (merged, logits(model, inputs))
        requests.append({"folder": str(root / name), "pixel_values": str(pixels), "trust": trust})

    for model_type in TINY_CONFIGS:
        model = build(model_type, r=3)
        save_checkpoint(model, root / model_type, remote_code=True)
        add(model_type, model, root / "clips.npy")
        requests[-1]["save"] = str(root / f"{model_type}-again")
    for model_type in OLD_LAYOUTS:
        folder = root / f"{model_type}-old"
        folder.mkdir()
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((GOLDEN / model_type / file).read_bytes())
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "token_merging_r": 2}))
        model = AutoModelForVideoClassification.from_pretrained(folder)
        save_remote_code(folder)
        pixels = root / f"{model_type}-old.npy"
        np.save(pixels, torch.randn(1, *model.config.clip_shape).numpy())
        add(folder.name, model.eval(), pixels)
    save_checkpoint(build("videomae", r=3), root / "untrusted", remote_code=True)
    add(
        "untrusted",
        AutoModelForVideoClassification.from_pretrained(root / "untrusted").eval(),
        root / "clips.npy",
        trust=False,
    )

    processor = ClipProcessor.from_transform(
        ClipTransform(resize=36, crop=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2,) * 3)
    )
    save_checkpoint(build("vjepa2"), root / "processor", processor=processor, remote_code=True)
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    np.save(root / "frames.npy", frames)
    requests.append({"folder": str(root / "processor"), "frames": str(root / "frames.npy")})

    names = [*expected, "processor"]
    again = [
        {"folder": str(root / f"{model_type}-again"), "pixel_values": str(root / "clips.npy"), "trust": True}
        for model_type in TINY_CONFIGS
    ]
    names += [f"{model_type}-again" for model_type in TINY_CONFIGS]
    answers = dict(zip(names, ask(root, requests, again), strict=True))
    return {
        "root": root,
        "expected": expected,
        "answers": answers,
        "pixel_values": processor(frames)["pixel_values_videos"],
    }


def check_merges(answer: dict[str, Any], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    merged, unmerged = expected
    torch.testing.assert_close(torch.tensor(answer["logits"]), merged, rtol=0, atol=1e-6)
    assert (merged - unmerged).abs().max() > 1e-3, "the test could not fail"
    assert answer["class"].startswith("transformers_modules.")
    assert answer["missing_keys"] == answer["unexpected_keys"] == []


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_merges_without_the_package(shared, model_type):
    check_merges(shared["answers"][model_type], shared["expected"][model_type])


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_settings_are_described_without_the_package(shared, model_type):
    config_class, answer = ARCHITECTURES[model_type].config_class, shared["answers"][model_type]
    fields = config_class.token_merging_fields
    assert answer["settings"] == {name: info.description for name, info in fields.items()}
    assert "{names}" not in answer["help"]
    assert all(description in answer["help"] for description in answer["settings"].values())


@pytest.mark.parametrize("model_type", OLD_LAYOUTS)
def test_converts_older_checkpoints_without_the_package(shared, model_type):
    check_merges(shared["answers"][f"{model_type}-old"], shared["expected"][f"{model_type}-old"])


@pytest.mark.parametrize("model_type", TINY_CONFIGS)
def test_what_was_loaded_without_the_package_can_be_saved_and_loaded(shared, model_type):
    check_merges(shared["answers"][f"{model_type}-again"], shared["expected"][model_type])


def test_without_trust_it_is_the_stock_model(shared):
    answer = shared["answers"]["untrusted"]
    assert answer["class"] == "transformers.models.videomae.modeling_videomae.VideoMAEForVideoClassification"
    torch.testing.assert_close(torch.tensor(answer["logits"]), shared["expected"]["untrusted"][1], rtol=0, atol=1e-6)


def test_the_clip_processor_travels_too(shared):
    answer = torch.tensor(shared["answers"]["processor"]["pixel_values"])
    torch.testing.assert_close(answer, shared["pixel_values"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("trust", [None, True, False])
def test_with_the_package_its_own_code_runs(shared, trust):
    folder = shared["root"] / "videomae"
    model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=trust)
    assert type(model) is ARCHITECTURES["videomae"].head_class
    assert model.config.token_merging_r == 3


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_files_are_the_same_every_time_complete_and_licensed(model_type):
    code = collect_remote_code(model_type, processor=True)
    collect_remote_code.cache_clear()
    assert code == collect_remote_code(model_type, processor=True)
    for name, text in code.files.items():
        assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert all(alias.name.split(".")[0] != "hf_video_tome" for alias in node.names), name
            if isinstance(node, ast.ImportFrom):
                assert node.level or str(node.module).split(".")[0] != "hf_video_tome", name
                assert node.level < 2, name
                if node.level:
                    modules = [node.module] if node.module else [alias.name for alias in node.names]
                    assert {f"{module}.py" for module in modules} <= code.files.keys(), name
    assert "models.py" not in code.files, "which imports all architectures"
    others = {other for other in ARCHITECTURES if other != model_type}
    assert not [name for name in code.files if name.removeprefix("modeling_").removesuffix(".py") in others]


def test_files_are_collected_once_and_stay_as_they_are():
    code = collect_remote_code("vivit")
    assert collect_remote_code("vivit") is code
    with pytest.raises(TypeError):
        code.files["modeling_vivit.py"] = ""


def test_a_model_that_was_loaded_with_code_does_not_claim_it_when_saved_without(shared, tmp_path):
    model = AutoModelForVideoClassification.from_pretrained(shared["root"] / "videomae")
    files = save_checkpoint(model, tmp_path / "plain")
    assert files == ["config.json", "model.safetensors"]
    assert "auto_map" not in json.loads((tmp_path / "plain" / "config.json").read_text())


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match=r"model_type must be one of .*'videomae'.*, got 'resnet'"):
        collect_remote_code("resnet")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        save_remote_code(tmp_path)
