"""Evaluation of a classifier on a data set: on any number of processes, resumable, several settings in one pass."""

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
from .loop import MIXED_PRECISION, Clock, Loop, Progress
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
    """Measures a classifier on a data set, with several token merging settings in one pass over the decoded videos.

    Started by `accelerate launch` or torchrun, the processes share the work; each video is counted once. Predictions
    go to `output` batch by batch. The videos of a batch and their random numbers depend neither on the number of
    processes nor on interruptions, so a resumed evaluation ends in the same files as one that ran through.

    Args:
        model: A video classifier on its device. Its mode and its token merging settings are as before afterwards.
        dataset: Rows as described at `read_examples`, those of `hf_video_tome.data.load` for instance; or what
            `read_examples` made of them.
        transform: How frames become the model's input.
        sampling: Which frames of a video are looked at. The probabilities of several views are averaged.
        output: Folder for `predictions.jsonl`, `results.json`, `timing.json` and what is needed to resume; shared by
            all processes.
        settings: Token merging settings to measure, as for `set_token_merging`, relative to those that the model has.
            The first is what the others are compared with.
        batch_size: Videos decoded together, and clips that go through the model together.
        num_workers: Processes that decode ahead of each process's model; 0 decodes in between.
        mixed_precision: "no", "bf16" or "fp16": autocast of the model.
        match_labels_by_name: Whether the data set's classes are matched with `config.id2label` by name (True), taken
            by number (False), or by name where both have names (None).
        pad: Whether a video with too few frames repeats its last one, or counts as one that cannot be read.
        seed: Of random sampling and of the random modes.
        top_k: Labels to store for each video.
        resume: Go on with what is in `output`.
        retry_failed: When resuming, try again the videos that could not be read.
        overwrite: Delete what is in `output`.
        reference: Folder of an earlier evaluation of the same videos with the same labels and outputs, to compare all
            settings with (its first setting), in place of the first setting.
        identity: What else a resumed evaluation must agree on (names of model and data set), JSON-safe; goes into
            `run.json` and the results.
        on_progress: Called after each batch, in the main process.

    Returns:
        The results, in all processes.

    Raises:
        ValueError: If an argument, the data set or the settings are not as described, `output` has results of another
            evaluation or damaged files, or the logits are not finite.
        JournalRemovedError: If `output` is removed meanwhile.
        OSError: If it cannot be written to; what is done is kept.
        FileExistsError: If `output` has results and neither `resume` nor `overwrite` is set.

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
            f"sampling must take the {config.num_frames} frames that the model expects, got {sampling.num_frames}"
        )
    if transform.output_size is None:
        raise ValueError(f"transform must give frames of one size, so that videos can be batched, got {transform}")

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
        # Rows in another order, say, would count some videos twice and others never.
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
            clock = Clock(len(settings))
            loop = Loop(
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
                loop.run(mine, journal, clock, on_progress if processes.is_main else None)
            clocks = processes.gather(clock.measured())

            def finish() -> EvaluationResults:
                journal.check_there()
                rows = in_order(journal.rows(), examples, len(settings))
                results = summarize(run, rows, tasks, None if earlier is None else earlier.rows)
                timing = {
                    "processes": processes.count,
                    # Those of this run: of nothing, if all was there already.
                    "videos": sum(map(len, todo.values())),
                    **Clock.together(clocks),
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
    """Gives a function that sets the settings that the model came with and changes to them; puts all back afterwards.

    A stock model has no settings, and takes no changes.
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
    """The settings with the architecture's choices filled in; none for a stock model."""
    config = model.config
    return config.token_merging_settings(resolved=True) if isinstance(config, TokenMergingConfigMixin) else {}


def _counts(model: Any) -> list[int] | None:
    return token_counts(model) if isinstance(model.config, TokenMergingConfigMixin) else None


def digest_weights(model: nn.Module, dtype: torch.dtype | None = None) -> str:
    """Tells weights apart.

    Args:
        model: Any model.
        dtype: What its floating point weights are cast to first, if not None.

    Returns:
        16 hexadecimal digits; those of `run["weights"]` for the model that was evaluated, in the dtype that it had.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
