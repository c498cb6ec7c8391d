r"""Train or fine-tune a video classifier on a folder of class folders, with or without token merging.

    python examples/train_class_folder.py --data_dir my-videos --checkpoint MCG-NJU/videomae-base \
        --group_by 'person\d+' --validation_groups 0.2 --test_groups 0.2 --output_dir my-model

All options of `transformers.TrainingArguments` are available: `--bf16`, `--gradient_accumulation_steps 4`,
`--resume_from_checkpoint my-model/checkpoint-500`. See "Training on your own videos" in the docs for a step-by-step
guide.

The best epoch on the validation split is saved as a checkpoint with its processor, ready for `from_pretrained`, the
pipeline and the commands of hf-video-tome. Finally, the test split (or the validation split, if there is none) is
evaluated with the settings of `--evaluate`.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets.fingerprint import Hasher
from transformers import (
    AutoConfig,
    AutoModelForVideoClassification,
    EarlyStoppingCallback,
    HfArgumentParser,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

import hf_video_tome
from hf_video_tome.data import (
    ClipAugmentation,
    ClipSampling,
    ClipTransform,
    VideoDecodingError,
    load,
    probe_video,
    read_frames,
)
from hf_video_tome.data.groups import group_of
from hf_video_tome.evaluation import evaluate
from hf_video_tome.loading import find_checkpoint
from hf_video_tome.metrics import trainer_metrics
from hf_video_tome.models import ARCHITECTURES

BLOCK = 64
"""Number of frames to decode at a time."""


@dataclass
class DataArguments:
    """Options for the videos and clips."""

    data_dir: str = field(
        metadata={"help": "Folder with class folders, or with split folders (train, val, test) of them."}
    )
    group_by: str | None = field(
        default=None, metadata={"help": "Regular expression for the group (person, scene) of a video in CLASS/FILE."}
    )
    validation_groups: str | None = field(
        default=None,
        metadata={"help": "Groups for selecting the best epoch: comma-separated names, or a share (0.2)."},
    )
    test_groups: str | None = field(default=None, metadata={"help": "Groups for the final evaluation, likewise."})
    group_seed: int = field(default=0, metadata={"help": "Seed for drawing shares of groups."})
    views: int = field(
        default=4, metadata={"help": "Number of clips per training video, evenly spaced within segments."}
    )
    cache_size: int | None = field(
        default=None,
        metadata={"help": "Decode every video once and store all frames, with this shortest edge in pixels."},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Folder for stored frames; by default the cache of `datasets`."}
    )
    subtract_mean_frame: bool = field(
        default=False, metadata={"help": "Subtract each clip's mean frame, so that the model only sees motion."}
    )
    min_area: float = field(default=0.5, metadata={"help": "Area of the smallest crop, relative to the largest."})
    flip: float = field(default=0.0, metadata={"help": "Probability of mirroring a clip; 0 if sides matter."})


@dataclass
class ModelArguments:
    """Options for the model."""

    checkpoint: str | None = field(default=None, metadata={"help": "Hub id or folder to fine-tune."})
    architecture: str | None = field(
        default=None, metadata={"help": f"Architecture to train from scratch: {', '.join(ARCHITECTURES)}."}
    )
    config: str = field(default="{}", metadata={"help": "Config fields as JSON, with --architecture."})
    token_merging: str = field(
        default="{}", metadata={"help": 'Token merging settings in training as JSON, such as {"r": 40}.'}
    )
    evaluate: str = field(
        default='[{"r": 0}]', metadata={"help": 'Settings to evaluate as JSON: [{"r": 0}, {"r": 40}].'}
    )
    patience: int = field(
        default=0, metadata={"help": "Stop after this many epochs without improvement; 0 disables this."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace a finished training in --output_dir."})


@dataclass
class ClassFolderTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` with defaults for fine-tuning on videos."""

    output_dir: str = "trained"
    num_train_epochs: float = 20
    per_device_train_batch_size: int = 8
    per_device_eval_batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    warmup_steps: float = 0.1
    lr_scheduler_type: str = "cosine"
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int = 2
    logging_strategy: str = "epoch"
    load_best_model_at_end: bool = True
    metric_for_best_model: str = "accuracy"
    dataloader_pin_memory: bool = field(default_factory=torch.accelerator.is_available)
    remove_unused_columns: bool = False  # models have no arguments for the video columns
    report_to: str = "none"


# --- data
@contextmanager
def input_errors() -> Iterator[None]:
    """Ends the script with a one-line message for input errors."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


def load_splits(data: DataArguments) -> Any:
    """Loads and prints the splits, by group if a pattern is given."""
    groups = {name: getattr(data, name) for name in ("group_by", "validation_groups", "test_groups", "group_seed")}
    splits = load("class-folders", None, data.data_dir, cache_dir=data.cache_dir, **groups)
    if "train" not in splits or "validation" not in splits:
        raise ValueError(
            f"{data.data_dir} has the splits {', '.join(splits)}, but train and validation are needed: create folders "
            "with these names, or give --group_by and --validation_groups"
        )
    names = splits["train"].features["label"].names
    for split, rows in splits.items():
        found = sorted({group_of(name, data.group_by) for name in rows["video_id"]}) if data.group_by else []
        note(f"{split}: {len(rows)} videos" + (f" of {', '.join(found)}" if found else ""))
    missing = [name for label, name in enumerate(names) if label not in set(splits["train"]["label"])]
    if missing:
        note(f"warning: no training video of {', '.join(missing)}: the model cannot learn it")
    return splits


def note(text: str) -> None:
    """Prints a line, in the main process only."""
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)


def examine(row: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Decodes a video and counts its frames; with a size, also stores them with a shortest edge of `size` pixels."""
    torch.set_num_threads(1)
    path = row["video"]["path"]
    seen: dict[str, Any] = {"num_frames": 0, "error": None} | ({} if size is None else {"frames": b"", "shape": []})
    try:
        seen["num_frames"] = count = probe_video(path).num_frames
        kept = []
        for start in range(0, count, BLOCK):  # the whole video, to find damage now rather than after hours
            frames = read_frames(path, range(start, min(start + BLOCK, count)))
            if size is not None:
                kept.append(ClipTransform(resize=size, crop=None).crop_views(frames)[0])
        if kept:
            small = torch.cat(kept)
            seen |= {"frames": small.numpy().tobytes(), "shape": list(small.shape)}
    except VideoDecodingError as error:
        seen["error"] = error.reason
    return seen


def readable(rows: Any, size: int | None, workers: int = 2) -> Any:
    """Skips and lists unreadable videos; `datasets` caches the results."""
    files = [path for row in rows["video"] if os.path.exists(path := row["path"])]  # links may be broken
    seen = [(path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in files]
    rows = rows.map(
        examine,
        fn_kwargs={"size": size},
        num_proc=min(workers, len(rows)),
        writer_batch_size=8,  # frames are large
        # Shared by all scripts, and different after a file has changed.
        new_fingerprint=Hasher.hash((rows.cache_files, rows["video_id"][:], seen, size)),
        desc="reading videos",
    )
    # Only these columns: frames are large.
    broken = [(name, error) for name, error in zip(rows["video_id"], rows["error"], strict=True) if error is not None]
    for name, error in broken:
        note(f"left out: {name}: {error}")
    return rows.filter(lambda error: error is None, input_columns="error") if broken else rows


def read_clip(row: Mapping[str, Any], indices: Callable[[int], list[int]]) -> torch.Tensor:
    """Returns frames of a video, (T, 3, H, W) uint8, from the cache if available."""
    if "frames" in row:
        frames = np.frombuffer(row["frames"], dtype=np.uint8).reshape(row["shape"])
        return torch.from_numpy(frames[indices(len(frames))])
    return read_frames(row["video"]["path"], indices(row["num_frames"]))


def choose(sampling: ClipSampling, total_frames: int) -> list[int]:
    """Samples the frames of one clip, a random one if the sampling has several."""
    clips = sampling.sample(total_frames)
    return clips[int(torch.randint(len(clips), ())) if len(clips) > 1 else 0]


def make_examples(
    batch: Mapping[str, Sequence[Any]],
    name: str,
    sampling: ClipSampling,
    transform: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, list[Any]]:
    """Converts rows to model inputs, for `Dataset.with_transform`."""
    rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    indices = partial(choose, sampling)
    return {name: [transform(read_clip(row, indices)) for row in rows], "labels": [row["label"] for row in rows]}


def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Stacks the examples of a batch."""
    return {
        name: torch.stack([example[name] for example in examples])
        if isinstance(examples[0][name], torch.Tensor)
        else torch.tensor([example[name] for example in examples])
        for name in examples[0]
    }


# --- model
def make_model(model: ModelArguments, labels: Sequence[str]) -> PreTrainedModel:
    """Loads a checkpoint with a new head, or creates a model with new weights."""
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    if (model.checkpoint is None) == (model.architecture is None):
        raise ValueError("give either --checkpoint to fine-tune, or --architecture to train from scratch")
    if model.checkpoint is not None:
        made = AutoModelForVideoClassification.from_pretrained(
            model.checkpoint, ignore_mismatched_sizes=True, dtype=torch.float32, **names
        )
        before = AutoConfig.from_pretrained(model.checkpoint).id2label
        if list(before.values()) != list(labels):  # also if the number of classes is the same
            torch.nn.init.normal_(made.classifier.weight, std=0.02)
            torch.nn.init.zeros_(made.classifier.bias)
    else:
        if model.architecture not in ARCHITECTURES:
            raise ValueError(f"--architecture must be one of {', '.join(ARCHITECTURES)}, got {model.architecture!r}")
        fields = read_json(model.config, "--config", dict)
        known = AutoConfig.for_model(model.architecture)
        for name in fields:
            if not hasattr(known, name):
                raise ValueError(f"--config: {type(known).__name__} has no field {name!r}")
        made = AutoModelForVideoClassification.from_config(AutoConfig.for_model(model.architecture, **fields, **names))
        start_positions(made)
    made.set_token_merging(**read_json(model.token_merging, "--token_merging", dict))
    return made


def read_settings(text: str, model: PreTrainedModel) -> list[dict[str, Any]]:
    """Reads and checks the settings to evaluate, before the training rather than after it."""
    settings: list[dict[str, Any]] = read_json(text, "--evaluate", list)
    for changes in settings:
        tried = copy.deepcopy(model.config)
        tried.update_token_merging(**changes)
        hf_video_tome.token_counts(tried)
    return settings


def read_json(text: str, option: str, kind: type[dict[str, Any] | list[Any]]) -> Any:
    """Parses the JSON value of an option."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{option} must be JSON, got {text!r} ({error})") from None
    if not isinstance(value, kind):
        expected = 'an object such as {"r": 40}' if kind is dict else 'a list such as [{"r": 0}, {"r": 40}]'
        raise ValueError(f"{option} must be {expected}, got {text}")
    return value


def start_positions(model: PreTrainedModel) -> None:
    """Initialises learned positions with sine-cosine codes, since they learn too slowly from zeros on few videos."""
    config: Any = model.config
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    if config.model_type == "vivit":
        frames, height, width = config.tubelet_size
        grid = (config.num_frames // frames, config.image_size // height, config.image_size // width)
        embeddings.position_embeddings.data[0, 1:] = sincos_codes(grid, config.hidden_size)
    elif config.model_type in ("timesformer", "motionformer"):
        side = config.image_size // config.patch_size
        embeddings.position_embeddings.data[0, 1:] = sincos_codes((side, side), config.hidden_size)
        num_frames = embeddings.time_embeddings.shape[1]
        embeddings.time_embeddings.data[0] = sincos_codes((num_frames,), config.hidden_size)


def sincos_codes(grid: tuple[int, ...], width: int) -> torch.Tensor:
    """Returns codes of `width` numbers for all positions of a grid, an equal share for each axis."""
    share = width // (2 * len(grid))
    frequencies = 1 / 10000 ** (torch.arange(share) / share)
    axes = torch.meshgrid(*[torch.arange(length, dtype=torch.float) for length in grid], indexing="ij")
    angles = [axis.flatten()[:, None] * frequencies for axis in axes]
    codes = torch.cat([torch.cat([angle.sin(), angle.cos()], dim=1) for angle in angles], dim=1)
    return torch.nn.functional.pad(codes, (0, width - codes.shape[1]))


def make_transform(model: PreTrainedModel, checkpoint: str | None, subtract_mean_frame: bool) -> ClipTransform:
    """Returns the transform of the checkpoint, or by default that of the architecture."""
    transform = ClipTransform.from_config(model.config)
    if checkpoint is not None:
        with suppress(FileNotFoundError):  # no processor file
            transform = ClipTransform.from_pretrained(checkpoint, model.config)
    return replace(transform, subtract_mean_frame=subtract_mean_frame or transform.subtract_mean_frame)


def make_processor(model: PreTrainedModel, transform: ClipTransform) -> Any:
    """Returns a processor that applies the transform, one of transformers if possible."""
    if model.main_input_name != "pixel_values" or transform.subtract_mean_frame:
        return hf_video_tome.ClipProcessor.from_transform(transform, model.main_input_name)
    settings = transform.to_processor_settings()
    if settings.pop("rescale_offset", False):
        from transformers import VivitImageProcessor

        return VivitImageProcessor(**settings, offset=True)
    from transformers import VideoMAEImageProcessor  # importing it prints a warning without torchvision

    return VideoMAEImageProcessor(**settings)


# --- main
class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Formatter that keeps the lines of the description and shows defaults."""


def make_parser(kinds: Sequence[Any], description: str | None) -> HfArgumentParser:
    """Builds a parser for the fields of dataclasses."""
    return HfArgumentParser(kinds, description=description, formatter_class=HelpFormatter)


def print_results(results: Any, split: str, shown: bool = True) -> list[dict[str, Any]]:
    """Prints the accuracy with each setting, and the change on the same videos."""
    lines = []
    for setting in results.settings:
        top, change, agreement = setting.main.top_1, setting.top_1_difference, setting.agreement
        lines.append(
            {
                "settings": setting.changes,
                "tokens": setting.token_counts,
                "accuracy": top.value,
                "standard_error": top.standard_error,
                "change": change and change.value,
                "change_standard_error": change and change.standard_error,
                "agreement": agreement and agreement.value,
                "nll": setting.main.nll,
            }
        )
        if shown:
            against = f", {with_error(change, '+')}" if change else ""
            print(f"{split} {setting.changes}: {with_error(top)} %{against}")
    return lines


def with_error(share: Any, sign: str = "") -> str:
    """Formats a share in percent, with its standard error if available."""
    error = share.standard_error
    return f"{100 * share.value:{sign}.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs the script; returns the content of `results.json`."""
    kinds = (DataArguments, ModelArguments, ClassFolderTrainingArguments)
    data, chosen, training = make_parser(kinds, __doc__).parse_args_into_dataclasses(arguments)
    output = Path(training.output_dir)
    with input_errors():
        resume_from = find_resumed(training)
        if (output / "results.json").exists() and resume_from is None and not chosen.overwrite:
            raise ValueError(f"{output} has a finished training; replace it with --overwrite")
        splits = load_splits(data)
        torch.manual_seed(training.seed)
        if chosen.checkpoint is not None:
            chosen.checkpoint = find_checkpoint(chosen.checkpoint)
        model = make_model(chosen, splits["train"].features["label"].names)
        settings = read_settings(chosen.evaluate, model)
        transform = make_transform(model, chosen.checkpoint, data.subtract_mean_frame)
        processor = make_processor(model, transform)

    sampling = ClipSampling(model.config.num_frames)
    parts = {name: readable(splits[name], data.cache_size) for name in ("train", "validation")}
    augment = ClipAugmentation(transform, min_area=data.min_area, flip=data.flip)
    views: dict[str, tuple[ClipSampling, Any]] = {
        "train": (replace(sampling, num_clips=data.views), augment),
        "validation": (sampling, transform),
    }
    examples = {
        name: rows.with_transform(
            partial(make_examples, name=model.main_input_name, sampling=views[name][0], transform=views[name][1])
        )
        for name, rows in parts.items()
    }
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=examples["train"],
        eval_dataset=examples["validation"],
        data_collator=collate,
        processing_class=processor,  # saved beside the weights
        compute_metrics=trainer_metrics(model.config.id2label),
        callbacks=[EarlyStoppingCallback(chosen.patience)] if chosen.patience else None,
    )
    outcome = trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model()  # the best epoch
    trainer.save_metrics("train", outcome.metrics, combined=False)

    split = "test" if "test" in splits else "validation"
    results = evaluate(
        model.float().eval(),
        splits[split],
        transform,
        sampling,
        output / "evaluation",
        settings=settings,
        batch_size=training.per_device_eval_batch_size,
        overwrite=True,
    )
    report = {
        "data": asdict(data) | {"data_dir": Path(data.data_dir).name},
        "videos": {name: len(rows) for name, rows in parts.items()} | {split: results.num_labelled},
        "left_out": results.failures,
        "resumed": resume_from is not None,
        "train_seconds": outcome.metrics["train_runtime"],  # of the last part, if resumed
        "steps": outcome.global_step,
        "best_validation_accuracy": trainer.state.best_metric,
        "split": split,
        "settings": print_results(results, split, trainer.is_world_process_zero()),
    }
    for name, error in results.failures.items():
        note(f"left out: {name}: {error}")
    (output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    note(f"the best epoch is in {output}, the results in {output / 'results.json'}")
    return report


def find_resumed(training: TrainingArguments) -> str | None:
    """Returns the folder to resume from."""
    asked = training.resume_from_checkpoint
    if asked is None or asked.lower() == "false":
        return None
    found = get_last_checkpoint(training.output_dir) if asked in ("last", "True", "true") else asked
    if found is None or not Path(found).is_dir():
        raise ValueError(f"--resume_from_checkpoint must be a folder, or last, got {asked!r}")
    return str(found)


if __name__ == "__main__":
    main()
