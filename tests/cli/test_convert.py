from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForVideoClassification
from transformers.models.timesformer import modeling_timesformer as stock_timesformer
from transformers.models.videomae import modeling_videomae as stock_videomae

from hf_video_tome.cli.commands.convert import parse_label_groups, read_labels
from hf_video_tome.conversion.original_files import load_original_checkpoint
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.tasks import Task, classifier_tasks
from tests.cli.test_cli import check_refused, run_json
from tests.original_models import (
    FRAMES,
    SIZE,
    timesformer_logits,
    timesformer_weights,
    videomae_logits,
    videomae_weights,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "motionformer" / "original_state_dict.safetensors"
CLIP = ["--num-frames", FRAMES, "--image-size", SIZE]


class Malicious:
    """Writes a file when it is unpickled by a loader that runs what a pickle says."""

    def __init__(self, path: Path, function: Callable = os.system) -> None:
        self.path, self.function = path, function

    def __reduce__(self) -> tuple:
        return self.function, (f"touch {self.path}",)


def single(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in weights.items()}


def save(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.fixture
def videomae_file(tmp_path: Path) -> Path:
    return save(tmp_path / "videomae.pth", {"model": single(videomae_weights())})


@pytest.fixture
def timesformer_file(tmp_path: Path) -> Path:
    return save(tmp_path / "timesformer.pyth", {"model_state": single(timesformer_weights())})


# --- the result
def test_videomae_loads_in_plain_transformers_and_computes_the_same(
    tmp_path: Path, videomae_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "out"
    report = run_json(capsys, ["convert", "videomae", videomae_file, out, *CLIP])
    assert sorted(file.name for file in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    content = json.loads((out / "config.json").read_text())
    assert content["architectures"] == ["VideoMAEForVideoClassification"]
    assert not [name for name in content if name.startswith("token_merging")]
    model, loading = stock_videomae.VideoMAEForVideoClassification.from_pretrained(out, output_loading_info=True)
    assert not any(loading.values())
    assert type(model) is stock_videomae.VideoMAEForVideoClassification
    pixel_values = torch.randn(1, FRAMES, 3, SIZE, SIZE, dtype=torch.float64)
    weights = {name: tensor.double() for name, tensor in single(videomae_weights()).items()}
    with torch.no_grad():
        actual = model.double().eval()(pixel_values).logits
    torch.testing.assert_close(actual, videomae_logits(weights, pixel_values, 1e-5), atol=1e-6, rtol=0)
    assert report["config"]["num_frames"] == FRAMES
    assert report["label_groups"] is None
    assert report["parameters"] == sum(tensor.numel() for tensor in weights.values())
    assert set(report["used"]) == set(weights)
    assert report["unused"] == {}


def test_timesformer_loads_in_plain_transformers_and_computes_the_same(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_json(capsys, ["convert", "timesformer", timesformer_file, out])
    model, loading = stock_timesformer.TimesformerForVideoClassification.from_pretrained(out, output_loading_info=True)
    assert not any(loading.values())
    pixel_values = torch.randn(1, FRAMES, 3, SIZE, SIZE, dtype=torch.float64)
    weights = {name: tensor.double() for name, tensor in single(timesformer_weights()).items()}
    with torch.no_grad():
        actual = model.double().eval()(pixel_values).logits
    torch.testing.assert_close(actual, timesformer_logits(weights, pixel_values), atol=1e-6, rtol=0)


def test_motionformer_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run_json(capsys, ["convert", "motionformer", GOLDEN, tmp_path / "out", "--num-attention-heads", 3])
    assert report["config"]["num_frames"] == 8
    assert AutoModelForVideoClassification.from_pretrained(tmp_path / "out").config.num_labels == 7
    assert ClipTransform.from_pretrained(tmp_path / "out").mean == (0.5, 0.5, 0.5)


def test_the_result_merges_tokens(tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_json(capsys, ["convert", "timesformer", timesformer_file, tmp_path / "out"])
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out", token_merging_r=1)
    out = model(torch.zeros(1, FRAMES, 3, SIZE, SIZE), output_token_merging=True)
    assert out.token_merging.token_counts == (17, 13, 9)


@pytest.mark.parametrize(("architecture", "options"), [("videomae", CLIP), ("timesformer", [])])
def test_the_processor_is_the_usual_one(
    architecture: str,
    options: list,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    run_json(capsys, ["convert", architecture, request.getfixturevalue(f"{architecture}_file"), out, *options])
    config = AutoModelForVideoClassification.from_pretrained(out).config
    assert ClipTransform.from_pretrained(out, config=config) == ClipTransform.from_config(config)


def test_half_precision_is_saved_as_float32(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "half.pt", {name: tensor.half() for name, tensor in timesformer_weights().items()})
    run_json(capsys, ["convert", "timesformer", file, tmp_path / "out"])
    model = AutoModelForVideoClassification.from_pretrained(tmp_path / "out")
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_the_table_names_every_weight_once(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_video_tome.cli import run

    monkeypatch.setenv("COLUMNS", "200")
    assert run(["convert", "timesformer", str(timesformer_file), str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    assert "blocks.0-1.temporal_fc.weight" in captured.out
    assert "timesformer.encoder.layer.0-1.temporal_dense.weight" in captured.out
    assert "num attention heads  2  (from the width)" in captured.out
    assert captured.err == "note: the labels have no names: give them with --labels\n"


# --- files
@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: OrderedDict(weights),
        lambda weights: {"model_state": weights},
        lambda weights: {"module": weights},
        lambda weights: {"state_dict": {f"module.model.{name}": tensor for name, tensor in weights.items()}},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {"model": weights, "best": torch.tensor(0.5)},
    ],
    ids=["bare", "ordered", "model_state", "module", "DataParallel", "nested", "with a tensor beside"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_wrapped_weights_are_found(
    wrap: Callable, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = wrap(single(timesformer_weights()))
    file = save(tmp_path / "file.pyth", content, _use_new_zipfile_serialization=zipped)
    report = run_json(capsys, ["convert", "timesformer", file, tmp_path / "out"])
    assert len(report["used"]) == len(timesformer_weights())


def test_safetensors_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(single(timesformer_weights()), tmp_path / "weights.safetensors")
    run_json(capsys, ["convert", "timesformer", tmp_path / "weights.safetensors", tmp_path / "out"])


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_settings_of_the_training_are_harmless_and_used(
    zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {
        "model": single(videomae_weights()),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "model_ema": single(videomae_weights()),
        "epoch": 3,
        "best_accuracy": np.float64(0.5),
        "curve": np.arange(3),
        "args": argparse.Namespace(num_frames=8, num_segments=1, input_size=SIZE, lr=np.float32(0.1), output="out"),
    }
    file = save(tmp_path / "checkpoint.pth", content, _use_new_zipfile_serialization=zipped)
    report = run_json(capsys, ["convert", "videomae", file, tmp_path / "out"])
    assert (report["config"]["num_frames"], report["config"]["image_size"]) == (8, SIZE)
    assert report["assumed"]["num_frames"] == "the settings of the training in the file"
    assert report["unused"] == {
        "optimizer": "state of the optimizer",
        "model_ema": "other weights",
        "epoch": "progress of the training",
        "best_accuracy": "no weights but a numpy value",
        "curve": "no weights but a numpy value",
        "args": "settings of the training",
    }
    run_json(capsys, ["convert", "videomae", file, tmp_path / "ema", "--key", "model_ema", *CLIP])


def test_allowed_classes_are_allowed_for_one_file_only(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    load_original_checkpoint(
        save(tmp_path / "file.pth", {"model": {"x": torch.zeros(1)}, "args": argparse.Namespace()})
    )
    assert set(torch.serialization.get_safe_globals()) == before  # torch keeps them in no order


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("function", [os.system, eval, exec], ids=["os.system", "eval", "exec"])
def test_a_malicious_pickle_is_refused_and_not_run(
    function: Callable, zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap"
    content = {"model": single(timesformer_weights()), "args": Malicious(trap, function)}
    file = save(tmp_path / "evil.pth", content, _use_new_zipfile_serialization=zipped)
    name = "system" if function is os.system else function.__name__
    check_refused(
        capsys, ["convert", "timesformer", file, tmp_path / "out"], "is refused", name, "Nothing of it was run"
    )
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    if function is os.system:
        torch.load(file, weights_only=False)
        assert trap.exists(), "the file does no harm, so that nothing was shown"


def test_a_malicious_pickle_without_torch_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.pt"
    file.write_bytes(pickle.dumps(Malicious(tmp_path / "trap"), protocol=2))
    check_refused(capsys, ["convert", "timesformer", file, tmp_path / "out"], str(file))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_plain_pickle_is_named_as_what_it_is(
    protocol: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pkl"
    weights = {name: weight.numpy() for name, weight in single(timesformer_weights()).items()}
    file.write_bytes(pickle.dumps(weights, protocol=protocol))
    check_refused(
        capsys,
        ["convert", "timesformer", file, tmp_path / "out"],
        "weights.pkl is no file of torch.save but a plain pickle",
        'torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, "weights.pth")',
    )
    # What it says to do helps.
    torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, tmp_path / "weights.pth")
    assert run_json(capsys, ["convert", "timesformer", tmp_path / "weights.pth", tmp_path / "out"])["used"]


def test_objects_hidden_in_what_is_allowed_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trap = tmp_path / "trap"
    content = {
        "model": single(timesformer_weights()),
        "args": argparse.Namespace(callback=Malicious(trap)),
        "history": np.array([Malicious(trap)], dtype=object),
    }
    file = save(tmp_path / "evil.pth", content)
    check_refused(capsys, ["convert", "timesformer", file, tmp_path / "out"], "posix.system")
    assert not trap.exists()


HUGE = (2**17, 2**18)  # 128 GiB of float32


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.0.mlp.fc1.weight": torch.zeros(1).expand(HUGE)}, "blocks.0.mlp.fc1.weight must have values of its"),
        ({"more": torch.zeros(1, dtype=torch.float16).expand(HUGE)}, "with 2 bytes of 68719476736"),
        ({"blocks.1.norm1.bias": torch.zeros(2**10).as_strided(HUGE, (0, 0))}, "with 4096 bytes of 137438953472"),
        ({f"{number}": torch.zeros(9) for number in range(9)}, ""),
        (dict.fromkeys(map(str, range(9)), torch.zeros(2**20)), "must have values of their own"),
    ],
    ids=["one value", "of no use", "overlapping", "small", "shared"],
)
def test_weights_that_are_larger_than_their_storage_are_refused(
    change: dict[str, Tensor], message: str, new_format: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"model": {**single(videomae_weights()), **change}}
    file = save(tmp_path / "weights.pth", content, _use_new_zipfile_serialization=new_format)
    check_refused(capsys, ["convert", "videomae", file, tmp_path / "out"], message or "9 of its weights are unknown")


def test_a_file_that_unpacks_to_more_than_it_is_is_refused(
    tmp_path: Path, videomae_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        zipfile.ZipFile(save(tmp_path / "zeros.pth", {"model": {"a": torch.zeros(2**20)}})) as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    check_refused(
        capsys, ["convert", "videomae", tmp_path / "packed.pth", tmp_path / "out"], "its entries unpack to 41"
    )


@pytest.mark.parametrize("sizes", [{"num_frames": 10**400}, {"num_frames": 10**9}, {"input_size": 16 * 10**7}])
def test_settings_of_the_training_without_end_are_refused(
    sizes: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "a.pth", {"model": single(videomae_weights()), "args": argparse.Namespace(**sizes)})
    arguments = ["convert", "videomae", file, tmp_path / "out"]
    check_refused(capsys, arguments, "the tokens of a clip must have at most 134217728 values together")


def test_torchscript_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as file:
        file.writestr("script/constants.pkl", b"")
        file.writestr("script/version", b"3")
        file.writestr("script/data.pkl", b"")
    check_refused(capsys, ["convert", "videomae", tmp_path / "script.pt", tmp_path / "out"], "cannot be read")


def test_a_whole_model_is_refused_with_its_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = save(tmp_path / "model.pt", {"model": torch.nn.Linear(2, 2)})
    check_refused(capsys, ["convert", "videomae", file, tmp_path / "out"], "torch.nn.modules.linear.Linear")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("length", [0, 5, 20, 1000, -1], ids=["empty", "5", "20", "1000", "one byte"])
def test_truncated_files_are_refused(
    suffix: str, length: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"file{suffix}"
    (torch.save if suffix == ".pth" else save_file)(single(timesformer_weights()), file)
    file.write_bytes(file.read_bytes()[:length])
    check_refused(capsys, ["convert", "timesformer", file, tmp_path / "out"], str(file), "read")


def test_files_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.pth").write_text("not a checkpoint")
    arguments = ["convert", "timesformer"]
    check_refused(capsys, [*arguments, tmp_path / "text.pth", tmp_path / "out"], "cannot be read as a file of torch")
    check_refused(capsys, [*arguments, tmp_path / "absent.pth", tmp_path / "out"], "No such file", "absent.pth")
    check_refused(capsys, [*arguments, tmp_path / "absent.safetensors", tmp_path / "out"], "No such file")
    check_refused(capsys, [*arguments, tmp_path, tmp_path / "out"], "is a folder")


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        ([1, 2], [], ["holds a list"]),
        ({"optimizer": {}, "epoch": 3}, [], ["has none of model_state", "--key", "optimizer (dict), epoch (int)"]),
        ({"model": {"x": torch.zeros(1)}, "module": {"x": torch.zeros(1)}}, [], ["under model and module", "--key"]),
        (
            {"model": {"x": torch.zeros(1)}},
            ["--key", "teacher"],
            ["--key must be an entry with weights, got teacher", "model (dict)"],
        ),
        ({"model": {}}, [], ["has none of", "it holds nothing"]),
    ],
    ids=["list", "no weights", "two", "key", "empty"],
)
def test_files_without_weights_say_what_they_hold(
    content: object, options: list[str], parts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "file.pth", content)
    check_refused(capsys, ["convert", "videomae", file, tmp_path / "out", *options], *parts)


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content: dict[str, object] = {}
    content["model"] = content
    file = save(tmp_path / "file.pth", content)
    check_refused(capsys, ["convert", "videomae", file, tmp_path / "out"], "has weights nowhere")


# --- what the conversion refuses
def test_wrong_architecture(tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    check_refused(
        capsys, ["convert", "videomae", timesformer_file, out], "not the weights of a videomae", "timesformer"
    )
    check_refused(
        capsys,
        ["convert", "vivit", timesformer_file, out],
        "ARCHITECTURE must be one of motionformer, timesformer, videomae",
        "'vivit'",
    )
    assert not out.exists()


def test_missing_weights_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = single(timesformer_weights())
    del weights["blocks.1.temporal_fc.bias"]
    file = save(tmp_path / "file.pth", weights)
    check_refused(capsys, ["convert", "timesformer", file, tmp_path / "out"], "missing: blocks.1.temporal_fc.bias")
    ignoring = ["convert", "timesformer", file, tmp_path / "out", "--ignore-unknown"]
    check_refused(capsys, ignoring, "missing: blocks.1.temporal_fc.bias")


def test_unknown_weights_fail_unless_they_are_to_be_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = save(tmp_path / "file.pth", single(timesformer_weights()) | {"blocks.0.attn.gate": torch.zeros(1)})
    arguments = ["convert", "timesformer", file, tmp_path / "out"]
    check_refused(capsys, arguments, "1 of its weights are unknown (blocks.0.attn.gate)", "--ignore-unknown")
    assert not (tmp_path / "out").exists()
    report = run_json(capsys, [*arguments, "--ignore-unknown"])
    assert report["unused"] == {"blocks.0.attn.gate": "the model has no place for it"}


def test_options_that_contradict_the_weights_are_called_by_their_names(
    tmp_path: Path, timesformer_file: Path, videomae_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    check_refused(
        capsys, ["convert", "timesformer", timesformer_file, out, "--num-frames", 8], "--num-frames must be 4", "got 8"
    )
    check_refused(
        capsys, ["convert", "videomae", videomae_file, out, "--num-attention-heads", 3], "--num-attention-heads must"
    )
    check_refused(
        capsys, ["convert", "videomae", videomae_file, out, "--label-groups", "a=2,b=2"], "--label-groups must have"
    )


# --- labels
def label_file(path: Path, names: list[str]) -> Path:
    if path.suffix == ".txt":
        path.write_text("".join(f"{name}\n" for name in names))
    elif path.suffix == ".csv":
        path.write_text("id,name\n" + "".join(f'{index},"{name}"\n' for index, name in enumerate(names)))
    else:
        path.write_text(json.dumps(names))
    return path


NAMES = ["abseiling", "a, b", "café", "dancing", "42"]


@pytest.mark.parametrize("name", ["labels.txt", "labels.csv", "labels.json", "a=b.txt"])
def test_labels_are_set(
    name: str,
    tmp_path: Path,
    timesformer_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    label_file(tmp_path / name, NAMES)
    run_json(capsys, ["convert", "timesformer", timesformer_file, "out", "--labels", name])
    config = AutoModelForVideoClassification.from_pretrained("out").config
    assert config.id2label == dict(enumerate(NAMES))
    assert config.label2id == {name: index for index, name in enumerate(NAMES)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"b": 1, "a": 0, "c": "2"}'),
        ("a.json", '{"1": "b", "0": "a", "2": "c"}'),
        ("a.csv", "1,b\n0,a\n2,c\n"),
        ("a.csv", "\ufeffid,key,instances,category\n0,a,\"['a']\",x\n1,b,\"['b', 'd']\",x\n2,c,[],x\n"),
        ("a.csv", "name,id\nb,1\na,0\nc,2\n"),
        ("a.txt", "a\nb\n c \n"),
    ],
    ids=["names to numbers", "numbers to names", "no header", "EPIC-KITCHENS", "other order", "lines"],
)
def test_formats_of_label_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / name) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("a.csv", "0,a\n2,b\n", "the indices must be 0, 1, 2, ..., got [0, 2]"),
        ("a.csv", "1,a\n2,b\n", "the indices must be 0, 1, 2, ..., got [1, 2]"),
        ("a.csv", "0,a\n0,b\n", "the index of 'b' must be an integer that no other class has, got 0"),
        ("a.csv", "0,a\n1\n", "line 2: has 1 cells"),
        ("a.csv", "a\n", "holds no row"),
        ("a.csv", "foo,bar\n0,a\n", "must have one of the columns id"),
        ("a.json", "3", "must hold a list of names or a mapping"),
        ("a.json", '{"a": "b"}', "the index of 'a' must be an integer that no other class has, got 'b'"),
        ("a.json", "{", "Expecting"),
        ("a.txt", "a\n\nb\n", "the name of class 1 must be text that is not empty"),
        ("a.txt", "a\na\n", "'a' is there already"),
        ("a.txt", "", "the indices must be 0, 1, 2, ..., got []"),
        ("a.yaml", "a", "must be a .txt, .csv, .json file"),
        ("b.txt", None, "no such file"),
    ],
)
def test_label_files_that_are_wrong_are_refused(
    name: str, text: str | None, part: str, tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    arguments = ["convert", "timesformer", timesformer_file, tmp_path / "out", "--labels", tmp_path / name]
    check_refused(capsys, arguments, f"--labels {tmp_path / name}", part)
    assert not (tmp_path / "out").exists()


def test_labels_must_be_as_many_as_outputs(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = label_file(tmp_path / "labels.txt", NAMES[:4])
    arguments = ["convert", "timesformer", timesformer_file, tmp_path / "out", "--labels", labels]
    check_refused(capsys, arguments, "has 4 labels, while the classifier has 5 outputs")


@pytest.fixture
def epic(tmp_path: Path) -> dict[str, Path]:
    """A checkpoint with two heads, and label files; a verb and a noun have one name."""
    weights = single(videomae_weights(num_labels=397))
    heads = {
        f"head_{task}.{kind}": weights[f"head.{kind}"][rows].clone()
        for task, rows in (("verb", slice(97)), ("noun", slice(97, None)))
        for kind in ("weight", "bias")
    }
    others = {name: tensor for name, tensor in weights.items() if not name.startswith("head.")}
    verbs = ["fold", *(f"verb {index}" for index in range(1, 97))]
    nouns = ["fold", *(f"noun {index}" for index in range(1, 300))]
    return {
        "checkpoint": save(tmp_path / "epic.pth", {"module": others | heads}),
        "one head": save(tmp_path / "one.pth", {"module": weights}),
        "verb": label_file(tmp_path / "verbs.csv", verbs),
        "noun": label_file(tmp_path / "nouns.csv", nouns),
    }


@pytest.mark.parametrize("file", ["checkpoint", "one head"])
def test_epic_kitchens_has_two_tasks_in_one_classifier(
    file: str, tmp_path: Path, epic: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["--labels", f"noun={epic['noun']}", "--labels", f"verb={epic['verb']}"]
    report = run_json(capsys, ["convert", "videomae", epic[file], tmp_path / "out", *CLIP, *labels])
    assert report["label_groups"] == {"verb": [0, 97], "noun": [97, 397]}
    assert ("label_groups" in report["assumed"]) == (file == "one head")
    config = AutoModelForVideoClassification.from_pretrained(tmp_path / "out").config
    assert classifier_tasks(config) == (Task("verb", 0, 97), Task("noun", 97, 300))
    assert (config.id2label[0], config.id2label[96]) == ("fold", "verb 96")
    assert (config.id2label[97], config.id2label[396]) == ("fold", "noun 299")
    assert config.label2id["fold"] == 0
    assert config.label2id["fold (noun)"] == 97  # nothing is lost
    assert sorted(config.label2id.values()) == list(range(397))
    assert all(config.label2id[name] == index for index, name in config.id2label.items() if index != 97)


def test_label_groups_can_be_said(
    tmp_path: Path, timesformer_file: Path, epic: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", "timesformer", timesformer_file, tmp_path / "out", "--label-groups", "verb=2,noun=3"]
    assert run_json(capsys, arguments)["label_groups"] == {"verb": [0, 2], "noun": [2, 5]}
    arguments = ["convert", "videomae", epic["one head"], tmp_path / "one", *CLIP, "--label-groups", "none"]
    assert run_json(capsys, arguments)["label_groups"] is None
    assert not hasattr(AutoModelForVideoClassification.from_pretrained(tmp_path / "one").config, "label_groups")


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (["verb={verb}"], "no file for noun"),
        (["verb={verb}", "noun={verb}"], "has 97 labels, while the classifier has 300 noun outputs"),
        (["verb={verb}", "{noun}"], "one file for all labels or one for each task"),
        (["verb={verb}", "verb={noun}"], "another file for the same labels"),
        (["action={verb}"], "the tasks of the classifier are verb, noun"),
        (["{verb}"], "has 97 labels, while the classifier has 397 outputs"),
    ],
)
def test_labels_of_tasks_that_do_not_fit_are_refused(
    labels: list[str], part: str, tmp_path: Path, epic: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [word for text in labels for word in ("--labels", text.format(**epic))]
    check_refused(capsys, ["convert", "videomae", epic["checkpoint"], tmp_path / "out", *CLIP, *options], part)


@pytest.mark.parametrize("text", ["", "verb", "verb=", "verb=0", "verb=97,verb=300", "label=397", "verb=97;noun=300"])
def test_label_groups_that_are_none_are_refused(
    text: str, tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["convert", "timesformer", timesformer_file, tmp_path / "out", "--label-groups", text]
    check_refused(capsys, arguments, "--label-groups must be like verb=97,noun=300, or none", repr(text))
    assert parse_label_groups("noun=3,verb=2") == {"noun": 3, "verb": 2}


# --- the folder
def test_folders_are_replaced_only_when_told(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["convert", "timesformer", timesformer_file, out]
    run_json(capsys, arguments)
    (out / "preprocessor_config.json").write_text("old")
    check_refused(capsys, arguments, f"{out} already exists; replace it with --overwrite")
    assert (out / "preprocessor_config.json").read_text() == "old"
    run_json(capsys, [*arguments, "--overwrite"])
    assert (out / "preprocessor_config.json").read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "timesformer.pyth"]


def test_nothing_that_the_command_did_not_write_is_ever_deleted(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_json(capsys, ["convert", "timesformer", timesformer_file, out])
    original = timesformer_file.rename(out / "original.pyth")
    arguments = ["convert", "timesformer", original, out, "--overwrite"]
    check_refused(capsys, arguments, "has other files than a converted checkpoint (original.pyth)")
    assert original.exists()


def test_folders_that_are_no_checkpoints_are_never_replaced(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in (tmp_path / "photos", timesformer_file, tmp_path / "link"):
        arguments = ["convert", "timesformer", timesformer_file, out, "--overwrite"]
        check_refused(capsys, arguments, f"{out} is not a checkpoint folder")


def test_a_failure_while_writing_leaves_everything_as_it_was(
    tmp_path: Path, timesformer_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hf_video_tome.cli.commands import convert

    out = tmp_path / "out"
    arguments = ["convert", "timesformer", timesformer_file, out]
    run_json(capsys, arguments)
    (out / "preprocessor_config.json").write_text("old")

    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(convert, "_check_loading", full)
    check_refused(capsys, [*arguments, "--overwrite"], "No space left on device")
    assert (out / "preprocessor_config.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "timesformer.pyth"]
