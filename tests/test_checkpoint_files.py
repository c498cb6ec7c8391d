"""Files of a checkpoint that are not what they should be: each is one line that names the file and the field.

A checkpoint is a stranger's folder. Nothing in it is run, and no number in it decides alone how much memory is taken.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hf_video_tome.cli import run
from hf_video_tome.loading import CheckpointError, load_classifier
from hf_video_tome.saved_files import read_json_object
from tests.classified_videos import PROCESSOR, save_checkpoint

LARGE = (2**17, 2**18)  # 128 GiB of float32
SOME_WEIGHT = "videomae.encoder.layer.1.output.dense.weight"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("intact"))


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(intact, tmp_path / "checkpoint"))


class Malicious:
    """Writes a file when it is unpickled by a loader that runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


def text(name: str, content: str | bytes) -> Change:
    """Replaces a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def fields(**changes: object) -> Change:
    """Changes fields of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def processor(**changes: object) -> Change:
    """Changes fields of the processor."""
    return text("preprocessor_config.json", json.dumps({**PROCESSOR, **changes}))


def weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Change:
    """Changes tensors of model.safetensors."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return write


def in_torch_file(make: Callable[[dict[str, Tensor]], object], **options: Any) -> Change:
    """Puts a pytorch_model.bin in the place of model.safetensors."""

    def write(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = make(load_file(path))
        path.unlink()
        torch.save(content, folder / "pytorch_model.bin", **options)

    return write


def index(content: object) -> Change:
    """Puts the index of several files in the place of model.safetensors."""

    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))

    return write


GARBAGE: dict[str, tuple[Change, str]] = {
    # config.json
    "a list": (text("config.json", "[1]"), r"config\.json: must hold a JSON object, got \[1\]"),
    "null": (text("config.json", "null"), r"config\.json: must hold a JSON object, got None"),
    "cut off": (text("config.json", '{"model_type": "vid'), r"config\.json: not valid JSON"),
    "another encoding": (text("config.json", "{}".encode("utf-16")), r"config\.json: not valid JSON"),
    "nesting without end": (text("config.json", "[" * 10**5), r"config\.json: not valid JSON \(maximum recursion"),
    "a number without end": (text("config.json", '{"a": 1' + "0" * 9999 + "}"), r"config\.json: not valid JSON"),
    "no architecture": (text("config.json", "{}"), r"config\.json: model_type None is not supported"),
    "a list as architecture": (fields(model_type=["videomae"]), r"model_type \['videomae'\] is not supported"),
    "unknown activation": (fields(hidden_act="exec"), r"config\.json: hidden_act must be one of gelu, .*got 'exec'"),
    "text as a size": (fields(hidden_size="24"), r"config\.json: .*'hidden_size' expected int, got str"),
    "no width": (fields(hidden_size=0), r"config\.json: hidden_size must be at least 1, got 0"),
    "negative heads": (fields(num_attention_heads=-2), r"num_attention_heads must be at least 1, got -2"),
    "heads that do not fit": (fields(num_attention_heads=5), r"config\.json: no model can be built from it: .* 5"),
    "not finite": (fields(layer_norm_eps=float("nan")), r"config\.json: layer_norm_eps must be a finite number"),
    "a module as dtype": (fields(dtype="load"), r"config\.json: dtype must be the name of a torch dtype, got 'load'"),
    "names of labels in a list": (fields(id2label=["a", "b"]), r"config\.json: id2label must be an object with a"),
    "labels without numbers": (fields(id2label={"7": "a"}), r"config\.json: id2label must be an object with a name"),
    "a method": (fields(to_dict=3), r"config\.json: to_dict is not a field of a config, got 3"),
    "a dunder": (fields(__class__="x"), r"config\.json: __class__ is not a field of a config, got 'x'"),
    "code map": (fields(auto_map=3), r"config\.json: auto_map must be an object, got 3"),
    "code of a repository": (fields(attn_implementation="a/b"), r"config\.json: attn_implementation must be .*'a/b'"),
    "weights elsewhere": (
        fields(transformers_weights="../a.safetensors"),
        r"transformers_weights must be the name",
    ),
    "quantization": (fields(quantization_config=[]), r"config\.json: quantization_config must be an object, got \[\]"),
    # sizes in it
    "layers": (fields(num_hidden_layers=10**9), r"num_hidden_layers must be an int from 0 to 1024, got 1000000000"),
    "huge layers": (fields(num_hidden_layers=10**400), r"num_hidden_layers must be .*\(401 characters\)"),
    "frames": (fields(num_frames=10**9), r"at most 134217728 values together, got 8000000000 tokens"),
    "pixels": (fields(image_size=10**30), r"config\.json: the tokens of a clip must have at most 134217728 values"),
    "width": (fields(hidden_size=10**12), r"at most 134217728 values together, .*hidden_size = 1000000000000"),
    "wide layers": (
        fields(intermediate_size=10**11),
        r"config\.json: such a model has at least \d+ weights .* while model\.safe",
    ),
    "labels": (fields(num_labels=10**9), r"config\.json: num_labels must be an int from 1 to 1048576, got 1000000000"),
    "r": (fields(token_merging_r=10**400), r"config\.json: token_merging_r must be .*no int above 9007199254740992"),
    # weights
    "none": (
        lambda folder: (folder / "model.safetensors").unlink(),
        r"no weights: none of model\.safetensors, .* there",
    ),
    "empty": (text("model.safetensors", b""), r"model\.safetensors: no readable safetensors file"),
    "header": (text("model.safetensors", struct.pack("<Q", 2**60)), r"model\.safetensors: no readable safetensors"),
    "whole numbers": (
        weights(lambda tensors: {**tensors, SOME_WEIGHT: tensors[SOME_WEIGHT].to(torch.int8)}),
        rf"model\.safetensors: {SOME_WEIGHT} must hold floating point numbers, got I8",
    ),
    "one more layer": (fields(num_hidden_layers=3), r"weights do not fit its config\.json: .*encoder\.layer\.3\."),
    "too few": (weights(lambda _: {"a": torch.zeros(1)}), r"config\.json: such a model has at least \d+ weights"),
    "index": (index([]), r"model\.safetensors\.index\.json: must hold a JSON object, got \[\]"),
    "files elsewhere": (
        index({"metadata": {}, "weight_map": {SOME_WEIGHT: "../model.safetensors"}}),
        r"index\.json: weight_map must name the file of each weight",
    ),
    "missing file": (
        index({"metadata": {}, "weight_map": {SOME_WEIGHT: "model-00002-of-00002.safetensors"}}),
        r"index\.json: weight_map names model-00002-of-00002\.safetensors, which is not there",
    ),
    "expanded": (
        in_torch_file(lambda tensors: {**tensors, SOME_WEIGHT: torch.zeros(1).expand(LARGE)}),
        rf"pytorch_model\.bin: {SOME_WEIGHT} must have values of its own, .* with 4 bytes of 137438953472",
    ),
    "expanded, of old torch": (
        in_torch_file(
            lambda tensors: {**tensors, "more": torch.zeros(1, 1).expand(LARGE)}, _use_new_zipfile_serialization=False
        ),
        r"pytorch_model\.bin: more must have values of its own",
    ),
    "sparse": (
        in_torch_file(lambda _: {"a": torch.sparse_coo_tensor([[0], [0]], [1.0], LARGE, check_invariants=True)}),
        r"pytorch_model\.bin: a must be a dense tensor with values",
    ),
    "no dictionary": (in_torch_file(lambda _: [1, 2]), r"pytorch_model\.bin: must hold tensors by their names"),
    "text as weights": (in_torch_file(lambda _: {"a": "b"}), r"pytorch_model\.bin: must hold tensors alone, got a, a"),
    "adapter": (text("adapter_config.json", "{}"), r"adapter_config\.json: cannot load a peft adapter"),
    # the processor
    "processor": (text("preprocessor_config.json", "3"), r"preprocessor_config\.json: must hold a JSON object, got 3"),
    "nested processor": (text("processor_config.json", "[" * 10**5), r"processor_config\.json: not valid JSON"),
    "huge frames": (processor(size=10**9), r"preprocessor_config\.json: .* more than 16 times as large"),
    "huge mean": (processor(image_mean=[10**400] * 3), r"mean must be a tuple of 3 finite numbers"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_one_line_that_names_the_file(folder: Path, name: str) -> None:
    change, message = GARBAGE[name]
    change(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_classifier(str(folder))
    assert str(caught.value).startswith(f"{folder}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("how", ["torch.save", "old torch.save", "pickle"])
def test_nothing_in_it_is_run(folder: Path, tmp_path: Path, how: str) -> None:
    trap = tmp_path / "trap"
    (folder / "model.safetensors").unlink()
    if how == "pickle":
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Malicious(trap)))
    else:
        content = {"a": Malicious(trap)}
        torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=how == "torch.save")
    for name in ("configuration_evil", "modeling_evil"):
        (folder / f"{name}.py").write_text(f"import os\nos.system('touch {trap}')\n")
    fields(auto_map={"AutoConfig": "configuration_evil.A", "AutoModelForVideoClassification": "modeling_evil.B"})(
        folder
    )
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: is (refused: its pickle names|no file of torch)"):
        load_classifier(str(folder))
    assert not trap.exists()


def test_a_torch_file_that_unpacks_to_more_than_it_is_is_refused(folder: Path) -> None:
    content = io.BytesIO()
    torch.save({"a": torch.zeros(2**20)}, content)
    (folder / "model.safetensors").unlink()
    with (
        zipfile.ZipFile(content) as plain,
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: is refused: its entries unpack to 4\d{6} bytes"):
        load_classifier(str(folder))


FINE: dict[str, Change] = {
    "torch.save": in_torch_file(lambda tensors: tensors),
    "torch.save of parameters, the old way": in_torch_file(
        lambda tensors: {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items()},
        _use_new_zipfile_serialization=False,
    ),
    "several files": index({"metadata": {}, "weight_map": {SOME_WEIGHT: "model-00001-of-00001.safetensors"}}),
    "other tensors beside them": weights(lambda tensors: {**tensors, "steps": torch.zeros(3, dtype=torch.int64)}),
    "half precision": weights(lambda tensors: {name: tensor.half() for name, tensor in tensors.items()}),
    "tuples instead of outputs": fields(return_dict=False),
    "attention weights as well": fields(output_attentions=True),
    "frames that are enlarged": processor(size={"shortest_edge": 40}),
}


@pytest.mark.parametrize("name", FINE)
def test_what_is_unusual_but_fine_is_loaded(folder: Path, intact: Path, name: str) -> None:
    FINE[name](folder)
    clip = torch.randn(1, 8, 3, 32, 32)
    with torch.no_grad():
        expected, actual = (load_classifier(str(place)).model(clip).logits for place in (intact, folder))
    torch.testing.assert_close(actual, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("command", ["classify", "visualize", "evaluate", "benchmark", "layers", "card", "save"])
def test_every_command_says_it_in_one_line(
    folder: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fields(hidden_act="exec")(folder)
    clip = tmp_path / "data" / "test" / "running" / "clip.mp4"
    clip.parent.mkdir(parents=True)
    clip.touch()
    data = ["--dataset", "class-folders", "--data-dir", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    arguments = {
        "classify": ["classify", str(clip), "--model", str(folder)],
        "visualize": ["visualize", str(clip), "--model", str(folder), "--output", str(tmp_path / "tokens.png")],
        "evaluate": ["evaluate", str(folder), *data],
        "benchmark": ["benchmark", str(folder), "--r", "4"],
        "layers": ["analyze", "layers", str(folder), *data],
        "card": ["card", str(folder)],
        "save": ["save", str(folder), str(tmp_path / "out")],
    }[command]
    assert run(arguments) == 2
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"{folder}: config.json: hidden_act must be one of " in errors[0]
    assert "Traceback" not in captured.err


def test_json_that_is_no_object_is_named_with_its_file(tmp_path: Path) -> None:
    for content, message in {"[": "not valid JSON", '"a"': "must hold a JSON object, got 'a'"}.items():
        (tmp_path / "file.json").write_text(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_json_object(tmp_path / "file.json")
        assert str(caught.value).startswith(str(tmp_path / "file.json"))
