"""Train a small video classifier on Moving Digits from scratch, without token merging, on a CPU.

    python examples/train_moving_digits.py --architecture videomae --output videomae-moving-digits

The recipe:

1. *Data.* Clips are rendered, encoded to H.264 and decoded once; the decoded frames are stored in a scratch folder.
   Augmentation: time reversal (which swaps the verbs of a pair), a permutation of the colour channels, and, with
   `--warp`, a small affine distortion, which takes more steps to learn.
2. *Two stages.* Most steps use a random subset of the time steps of each clip, at a fraction of the cost and with a
   larger batch; the rest use full clips.
3. *Factored head.* The model learns 12 verbs and 10 digits with one 22-way head. Afterwards,
   `W[verb, noun] = W[verb] + W[noun]` converts it exactly to the 120-way head: the joint softmax is the product of the
   two.

The result is saved in half precision, loaded with `AutoModelForVideoClassification`, and evaluated on video files of
the test split. The model card is filled in with these results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional as F
from train_class_folder import start_positions
from transformers import PreTrainedModel

from hf_video_tome.data.moving_digits import (
    ACTIONS,
    NOUNS,
    REVERSED_VERB,
    SPLITS,
    VARIANTS,
    VERBS,
    VERSION,
    clip_label,
    write_clips,
)
from hf_video_tome.data.transforms import ClipTransform
from hf_video_tome.data.video.decoding import read_frames
from hf_video_tome.hub import card_data, render_card
from hf_video_tome.models.motionformer import plain as motionformer

CLIP = VARIANTS["standard"]
# Mean and standard deviation of the pixels, as shares of 255; measured on 100 training clips and the same for all
# channels.
PIXEL_MEAN, PIXEL_STD = 0.29, 0.17
CHUNK = 200
DIGITS_SOURCE = "https://doi.org/10.24432/C50P49"


@dataclass(frozen=True)
class Recipe:
    """Training parameters of an architecture: see `RECIPES`.

    Attributes:
        frame_step: Distance between the frames that the model sees.
        slots: Number of temporal positions of its tokens.
        subset: Number of temporal positions kept in the first stage.
        subset_batch: Batch size of the first stage; the second stage uses `--batch-size`.
        steps: Number of optimizer steps of both stages together.
    """

    frame_step: int
    slots: int
    subset: int
    subset_batch: int
    steps: int


RECIPES = {
    "videomae": Recipe(frame_step=1, slots=8, subset=2, subset_batch=48, steps=7000),
    "vivit": Recipe(frame_step=1, slots=8, subset=2, subset_batch=48, steps=7000),
    "timesformer": Recipe(frame_step=2, slots=8, subset=4, subset_batch=32, steps=7000),
    "motionformer": Recipe(frame_step=1, slots=8, subset=2, subset_batch=48, steps=7000),
    "vjepa2": Recipe(frame_step=1, slots=8, subset=2, subset_batch=48, steps=7000),
}


# --- data
def decode_chunk(indices: range, split: str, seed: int) -> np.ndarray:
    """Renders, encodes and decodes clips; returns uint8 of shape (clips, num_frames, 3, size, size)."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        written = write_clips(folder, split, indices, CLIP, seed)
        return np.stack([read_frames(path, range(CLIP.num_frames)).numpy() for path, _ in written])


def load_split(split: str, num_clips: int, seed: int, cache: Path, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the decoded clips of a split and their (verb, noun) classes, from the cache if available.

    Returns:
        uint8 of shape (num_clips, num_frames, 3, size, size) and int64 of shape (num_clips, 2).
    """
    labels = torch.tensor([clip_label(split, index, seed)[:2] for index in range(num_clips)])
    # The name contains everything that determines the frames, so that a change of the rendering invalidates the cache.
    appearance = hashlib.sha256(f"{VERSION} {CLIP} {CLIP.encoder_options}".encode()).hexdigest()[:8]
    path = cache / f"{split}-{num_clips}-seed{seed}-{appearance}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        chunks = [range(first, min(first + CHUNK, num_clips)) for first in range(0, num_clips, CHUNK)]
        frames = np.empty((num_clips, CLIP.num_frames, 3, CLIP.size, CLIP.size), dtype=np.uint8)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            decode = partial(decode_chunk, split=split, seed=seed)
            for chunk, decoded in zip(chunks, pool.map(decode, chunks), strict=True):
                frames[chunk.start : chunk.stop] = decoded
                progress(f"{split}: {chunk.stop}/{num_clips} clips rendered, encoded and decoded")
        print(file=sys.stderr)
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, frames)
        partial_path.rename(path)  # an interrupted run leaves no partial cache
    return torch.from_numpy(np.load(path)), labels


def normalize(frames: torch.Tensor) -> torch.Tensor:
    """Normalises uint8 frames like the saved image processor."""
    return (frames.float() / 255 - PIXEL_MEAN) / PIXEL_STD


def augment(
    frames: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Reverses half of the clips in time, swapping their verbs, and permutes the colour channels of each clip."""
    batch = len(frames)
    swap = torch.tensor([VERBS.index(REVERSED_VERB[verb]) for verb in VERBS])
    backwards = torch.rand(batch, generator=generator) < 0.5
    frames = torch.where(backwards[:, None, None, None, None], frames.flip(1), frames)
    verbs = torch.where(backwards, swap[labels[:, 0]], labels[:, 0])
    order = torch.rand(batch, 3, generator=generator).argsort(1)
    frames = frames.gather(2, order[:, None, :, None, None].expand_as(frames))
    return frames, torch.stack([verbs, labels[:, 1]], dim=1)


def warp(frames: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Distorts each clip slightly with a random affine map, the same for all of its frames, like other handwriting.

    There are few digits (1250 for training); a long training memorises them otherwise. `strength` is the largest shear
    and the largest relative change of a side.
    """
    if not strength:
        return frames
    theta = torch.eye(2, 3).repeat(len(frames), 1, 1)
    theta += (2 * torch.rand(theta.shape, generator=generator) - 1) * torch.tensor([strength, strength, strength / 2])
    grid = F.affine_grid(theta, [len(frames), 1, *frames.shape[-2:]], align_corners=False)
    warped = F.grid_sample(frames.flatten(1, 2), grid, padding_mode="reflection", align_corners=False)
    return warped.view_as(frames)


def freeze_time(frames: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Replaces every clip by one of its frames, drawn at random and repeated: keeps content, removes motion."""
    chosen = torch.randint(frames.shape[1], (len(frames),), generator=generator)
    return frames[torch.arange(len(frames)), chosen].unsqueeze(1).expand_as(frames)


# --- model
def build_model(architecture: str, num_labels: int) -> PreTrainedModel:
    """Returns a small, newly initialised classifier without token merging."""
    common = {
        "image_size": CLIP.size,
        "num_frames": CLIP.num_frames // RECIPES[architecture].frame_step,
        "hidden_size": 96,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "intermediate_size": 192,
        "initializer_range": 0.05,
        "num_labels": num_labels,
    }
    if architecture == "videomae":
        return transformers.VideoMAEForVideoClassification(
            transformers.VideoMAEConfig(patch_size=8, tubelet_size=2, **common)
        )
    if architecture == "vjepa2":
        return transformers.VJEPA2ForVideoClassification(
            transformers.VJEPA2Config(
                crop_size=CLIP.size,
                frames_per_clip=CLIP.num_frames,
                patch_size=8,
                tubelet_size=2,
                hidden_size=96,
                num_hidden_layers=6,
                num_attention_heads=3,
                mlp_ratio=2.0,
                initializer_range=0.05,
                num_pooler_layers=1,
                # Classifiers come with a predictor, which they never run.
                pred_hidden_size=12,
                pred_num_attention_heads=1,
                pred_num_hidden_layers=1,
                pred_num_mask_tokens=1,
                num_labels=num_labels,
            )
        )
    if architecture == "vivit":
        model = transformers.VivitForVideoClassification(transformers.VivitConfig(tubelet_size=[2, 8, 8], **common))
    elif architecture == "timesformer":
        model = transformers.TimesformerForVideoClassification(transformers.TimesformerConfig(patch_size=8, **common))
    else:
        config: Any = motionformer.MotionformerConfig
        model = motionformer.MotionformerForVideoClassification(config(patch_size=8, tubelet_size=2, **common))
    start_positions(model)
    return model


@contextmanager
def random_temporal_slots(model: PreTrainedModel, keep: int, slots: int, generator: torch.Generator) -> Iterator[None]:
    """Restricts the encoder to a random subset of each clip's time steps, with the positions of the full clip."""
    base: Any = model.base_model
    rotary = model.config.model_type == "vjepa2"  # each of its layers takes the positions of its tokens
    position_ids: list[torch.Tensor] = []

    def select(_module: nn.Module, _inputs: Any, tokens: torch.Tensor) -> torch.Tensor:
        batch, length, width = tokens.shape
        extra = length % slots  # the class token, where there is one
        head, body = tokens[:, :extra], tokens[:, extra:]
        chosen = torch.rand(batch, slots, generator=generator).argsort(1)[:, :keep].sort(1).values
        if model.config.model_type == "timesformer":  # its tokens run over time first, then over space
            body = body.view(batch, -1, slots, width)
            body = body.gather(2, chosen[:, None, :, None].expand(-1, body.shape[1], -1, width))
        else:
            body = body.view(batch, slots, -1, width)
            patches = body.shape[2]
            body = body.gather(1, chosen[:, :, None, None].expand(-1, -1, patches, width))
            position_ids[:] = [(chosen[:, :, None] * patches + torch.arange(patches)).flatten(1)]
        return torch.cat([head, body.flatten(1, 2)], dim=1)

    def place(_module: nn.Module, inputs: Any) -> Any:
        return inputs[0], position_ids[0]

    regroups = model.config.model_type in ("timesformer", "motionformer")  # their layers, by the number of frames
    num_frames = model.config.num_frames if regroups else 0
    hooks = [(base.encoder if rotary else base).embeddings.register_forward_hook(select)]
    if rotary:
        hooks += [layer.register_forward_pre_hook(place) for layer in base.encoder.layer]
    if regroups:
        model.config.num_frames = keep * num_frames // slots
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        if regroups:
            model.config.num_frames = num_frames


def expand_head(model: PreTrainedModel, architecture: str) -> PreTrainedModel:
    """Converts the 22-way model to a 120-way one with the same predictions: logit(v, n) = logit(v) + logit(n)."""
    expanded = build_model(architecture, len(ACTIONS))
    state = model.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        verbs, nouns = state[name].split([len(VERBS), len(NOUNS)])
        state[name] = (verbs[:, None] + nouns[None]).flatten(0, 1)
    expanded.load_state_dict(state)
    expanded.config.id2label = dict(enumerate(ACTIONS))
    expanded.config.label2id = {action: index for index, action in enumerate(ACTIONS)}
    return expanded.eval()


# --- training
def learning_rate_factor(step: int, steps: int) -> float:
    """Returns the factor on the learning rate: linear warm-up over 8 % of the steps, then cosine decay to zero."""
    warmup = max(1, round(0.08 * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(
    args: argparse.Namespace,
    frames: torch.Tensor,
    labels: torch.Tensor,
    validate: Callable[[PreTrainedModel], dict[str, float]],
    log: TextIO,
) -> PreTrainedModel:
    """Trains the 22-way model; writes one JSON line per `--log-every` steps to `log`."""
    recipe = RECIPES[args.architecture]
    generator = torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    model = build_model(args.architecture, len(VERBS) + len(NOUNS)).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(learning_rate_factor, steps=args.steps))
    subset_steps = round(args.subset_share * args.steps)
    began, losses = time.perf_counter(), []
    for step in range(1, args.steps + 1):
        on_subset = step <= subset_steps
        batch_size = recipe.subset_batch if on_subset else args.batch_size
        chosen = torch.randint(len(frames), (batch_size,), generator=generator)
        clips, targets = augment(frames[chosen], labels[chosen], generator)
        if args.single_frame_baseline:
            clips = freeze_time(clips, generator)
        pixels = warp(normalize(clips[:, :: recipe.frame_step]), args.warp, generator)
        keep = recipe.subset if on_subset else recipe.slots
        with (
            random_temporal_slots(model, keep, recipe.slots, generator),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16),
        ):
            logits = model(pixels).logits.float()
        verb_logits, noun_logits = logits.split([len(VERBS), len(NOUNS)], dim=1)
        loss = F.cross_entropy(verb_logits, targets[:, 0]) + F.cross_entropy(noun_logits, targets[:, 1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate = schedule.get_last_lr()[0]
        schedule.step()
        losses.append(loss.item())
        if step % args.log_every == 0 or step == args.steps:
            mean_loss = round(float(np.mean(losses)), 4)
            record = {"step": step, "stage": 1 if on_subset else 2, "loss": mean_loss, "lr": rate}
            losses.clear()
            if step % args.validate_every == 0 or step == args.steps:
                model.eval()
                record |= validate(expand_head(model, args.architecture))
                model.train()
            record["seconds"] = round(time.perf_counter() - began, 1)
            log.write(json.dumps(record) + "\n")
            log.flush()
            progress("  ".join(f"{key} {value:.4g}" for key, value in record.items()) + f"  of {args.steps} steps")
    print(file=sys.stderr)
    return model


# --- evaluation
def accuracies(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """Returns accuracies in percent from 120-way logits (n, 120) and (verb, noun) classes (n, 2).

    `pair` is the accuracy on clips of the ten paired verbs when only choosing between the two verbs of the pair: 50 %
    is chance.
    """
    verb, noun = labels.T
    joint = logits.float().log_softmax(1).view(-1, len(VERBS), len(NOUNS))
    by_verb = joint.logsumexp(2)
    action_hit = logits.argmax(1) == verb * len(NOUNS) + noun
    paired = verb < 10
    pair_hit = by_verb.gather(1, verb[:, None]) > by_verb.gather(1, (verb ^ 1).clamp(max=len(VERBS) - 1)[:, None])
    hits = {
        "verb": by_verb.argmax(1) == verb,
        "noun": joint.logsumexp(1).argmax(1) == noun,
        "action": action_hit,
        "pair": pair_hit[paired, 0],
    }
    return {name: round(100 * hit.double().mean().item(), 2) for name, hit in hits.items()}


@torch.no_grad()
def predict(model: PreTrainedModel, frames: torch.Tensor, frame_step: int, batch_size: int = 40) -> torch.Tensor:
    """Returns the logits of decoded uint8 clips."""
    return torch.cat([model(normalize(part[:, ::frame_step])).logits for part in frames.split(batch_size)])


@torch.no_grad()
def evaluate_folder(folder: Path, num_clips: int, seed: int) -> dict[str, Any]:
    """Loads the saved model as a user would, and evaluates it on video files of the test split."""
    model = transformers.AutoModelForVideoClassification.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    frame_indices = range(0, CLIP.num_frames, CLIP.num_frames // model.config.num_frames)
    logits, still_logits, seconds = [], [], 0.0
    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as clips:
        written = write_clips(clips, "test", range(num_clips), CLIP, seed)
        for first in range(0, num_clips, 40):
            batch = [list(read_frames(path, frame_indices).numpy()) for path, _ in written[first : first + 40]]
            pixels = processor(batch, return_tensors="pt")[model.main_input_name]
            began = time.perf_counter()
            logits.append(model(pixels).logits)
            seconds += time.perf_counter() - began
            still_logits.append(model(freeze_time(pixels, generator)).logits)
    labels = torch.tensor([label for _, label in written])
    measured = accuracies(torch.cat(logits), labels[:, :2])
    still = accuracies(torch.cat(still_logits), labels[:, :2])
    share = measured["action"] / 100
    return {
        "n": num_clips,
        **measured,
        "nll": round(F.cross_entropy(torch.cat(logits), labels[:, 2]).item(), 4),
        "action_standard_error": round(100 * math.sqrt(share * (1 - share) / num_clips), 2),
        "single_frame_verb": still["verb"],
        "single_frame_pair": still["pair"],
        "milliseconds_per_clip": round(1000 * seconds / num_clips, 2),
    }


# --- output
def save(model: PreTrainedModel, args: argparse.Namespace, output: Path) -> None:
    """Saves the 120-way model in half precision, with its image processor."""
    model.half().save_pretrained(output)
    # The file is in half precision to be small; single precision is what a CPU wants, so that is what loads by
    # default.
    config_path = output / "config.json"
    config = json.loads(config_path.read_text())
    config_path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n")
    transform = ClipTransform(CLIP.size, (CLIP.size, CLIP.size), mean=(PIXEL_MEAN,) * 3, std=(PIXEL_STD,) * 3)
    processor = {
        # transformers has a video processor for V-JEPA 2, which needs torchvision and enlarges before it crops.
        "image_processor_type": "ClipProcessor" if args.architecture == "vjepa2" else "VideoMAEImageProcessor",
        **transform.to_processor_settings(),
    }
    (output / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def model_card(args: argparse.Namespace, model: PreTrainedModel, result: dict[str, Any], seconds: float) -> str:
    """Returns the README.md of the checkpoint, filled in with the results of the run."""
    name = {
        "videomae": "VideoMAE",
        "vivit": "ViViT",
        "timesformer": "TimeSformer",
        "motionformer": "Motionformer",
        "vjepa2": "V-JEPA 2",
    }[args.architecture]
    recipe = RECIPES[args.architecture]
    num_frames = CLIP.num_frames // recipe.frame_step
    command = ["python", "examples/train_moving_digits.py", *training_arguments(args)]
    parameters = sum(p.numel() for p in model.parameters())
    threads = f"{args.threads} CPU thread{'s' if args.threads > 1 else ''}"
    digit_numbers = ", ".join(f"{part.start}-{part.stop - 1}" for part in SPLITS.values())
    warping = f", and distorted by a small affine map (strength {args.warp:g})" if args.warp else ""
    sampling = ", every second one of 16" if recipe.frame_step == 2 else ""
    precision = "bfloat16 autocast" if args.bf16 else "float32"
    registers = {
        "motionformer": "import hf_video_tome  # transformers itself has no Motionformer\n",
        "vjepa2": "import hf_video_tome  # transformers itself has no processor for it without torchvision\n",
    }.get(args.architecture, "")
    data = card_data(
        args.architecture, license={"license": "apache-2.0"}, tags=["moving-digits"], metrics=["accuracy"]
    )
    text = f"""
A tiny {name} video classifier ({parameters / 1e6:.2f} M parameters) for demos and tests of token merging with
hf-video-tome. It tells apart 120 actions: 12 motions of 10 handwritten digits.

**It is not a Kinetics model.** Its data is synthetic motion of real handwritten digits; it knows nothing else.

## Use

```python
from transformers import AutoImageProcessor, AutoModelForVideoClassification
{registers}
model = AutoModelForVideoClassification.from_pretrained(folder)
processor = AutoImageProcessor.from_pretrained(folder)
inputs = processor(frames, return_tensors="pt")  # {num_frames} RGB frames of a clip{sampling}
print(model.config.id2label[model(**inputs).logits.argmax(-1).item()])
```

The weights are stored in float16 and load in float32; pass `dtype=torch.float16` for half precision.

## Data

Moving Digits, rendered by `hf_video_tome.data.moving_digits` (version {VERSION}): {CLIP.num_frames} frames of
{CLIP.size} x {CLIP.size} pixels at {CLIP.fps} frames per second, encoded as H.264 and decoded again. The digits are
real handwriting from scikit-learn's `load_digits`, which is the test part of *Optical Recognition of Handwritten
Digits* (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998, <{DIGITS_SOURCE}>,
CC BY 4.0). Training, validation and test use different digits (numbers {digit_numbers} of the set).
The motion, the colours and the backgrounds are computer-generated. Five pairs of motions are exact time reversals of
each other, so that no single frame tells them apart.

## Training

From scratch on {args.num_train_clips} clips: {args.steps} steps of AdamW (peak learning rate {args.learning_rate:g},
weight decay {args.weight_decay:g}), seed {args.seed}, {seconds / 60:.0f} minutes on {threads} in {precision}.
The first {args.subset_share:.0%} of the steps see {recipe.subset} random ones of the {recipe.slots} temporal slots
of a clip, in batches of {recipe.subset_batch}; the others see full clips in batches of {args.batch_size}.
Clips are reversed in time (with the label changed accordingly) and their colour channels permuted at random{warping}.
`training_log.jsonl` holds the curve. To make this checkpoint again:

```
{shlex.join(command)}
```

## Accuracy

Measured by the training script after it loaded the saved weights again, on {result["n"]} clips of the test split
decoded from video files, balanced over the 120 actions:

| measure | value |
|---|---|
| action accuracy (120 classes) | {result["action"]:.1f} % (standard error {result["action_standard_error"]:.1f}) |
| verb accuracy (12 classes) | {result["verb"]:.1f} % |
| digit accuracy (10 classes) | {result["noun"]:.1f} % |
| negative log-likelihood of the action | {result["nll"]:.3f} |
| the right one of a pair of reversed verbs | {result["pair"]:.1f} % (chance 50 %) |
| the same, when the model sees one frame, repeated | {result["single_frame_pair"]:.1f} % |

## Intended use

Demonstrations, tests and teaching. Accuracy here says how token merging affects a model that needs both motion and
fine detail; it does not predict numbers on natural video.
"""
    return str(render_card(data, f"{name}, Moving Digits", text))


def training_arguments(args: argparse.Namespace) -> list[str]:
    """Returns the command line arguments that determine the weights."""
    names = ["architecture", "steps", "num_train_clips", "batch_size", "learning_rate", "weight_decay", "subset_share"]
    names += ["warp", "seed", "threads"]
    arguments = [part for name in names for part in (f"--{name.replace('_', '-')}", f"{getattr(args, name)}")]
    arguments += [] if args.bf16 else ["--no-bf16"]
    return [*arguments, "--output", f"hf_video_tome/checkpoints/{args.architecture}-moving-digits"]


def progress(text: str) -> None:
    """Updates a line in place on a terminal, or prints it elsewhere."""
    interactive = sys.stderr.isatty()
    print(f"\r{text}\x1b[K" if interactive else text, end="" if interactive else "\n", file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=list(RECIPES), default="videomae")
    parser.add_argument("--output", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--steps", type=int, help="optimizer steps of both stages (default: by architecture)")
    parser.add_argument("--num-train-clips", type=int, default=12000)
    parser.add_argument("--num-validation-clips", type=int, default=360)
    parser.add_argument("--num-test-clips", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=16, help="batch size of the second stage")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--subset-share", type=float, default=0.62, help="share of the steps in the first stage")
    parser.add_argument("--warp", type=float, default=0.1, help="strength of the affine augmentation, 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="number of CPU threads for training")
    parser.add_argument("--workers", type=int, default=2, help="number of processes that render clips")
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 autocast")
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--validate-every", type=int, default=250)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "moving-digits-cache", help="scratch folder"
    )
    parser.add_argument(
        "--single-frame-baseline",
        action="store_true",
        help="train and test on one repeated frame per clip, to show that the verbs need motion",
    )
    args = parser.parse_args()
    args.steps = args.steps or RECIPES[args.architecture].steps
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    recipe = RECIPES[args.architecture]
    frames, labels = load_split("train", args.num_train_clips, args.seed, args.cache, args.workers)
    val_frames, val_labels = load_split("validation", args.num_validation_clips, args.seed, args.cache, args.workers)
    if args.single_frame_baseline:
        val_frames = freeze_time(val_frames, torch.Generator().manual_seed(args.seed))

    def validate(model: PreTrainedModel) -> dict[str, float]:
        measured = accuracies(predict(model, val_frames, recipe.frame_step), val_labels)
        return {f"val_{name}": value for name, value in measured.items()}

    args.output.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    with (args.output / "training_log.jsonl").open("w") as log:
        log.write(json.dumps({"command": training_arguments(args), "torch": torch.__version__}) + "\n")
        model = train(args, frames, labels, validate, log)
    seconds = time.perf_counter() - began
    model = expand_head(model.eval(), args.architecture)
    save(model, args, args.output)
    result = evaluate_folder(args.output, args.num_test_clips, args.seed)
    if args.single_frame_baseline:
        print(f"verb accuracy from a single frame: {result['single_frame_verb']} %, n = {result['n']}")
        print(f"the right verb of a reversed pair: {result['single_frame_pair']} % (chance 50 %)")
    else:
        (args.output / "README.md").write_text(model_card(args, model, result, seconds))
    with (args.output / "training_log.jsonl").open("a") as log:
        log.write(json.dumps({"test": result, "training_seconds": round(seconds, 1)}) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
