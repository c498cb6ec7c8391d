"""Pre-train a VideoMAE on unlabelled videos by masking, like the published VideoMAE checkpoints.

    python examples/pretrain_videomae.py --data_dir my-videos --output_dir pretrained --config '{"image_size": 96}'
    python examples/train_class_folder.py --data_dir my-videos --checkpoint pretrained --output_dir my-model

The model sees a few patch positions of a clip, the same ones in all frames ("tubes"), and learns to reconstruct the
others, as in "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video Pre-Training"
(NeurIPS 2022). Only the videos of the training split are used. Options are those of `train_class_folder.py` where
applicable, and those of `transformers.TrainingArguments`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from train_class_folder import (
    ClassFolderTrainingArguments,
    DataArguments,
    collate,
    find_resumed,
    input_errors,
    load_splits,
    make_examples,
    make_parser,
    make_processor,
    make_transform,
    read_json,
    readable,
)
from transformers import Trainer, VideoMAEConfig, VideoMAEForPreTraining

from hf_video_tome.data import ClipAugmentation, ClipSampling


@dataclass
class PretrainingArguments:
    """Options for the model and its masks."""

    config: str = field(default="{}", metadata={"help": "Config fields as JSON."})
    mask_ratio: float = field(default=0.9, metadata={"help": "Share of the patch positions to mask."})


@dataclass
class TrainingArguments(ClassFolderTrainingArguments):
    """`TrainingArguments` without validation, since there is no criterion for the best epoch."""

    learning_rate: float = 1e-3
    num_train_epochs: float = 100
    eval_strategy: str = "no"
    load_best_model_at_end: bool = False
    metric_for_best_model: str | None = None  # type: ignore[assignment]


def tube_masks(num_clips: int, num_frames: int, num_patches: int, ratio: float) -> torch.Tensor:
    """Draws masks that hide the same patch positions in all frames.

    Returns:
        (num_clips, num_frames * num_patches) bool; the number of masked patches is the same for all clips.
    """
    masked = round(ratio * num_patches)
    hidden = torch.rand(num_clips, num_patches).argsort(1) < masked
    return hidden.repeat(1, num_frames)


def collate_masked(
    examples: Sequence[Mapping[str, Any]], num_frames: int, num_patches: int, ratio: float
) -> dict[str, Any]:
    """Stacks clips and draws their masks."""
    batch = collate([{"pixel_values": example["pixel_values"]} for example in examples])
    return {**batch, "bool_masked_pos": tube_masks(len(examples), num_frames, num_patches, ratio)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the script."""
    kinds = (DataArguments, PretrainingArguments, TrainingArguments)
    data, chosen, training = make_parser(kinds, __doc__).parse_args_into_dataclasses(arguments)
    torch.manual_seed(training.seed)
    with input_errors():
        fields = read_json(chosen.config, "--config", dict)
    small = {
        "decoder_hidden_size": fields.get("hidden_size", 768) // 2,
        "decoder_intermediate_size": fields.get("hidden_size", 768) * 2,
        "decoder_num_hidden_layers": 2,
        "decoder_num_attention_heads": 4,
    }
    config = VideoMAEConfig(**{**small, **fields})
    model = VideoMAEForPreTraining(config)
    transform = make_transform(model, None, data.subtract_mean_frame)
    with input_errors():
        resume_from = find_resumed(training)
        rows = readable(load_splits(data)["train"], data.cache_size)
    sampling = ClipSampling(config.num_frames, num_clips=data.views)
    augment = ClipAugmentation(transform, min_area=data.min_area, flip=data.flip)
    make = partial(make_examples, name="pixel_values", sampling=sampling, transform=augment)
    trainer = Trainer(
        model=model,
        args=training,
        train_dataset=rows.with_transform(make),
        data_collator=partial(
            collate_masked,
            num_frames=config.num_frames // config.tubelet_size,
            num_patches=(config.image_size // config.patch_size) ** 2,
            ratio=chosen.mask_ratio,
        ),
        processing_class=make_processor(model, transform),
    )
    trainer.train(resume_from_checkpoint=resume_from)
    trainer.save_model()


if __name__ == "__main__":
    main()
