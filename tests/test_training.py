"""Training: what Trainer restores, random views, splits by group, metrics for loggers, and the example scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForVideoClassification, Trainer, TrainingArguments, pipeline

import hf_video_tome
from hf_video_tome.data import ClipAugmentation, ClipTransform, load, split_by_group
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.models import ARCHITECTURES
from tests.scripts import load_script
from tests.tiny import TINY_CONFIGS


def tiny(model_type: str, stock: bool = False, seed: int = 0) -> Any:
    architecture = ARCHITECTURES[model_type]
    torch.manual_seed(seed)
    head, config = (
        (architecture.stock_head_class, architecture.stock_config_class)
        if stock
        else (architecture.head_class, architecture.config_class)
    )
    model = head(config(**TINY_CONFIGS[model_type]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def assert_same_weights(model: Any, expected: Any) -> None:
    state, other = model.state_dict(), expected.state_dict()
    assert state.keys() == other.keys()
    assert [name for name in state if not torch.equal(state[name], other[name])] == []


# --- weights under the names that they have in files
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("model_type", list(ARCHITECTURES))
def test_a_model_that_exists_takes_the_weights_of_a_file(model_type: str, applied: bool, tmp_path: Path) -> None:
    saved = tiny(model_type)
    saved.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    model = tiny(model_type, stock=applied, seed=1)
    if applied:
        hf_video_tome.apply_token_merging(model, r=1)
    names = list(weights)
    assert model.load_state_dict(weights) == ([], [])
    assert list(weights) == names  # those of the caller stay
    assert_same_weights(model, saved)


def test_other_names_stay_what_they_are(tmp_path: Path) -> None:
    saved, model = tiny("videomae"), tiny("videomae", seed=1)
    saved.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    wrapped = torch.nn.ModuleDict({"module": model})
    outcome = wrapped.load_state_dict(
        {f"module.{name}": value for name, value in weights.items()} | {"x.y": torch.ones(1)}, False
    )
    assert outcome == ([], ["x.y"])
    assert_same_weights(model, saved)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"classifier.weight\""):
        tiny("videomae").load_state_dict(
            {name: value for name, value in weights.items() if name != "classifier.weight"}
        )


class Clips(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(4, 3, 32, 32, generator=generator), "labels": torch.tensor(index % 3)}


def trainer_for(model: Any, folder: Path, **arguments: Any) -> Trainer:
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        save_steps=1,
        eval_steps=1,
        eval_strategy="steps",
        save_strategy="steps",
        per_device_train_batch_size=3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **arguments,
    )
    return Trainer(model, settings, train_dataset=Clips(), eval_dataset=Clips())


@pytest.mark.parametrize("model_type", ["videomae", "vivit"])
def test_trainer_goes_back_to_the_whole_of_the_best_model(model_type: str, tmp_path: Path) -> None:
    model = tiny(model_type)
    model.set_token_merging(r=4)
    trainer = trainer_for(
        model, tmp_path, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True
    )
    trainer.train()  # the highest loss is that of the first checkpoint, so that there is something to go back to
    best = trainer.state.best_model_checkpoint
    assert best is not None
    assert not best.endswith("-3")
    assert_same_weights(model, AutoModelForVideoClassification.from_pretrained(best))


@pytest.mark.parametrize("model_type", ["videomae", "vivit"])
def test_trainer_resumes_with_all_weights(model_type: str, tmp_path: Path) -> None:
    whole = tiny(model_type)
    trainer_for(whole, tmp_path).train()
    resumed = tiny(model_type, seed=1)
    trainer_for(resumed, tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, msg=name)


# --- random views
@pytest.mark.parametrize("size", [(64, 48), (48, 64), (32, 32), (20, 90)])
def test_an_augmented_clip_is_a_part_of_it(size: tuple[int, int]) -> None:
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    frames = torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8).repeat(3, 1, 1, 1)
    transform = ClipTransform(resize=24, crop=(24, 32), mean=None, std=None, rescale_factor=1.0)
    augment = ClipAugmentation(transform, min_area=0.2, flip=0.5)
    views = [augment(frames) for _ in range(20)]
    for view in views:
        assert view.shape == (3, 3, 24, 32)
        assert torch.equal(view[0], view[1])  # one crop for all frames
        assert (view[:, 2] == 7).all()
        assert (view[0, 0].diff(dim=0) >= 0).all()  # rows go down, however small the crop
    mirrored = [bool(view[0, 1, 0, 0] > view[0, 1, 0, -1]) for view in views]
    assert 3 < sum(mirrored) < 17
    assert len({tuple(view[0, :, 0, 0].tolist()) for view in views}) > 10


def test_an_augmentation_that_leaves_all_is_the_transform() -> None:
    frames = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    transform = ClipTransform(resize=32, crop=(32, 32), subtract_mean_frame=True)
    assert torch.equal(ClipAugmentation(transform, min_area=1, max_stretch=1)(frames), transform(frames))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [("min_area", 0, "above 0 and at most 1"), ("max_stretch", 0.5, "at least 1"), ("flip", 1.5, "from 0 to 1")],
)
def test_augmentations_out_of_range_are_refused(field: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be {allowed}, got {value}"):
        ClipAugmentation(ClipTransform(), **{field: value})
    with pytest.raises(ValueError, match="transform must make frames of one size"):
        ClipAugmentation(ClipTransform(resize=32, crop=None))


# --- the mean frame
def test_the_mean_frame_is_that_of_each_clip() -> None:
    plain = ClipTransform(resize=32, crop=(32, 32))
    transform = replace(plain, subtract_mean_frame=True)
    clips = torch.randint(0, 256, (2, 2, 5, 3, 32, 32), dtype=torch.uint8)  # 2 videos of 2 views
    expected = plain.normalize(clips)
    torch.testing.assert_close(transform.normalize(clips), expected - expected.mean(2, keepdim=True))
    torch.testing.assert_close(transform(clips[1, 0]), transform.normalize(clips)[1, 0])
    still = torch.full((5, 3, 32, 32), 9, dtype=torch.uint8)
    assert transform(still).abs().max() < 1e-6
    with pytest.raises(
        ValueError, match=r"must have the shape \(\.\.\., T, 3, h, w\), none of them 0, got \(3, 32, 32\)"
    ):
        transform.normalize(still[0])
    assert ClipTransform.from_dict(transform.to_processor_settings()) == transform
    with pytest.raises(ValueError, match="'subtract_mean_frame' must be True or False, got 'yes'"):
        ClipTransform.from_dict({**transform.to_processor_settings(), "subtract_mean_frame": "yes"})


def test_a_checkpoint_keeps_its_mean_frame(tmp_path: Path) -> None:
    """Through the Auto class and the pipeline, under the name that the model gives its input."""
    model = tiny("videomae")
    model.save_pretrained(tmp_path)
    transform = ClipTransform(resize=32, crop=(32, 32), subtract_mean_frame=True)
    hf_video_tome.ClipProcessor.from_transform(transform, model.main_input_name).save_pretrained(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    inputs = AutoImageProcessor.from_pretrained(tmp_path)(list(frames), return_tensors="pt")
    assert list(inputs) == ["pixel_values"]
    torch.testing.assert_close(inputs["pixel_values"][0], transform(torch.from_numpy(frames).permute(0, 3, 1, 2)))
    clip = write_video(tmp_path / "clip.mp4", frames, fps=8)
    assert len(pipeline("video-classification", str(tmp_path), device="cpu")(str(clip), top_k=3)) == 3
    with pytest.raises(ValueError, match="model_input_name must be 'pixel_values_videos' or 'pixel_values', got 'x'"):
        hf_video_tome.ClipProcessor.from_transform(transform, "x")


# --- splits by group
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40),
    st.sampled_from([None, 0.2, 0.5]),
    st.sampled_from([None, 0.3]),
    st.integers(0, 3),
)
def test_no_group_is_in_two_splits(people: list[int], validation: float | None, test: float | None, seed: int) -> None:
    rows = [{"video_id": f"jump/p{person}_{take}.mp4", "take": take} for take, person in enumerate(people)]
    needed = sum(max(1, round(share * len(set(people)))) for share in (validation, test) if share)
    if needed >= len(set(people)):
        return
    splits = split_by_group(rows, r"p(\d)", validation, test, seed)
    assert sorted(row["take"] for part in splits.values() for row in part) == list(range(len(rows)))
    groups = {split: {row["video_id"][6] for row in part} for split, part in splits.items()}
    assert sum(map(len, groups.values())) == len(set(people))
    assert set(splits) == {"train"} | ({"validation"} if validation else set()) | ({"test"} if test else set())
    assert splits == split_by_group(rows, r"p(\d)", validation, test, seed)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, four persons: squares that move to the right or downwards."""
    root = tmp_path_factory.mktemp("videos")
    for axis, name in ((2, "right"), (1, "down")):
        (root / "train" / name).mkdir(parents=True)
        for person in range(1, 5):
            for take in "ab":
                frames = np.zeros((8, 32, 40, 3), dtype=np.uint8)
                frames[:, 8:16, 8:16] = 40 * person + 40
                moved = np.stack([np.roll(frame, 3 * t, axis=axis - 1) for t, frame in enumerate(frames)])
                write_video(root / "train" / name / f"person{person:02}_{take}.mp4", moved, fps=8)
    return root


def test_class_folders_are_split_by_group(videos: Path, tmp_path: Path) -> None:
    options = {"group_by": r"person(\d+)", "validation_groups": "02", "test_groups": ["03", "04"]}
    splits = load("class-folders", None, videos, cache_dir=tmp_path, **options)
    people = {
        split: sorted({row["video_id"].split("person")[1][:2] for row in rows}) for split, rows in splits.items()
    }
    assert people == {"train": ["01"], "validation": ["02"], "test": ["03", "04"]}
    assert len(load("class-folders", "test", videos, cache_dir=tmp_path, **options)) == 8


def test_split_folders_that_are_joined_keep_their_videos_apart(tmp_path: Path) -> None:
    for name in ("train/run/p1.mp4", "test/run/p1.mp4", "test/run/p2.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "data" / name, np.zeros((2, 16, 16, 3), dtype=np.uint8), fps=8)
    splits = load("class-folders", None, tmp_path / "data", cache_dir=tmp_path, group_by=r"p\d", test_groups="p2")
    assert {split: rows["video_id"][:] for split, rows in splits.items()} == {
        "train": ["train/run/p1.mp4", "test/run/p1.mp4"],
        "test": ["run/p2.mp4"],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_by": 1}, r"group_by must be a regular expression, got 1"),
        ({"group_by": "("}, r"group_by must be a regular expression, got '\('"),
        ({"group_by": "user"}, "group_by: 'user' finds no group in 'down/person01_a.mp4'"),
        ({"validation_groups": 0.5}, "validation_groups needs group_by, got 0.5 without it"),
        ({"group_by": r"person\d+", "test_groups": "01"}, "must be among the groups person01, .*; got '01'"),
        ({"group_by": r"\d+", "test_groups": "01", "validation_groups": "01"}, "'01' is in two splits"),
        ({"group_by": r"\d+", "test_groups": 1.5}, "test_groups must be names, or a share .*, got 1.5 of 4 groups"),
        ({"group_by": r"\d+", "test_groups": "01,02,03,04"}, "no group is left for training"),
    ],
)
def test_groups_that_make_no_splits_are_refused(videos: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load("class-folders", "train", videos, streaming=True, **options)


# --- the example
@pytest.fixture(scope="module")
def examples() -> dict[str, ModuleType]:
    return {name: load_script(name) for name in ("train_class_folder", "pretrain_videomae")}


TINY = {key: value for key, value in TINY_CONFIGS["videomae"].items() if key != "num_labels"}


def arguments(videos: Path, output: Path, **others: Any) -> list[str]:
    options = {
        "data_dir": videos,
        "group_by": r"person\d+",
        "validation_groups": "person02",
        "output_dir": output,
        "num_train_epochs": 2,
        "use_cpu": True,
        "disable_tqdm": True,
        **others,
    }
    return [
        f"--{name}={value if isinstance(value, (str, Path)) else json.dumps(value)}" for name, value in options.items()
    ]


def test_the_example_trains_saves_and_evaluates(
    examples: dict[str, ModuleType], videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, output = examples["train_class_folder"], tmp_path / "model"
    scratch = {
        "architecture": "videomae",
        "config": TINY,
        "test_groups": "0.25",
        "cache_size": 36,
        "cache_dir": tmp_path / "cache",
        "subtract_mean_frame": True,
        "token_merging": {"r": 4},
        "evaluate": [{"r": 0}, {"r": 8}],
    }
    report = script.main(arguments(videos, output, **scratch))
    assert report["videos"] == {"train": 8, "validation": 4, "test": 4}
    assert json.loads((output / "results.json").read_text()) == report
    assert [line["tokens"][-1] for line in report["settings"]] == [32, 8]
    model = AutoModelForVideoClassification.from_pretrained(output)
    assert model.config.id2label == {0: "down", 1: "right"}
    assert model.config.token_merging_r == 4
    assert ClipTransform.from_pretrained(output, model.config).subtract_mean_frame
    log = json.loads(
        (output / "trainer_state.json").read_text()
        if (output / "trainer_state.json").exists()
        else next(output.glob("checkpoint-*/trainer_state.json")).read_text()
    )["log_history"]
    evaluated = [entry for entry in log if "eval_accuracy" in entry]
    assert {"eval_accuracy/down", "eval_accuracy/right", "eval_nll", "eval_mean_class_accuracy"} <= set(evaluated[0])

    # From there: fine-tuned, resumed, decoding each time.
    again = {"checkpoint": output, "num_train_epochs": 3, "evaluate": [{"r": 0}]}
    (videos / "train" / "down" / "person01_c.mp4").write_bytes(b"no video")
    report = script.main(arguments(videos, tmp_path / "tuned", **again))
    assert report["videos"] == {"train": 12, "validation": 4}
    assert "left out: down/person01_c.mp4: not a video" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="has a finished training; replace it with --overwrite"):
        script.main(arguments(videos, tmp_path / "tuned", **again))
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "tuned").glob("checkpoint-*"))
    resumed = script.main(
        arguments(
            videos, tmp_path / "tuned", **again, resume_from_checkpoint=tmp_path / "tuned" / f"checkpoint-{steps[0]}"
        )
    )
    assert resumed["split"] == "validation"
    assert resumed["resumed"]
    (videos / "train" / "down" / "person01_c.mp4").unlink()


def test_pretraining_makes_a_checkpoint_to_fine_tune(
    examples: dict[str, ModuleType], videos: Path, tmp_path: Path
) -> None:
    masks = examples["pretrain_videomae"].tube_masks(5, 2, 16, 0.75).view(5, 2, 16)
    assert torch.equal(masks[:, 0], masks[:, 1])
    assert masks[:, 0].sum(1).tolist() == [12] * 5
    assert len({tuple(mask) for mask in masks[:, 0].tolist()}) > 1

    examples["pretrain_videomae"].main(arguments(videos, tmp_path / "pretrained", config=TINY, mask_ratio=0.75))
    pretrained = load_file(tmp_path / "pretrained" / "model.safetensors")
    model = examples["train_class_folder"].make_model(
        examples["train_class_folder"].ModelArguments(checkpoint=str(tmp_path / "pretrained")), ["down", "right"]
    )
    name = "videomae.encoder.layer.0.intermediate.dense.weight"
    assert torch.equal(model.state_dict()[name], pretrained[name])
    assert model.classifier.out_features == 2


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"architecture": "videomae", "checkpoint": "x"}, "either --checkpoint to fine-tune, or --architecture"),
        ({"architecture": "videomae", "validation_groups": None}, "train and validation are needed"),
        ({"architecture": "resnet"}, "--architecture must be one of motionformer, .*, got 'resnet'"),
        ({"architecture": "videomae", "config": {"imagesize": 48}}, "VideoMAEConfig has no field 'imagesize'"),
        ({"architecture": "videomae", "config": TINY, "evaluate": {"r": 0}}, "--evaluate must be a list such as"),
        (
            {"architecture": "videomae", "config": TINY, "evaluate": [{"rr": 3}]},
            "error: token_merging_rr is not a setting",
        ),
        ({"architecture": "videomae", "config": TINY, "token_merging": "r=3"}, "--token_merging must be JSON, got"),
        ({"checkpoint": "no-such/folder/at-all"}, "error: no-such/folder/at-all: no such folder"),
        ({"architecture": "videomae", "resume_from_checkpoint": "last"}, "must be a folder, or last, got 'last'"),
        ({"architecture": "videomae", "group_by": "user"}, "finds no group in"),
    ],
)
def test_the_example_says_what_is_missing(
    examples: dict[str, ModuleType], videos: Path, tmp_path: Path, others: dict[str, Any], message: str
) -> None:
    options = [option for option in arguments(videos, tmp_path, **others) if not option.endswith("=null")]
    with pytest.raises(SystemExit, match=message):
        examples["train_class_folder"].main(options)


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "videoprism_vision_model"])
def test_models_from_scratch_know_their_places(examples: dict[str, ModuleType], architecture: str) -> None:
    script = examples["train_class_folder"]
    config = {key: value for key, value in TINY_CONFIGS[architecture].items() if key != "num_labels"}
    model = script.make_model(script.ModelArguments(architecture=architecture, config=json.dumps(config)), ["a", "b"])
    embeddings = getattr(model.base_model, "embeddings", None)
    learned = [
        value
        for name, value in (embeddings.named_parameters() if embeddings else ())
        if "position" in name or "time" in name
    ]
    for codes in learned:
        places = codes[0] if codes.shape[1] in (2, 4) else codes[0, 1:]
        assert len(torch.unique(places, dim=0)) == len(places)
    assert bool(learned) == (architecture in ("vivit", "timesformer", "motionformer"))
