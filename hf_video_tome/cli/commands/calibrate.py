"""`hf-video-tome calibrate`: choose how many tokens each layer merges, on unlabelled videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...merging.setting_error import SettingError
from ...merging.settings import SETTINGS
from ..common import (
    Classifier,
    InputError,
    JsonOption,
    ModelArgument,
    describe_merging,
    input_errors,
    with_settings,
)
from ..merging_options import SettingOptions, option_of, parse_settings, with_options
from ..option_groups import grouped_options
from ..printing import print_fields, print_line, progress_bar, write_json
from ..videos import settings_as_options
from .analyze.inputs import finish_clips
from .card import CardOptions
from .save import write_checkpoint
from .unlabelled_clips import ClipRunOptions, SourceOptions, find_clips

if TYPE_CHECKING:
    from torch import Tensor


HELP = """Choose how many tokens each layer merges, on videos without labels.

With --r, find one threshold per layer that as many pairs exceed on average: each clip then merges as many tokens as it
has pairs above the thresholds (mode dymu). With --speedup, find how many tokens each layer merges with one threshold
for all layers, as a fixed list (mode merge). The model is not trained.

\b
Examples:
  hf-video-tome calibrate videomae-moving-digits --videos clips/ --speedup 2.5
  hf-video-tome calibrate MODEL --dataset kinetics400 --data-dir /data/k400 --split train --r 150 --save calibrated
"""
SHORT_HELP = "Choose how many tokens each layer merges, on unlabelled videos."
_DECIDED = ("r", "mode", "schedule", "threshold", "thresholds", "mode_options")


@with_options(*(name for name, info in SETTINGS.items() if info.is_option and name not in _DECIDED))
class OtherOptions(SettingOptions):
    """Options for the settings that calibration does not decide."""


@dataclass(frozen=True)
class _Batches:
    """Normalised clips, batch by batch; can be iterated several times."""

    classifier: Classifier
    frames: Tensor
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.frames) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        from ...analysis.clips import normalized

        classifier = self.classifier
        for _, pixel_values in normalized(classifier.model, classifier.transform, self.frames, self.batch_size):
            yield pixel_values


@grouped_options
def command(
    model: ModelArgument,
    *,
    source: SourceOptions,
    clips: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of videos to use, evenly spaced over all of them.")
    ] = 96,
    r: Annotated[
        str | None,
        option_of(
            "r",
            "Find thresholds with which each layer merges this many tokens on average: a number, a share or a list.",
            default="see --speedup",
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        option_of(
            "schedule",
            "How --r is distributed over layers: constant, decreasing, increasing, or a number from -1 to 1.",
            default="that of the checkpoint",
        ),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES",
            help="Find a fixed list with this many times fewer multiply-accumulates.",
            show_default="2.5, without --r",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option("--adaptive", help="With --speedup: keep the threshold (mode dymu) instead of a fixed list."),
    ] = False,
    settings: OtherOptions,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a copy of the checkpoint with the result.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the checkpoint in the --save folder.")
    ] = False,
    running: ClipRunOptions,
    batch_size: Annotated[
        int,
        typer.Option(
            "--batch-size", metavar="N", min=1, help="Number of videos per batch; thresholds are means over batches."
        ),
    ] = 16,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of all random numbers.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    from ...tuning import calibrate, measure_calibration, num_steps

    if r is not None and speedup is not None:
        raise InputError("--r and --speedup exclude each other")
    for option, given in (("--adaptive", adaptive), ("--overwrite", overwrite and save is None)):
        if given and (option == "--overwrite" or r is not None):
            raise InputError(f"{option} has no effect {'with --r' if option == '--adaptive' else 'without --save'}")
    if schedule is not None and r is None:
        raise InputError("--schedule has no effect without --r")
    asked, others = parse_settings(r=r, schedule=schedule), settings.settings()
    found_clips = find_clips(
        model,
        source,
        running,
        settings=others,
        limit=clips,
        batch_size=batch_size,
        seed=seed,
        save=save,
        overwrite=overwrite,
    )
    classifier, decoded = found_clips.classifier, found_clips.decode()
    batches = _Batches(classifier, decoded.frames, batch_size)
    goal = f"r = {r}" if r is not None else f"{2.5 if speedup is None else speedup:g} times fewer MACs"
    with (
        progress_bar(f"calibrating on {len(decoded)} clips for {goal}", num_steps(len(batches), r is None)) as advance,
        input_errors(SettingError),
        input_errors(ValueError, options=("speedup", "schedule", "r")),
    ):
        found = calibrate(
            classifier.model,
            batches,
            asked.get("r"),
            schedule=asked.get("schedule"),
            speedup=speedup,
            adaptive=adaptive,
            on_progress=advance,
        )
    with progress_bar("measuring the result", len(batches)) as advance:
        cost = measure_calibration(classifier.model, batches, found, on_progress=advance)
    changes = {**others, **found}
    files = [] if save is None else write_checkpoint(model, save, changes, CardOptions())[1]
    resolved = with_settings(classifier.model.config, changes).token_merging_settings(resolved=True)
    if as_json:
        write_json(
            {
                "model": classifier.name,
                "videos": found_clips.source,
                "num_clips": len(decoded),
                "unreadable": len(decoded.failures),
                "sampling": found_clips.sampling.to_dict(),
                "settings": found,
                "token_merging": resolved,
                "token_counts": [round(count, 3) for count in cost.token_counts],
                "speedup": round(cost.speedup, 4),
                "folder": None if save is None else str(save),
                "files": files,
            }
        )
    else:
        means = " → ".join(f"{count:.4g}" for count in cost.token_counts)
        print_fields(
            [
                ("model", f"{classifier.name} ({classifier.model.config.model_type})"),
                ("clips", f"{len(decoded)} of {found_clips.source}"),
                ("merging", describe_merging(resolved)),
                *([("thresholds", _listed(found["thresholds"]))] if "thresholds" in found else []),
                ("tokens", f"{means}{' on average' if found['mode'] == 'dymu' else ''}"),
                ("MACs", f"{cost.speedup:.2f} times fewer"),
                *([] if save is None else [("folder", save), ("files", ", ".join(files))]),
            ]
        )
        print_line(f"options: {settings_as_options(found)}")
    finish_clips(decoded)


def _listed(values: list[float]) -> str:
    return ",".join(f"{value:.4f}" for value in values)
