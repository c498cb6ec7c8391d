"""Evaluation of a classifier on a dataset: distributed, resumable, with several settings in one pass."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..api import set_token_merging, token_counts
from ..configuration import TokenMergingConfigMixin
from ..data.sampling import ClipSampling
from ..tasks import classifier_tasks, names_digest
from .decoding import ViewDecoder
from .examples import Examples, read_examples
from .journal import Journal
from .loop import MIXED_PRECISION, EvaluationLoop, EvaluationTimer, Progress
from .output import close_output, in_order, locked, open_output, read_reference
from .processes import Processes
from .results import EvaluationResults, summarize

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform


def evaluate(
    model: nn.Module,
    dataset: Iterable[Mapping[str, Any]] | Examples,
    transform: ClipTransform,
    sampling: ClipSampling,
    output: str | os.PathLike[str],
    *,
    settings: Sequence[Mapping[str, Any]] = ({},),
    batch_size: int = 8,
    num_workers: int = 2,
    mixed_precision: str = "no",
    match_labels_by_name: bool | None = None,
    pad: bool = True,
    seed: int = 0,
    top_k: int = 5,
    resume: bool = False,
    retry_failed: bool = False,
    overwrite: bool = False,
    reference: str | os.PathLike[str] | None = None,
    identity: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> EvaluationResults:
    """Evaluates a classifier on a dataset, with several token merging settings in one pass over the decoded videos.

    Processes started by `accelerate launch` or torchrun share the work; each video counts once. Predictions are
    written to `output` batch by batch. Batches and their random numbers depend neither on the number of processes nor
    on interruptions, so a resumed evaluation writes the same files as an uninterrupted one.

    Args:
        model: A video classifier on its device. Its training mode and token merging settings are restored at the end.
        dataset: Rows as described in `read_examples`, for example from `hf_video_tome.data.load`; or the examples
            themselves.
        transform: Transform from frames to the model's input.
        sampling: Sampling of clips and views. The probabilities of several views are averaged.
        output: Folder for `predictions.jsonl`, `results.json`, `timing.json` and the files needed to resume; shared
            by all processes.
        settings: Token merging settings to evaluate, as for `set_token_merging`, relative to those of the model. The
            others are compared with the first.
        batch_size: Number of videos decoded together, and of clips per forward pass.
        num_workers: Number of decoding processes per model process; 0 decodes in the main process.
        mixed_precision: "no", "bf16" or "fp16": autocast of the model.
        match_labels_by_name: Whether to match the dataset's classes with `config.id2label` by name (True), by index
            (False), or by name if both have names (None).
        pad: Whether a video with too few frames repeats its last frame, or counts as unreadable.
        seed: Seed of random sampling and of the random modes.
        top_k: Number of classes to store per video.
        resume: Whether to resume the evaluation in `output`.
        retry_failed: Whether to retry unreadable videos when resuming.
        overwrite: Whether to delete the evaluation in `output`.
        reference: Folder of an earlier evaluation of the same videos, labels and outputs; all settings are then
            compared with its first setting.
        identity: Further JSON-safe entries that a resumed evaluation must agree on (names of model and dataset);
            stored in `run.json` and the results.
        on_progress: Called after each batch, in the main process.

    Returns:
        The results, in all processes.

    Raises:
        ValueError: If an argument, the dataset or the settings are invalid, `output` has another evaluation or damaged
            files, or the logits are not finite.
        JournalRemovedError: If `output` is removed while running.
        OSError: If `output` is not writable; finished batches are kept.
        FileExistsError: If `output` has results, and neither `resume` nor `overwrite` is set.

    Examples:
        >>> import tempfile
        >>> from transformers import AutoModelForVideoClassification
        >>> import hf_video_tome
        >>> from hf_video_tome.checkpoints import checkpoint_path
        >>> from hf_video_tome.data import ClipSampling, ClipTransform
        >>> from hf_video_tome.data.moving_digits import write_clips
        >>> folder = tempfile.mkdtemp()
        >>> rows = [{"video": str(clip.path), "label": clip.label.action}
        ...         for clip in write_clips(folder, "test", range(8))]
        >>> checkpoint = checkpoint_path("videomae-moving-digits")
        >>> model = AutoModelForVideoClassification.from_pretrained(checkpoint)
        >>> transform = ClipTransform.from_pretrained(checkpoint)
        >>> results = evaluate(model, rows, transform, ClipSampling(16), folder + "/results",
        ...                    settings=[{"r": 0}, {"r": 38}], num_workers=0)
        >>> [setting.token_counts[-1] for setting in results.settings]
        [288, 60]
    """
    if mixed_precision not in MIXED_PRECISION:
        allowed = ", ".join(map(repr, MIXED_PRECISION))
        raise ValueError(f"mixed_precision must be one of {allowed}, got {mixed_precision!r}")
    for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("top_k", top_k, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other, got True for both")
    if retry_failed and not resume:
        raise ValueError("retry_failed must go with resume, got resume=False")
    if not settings:
        raise ValueError("settings must hold at least one dictionary of token merging settings, got none")

    folder = Path(output)
    config: Any = model.config
    tasks = classifier_tasks(config)
    examples = (
        dataset
        if isinstance(dataset, Examples)
        else read_examples(dataset, tasks, config.id2label, match_labels_by_name)
    )
    transform.check_config(config)
    if sampling.num_frames != config.num_frames:
        raise ValueError(
            f"sampling must have the {config.num_frames} frames that the model expects, got {sampling.num_frames}"
        )
    if transform.output_size is None:
        raise ValueError(f"transform must give frames of one size for batching, got {transform}")

    parameter = next(model.parameters())
    with _restored_settings(model) as apply:
        described = []
        for changes in settings:
            apply(changes)
            described.append({"changes": dict(changes), "resolved": _resolved(model), "token_counts": _counts(model)})
        run = {
            **(identity or {}),
            "settings": described,
            "tasks": {task.name: task.size for task in tasks},
            "outputs": names_digest(config.id2label),
            "classes_matched_by": examples.matched_by,
            "num_videos": len(examples),
            "videos": examples.digest(),
            "weights": digest_weights(model),
            "transform": transform.to_dict(),
            "sampling": sampling.to_dict(),
            "pad": pad,
            "batch_size": batch_size,
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "mixed_precision": mixed_precision,
            "device": parameter.device.type,
            "seed": seed,
            "top_k": top_k,
        }
        earlier = None if reference is None else read_reference(reference, run, examples, tasks)
        run["reference"] = None if earlier is None else earlier.identity

        processes = Processes(cpu=parameter.device.type == "cpu")
        # For example, a different order of rows would count some videos twice and others never.
        processes.check_equal(run, "evaluates something else")
        batches = {
            number: range(first, min(first + batch_size, len(examples)))
            for number, first in enumerate(range(0, len(examples), batch_size))
        }
        with locked(folder, processes):
            done = processes.from_main(
                lambda: open_output(
                    folder, run, batches, resume=resume, overwrite=overwrite, retry_failed=retry_failed
                )
            )
            todo = {number: positions for number, positions in batches.items() if number not in done}
            mine = {
                number: positions for number, positions in todo.items() if number % processes.count == processes.index
            }
            timer = EvaluationTimer(len(settings))
            loop = EvaluationLoop(
                model=model,
                apply=apply,
                settings=settings,
                tasks=tasks,
                decoder=ViewDecoder(examples, sampling, transform, pad, seed),
                batch_size=batch_size,
                num_workers=num_workers,
                mixed_precision=mixed_precision,
                top_k=top_k,
            )
            with Journal(folder, processes.index) as journal:
                loop.run(mine, journal, timer, on_progress if processes.is_main else None)
            measured = processes.gather(timer.measured())

            def finish() -> EvaluationResults:
                journal.check_there()
                rows = in_order(journal.rows(), examples, len(settings))
                results = summarize(run, rows, tasks, None if earlier is None else earlier.rows)
                timing = {
                    "processes": processes.count,
                    # Of this run only: 0 if all batches were already finished.
                    "videos": sum(map(len, todo.values())),
                    **EvaluationTimer.together(measured),
                    "torch_threads": torch.get_num_threads(),
                    "torch": torch.__version__,
                }
                close_output(folder, rows, results, timing, keep_timing=not todo)
                journal.delete()
                return results

            return processes.from_main(finish)


# --- settings
@contextmanager
def _restored_settings(model: Any) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yields a function that applies changes to the model's own settings; restores these at the end.

    A stock model has no settings and accepts no changes.
    """
    merges = isinstance(model.config, TokenMergingConfigMixin)
    base = model.config.token_merging_settings() if merges else {}

    def apply(changes: Mapping[str, Any]) -> None:
        if merges or changes:
            set_token_merging(model, **{**base, **changes})

    try:
        yield apply
    finally:
        apply({})


def _resolved(model: Any) -> dict[str, Any]:
    """Returns the settings with the architecture's defaults filled in; empty for a stock model."""
    config = model.config
    return config.token_merging_settings(resolved=True) if isinstance(config, TokenMergingConfigMixin) else {}


def _counts(model: Any) -> list[int] | None:
    return token_counts(model) if isinstance(model.config, TokenMergingConfigMixin) else None


def digest_weights(model: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Returns a digest of a model's weights.

    Args:
        model: Any model.
        dtype: Dtype to cast floating point weights to first, if not None.

    Returns:
        16 hexadecimal digits; equal to `run["weights"]` for the evaluated model in its dtype.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
