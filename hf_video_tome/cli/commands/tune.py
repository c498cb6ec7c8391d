"""`hf-video-tome tune`: find the settings that change predictions least at a given speed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...describe import describe_settings
from ...merging.setting_error import SettingError
from ...merging.settings import SETTINGS
from ...tuning.decided import DECIDED
from ..common import (
    Classifier,
    InputError,
    JsonOption,
    ModelArgument,
    check_writable,
    input_errors,
    make_folder,
    print_busy,
    require_packages,
    with_settings,
)
from ..merging_options import SettingOptions, with_options
from ..option_groups import grouped_options
from ..printing import (
    fits_bar,
    live_bar,
    print_fields,
    print_line,
    print_note,
    print_paragraph,
    print_table,
    write_json,
)
from ..videos import settings_as_options
from .analyze.inputs import finish_clips
from .card import CardOptions
from .save import write_checkpoint
from .unlabelled_clips import ClipRunOptions, SourceOptions, UnlabelledClips, find_clips

if TYPE_CHECKING:
    from ...analysis.estimates import Estimate
    from ...tuning import Finalist, Progress, TuningResult

HELP = """Find the settings that change predictions least at a given speed, on videos without labels.

Searches modes and their options, input stages, schedules and proportional attention; the number of tokens to remove
follows from the goal. Half of the clips are held back: the best settings are compared with simple ones there, and the
simple ones are recommended unless the best are better beyond noise. After an interruption, repeat the command to
continue.

\b
Examples:
  hf-video-tome tune videomae-moving-digits --videos clips/ --speedup 2.5
  hf-video-tome tune MODEL --videos clips/ --operations 2.5 --dtype bfloat16 --save tuned
  hf-video-tome tune MODEL --dataset kinetics400 --data-dir /data/k400 --agreement 0.98 --clips 600 --minutes 60
"""
SHORT_HELP = "Find the best settings for a checkpoint, on unlabelled videos."
ARGUMENTS = (
    "speedup",
    "operations",
    "agreement",
    "holdout",
    "trials",
    "rounds",
    "minutes",
    "clips",
    "speed_batch_size",
)
RESULTS, PLOT, SETTINGS_FILE, JOURNAL = "results.json", "frontier.png", "settings.json", "journal.jsonl"


@with_options(*(name for name, info in SETTINGS.items() if info.is_option and name not in DECIDED))
class SharedOptions(SettingOptions):
    """Options for the settings that the search does not decide."""


@grouped_options
def command(
    model: ModelArgument,
    *,
    source: SourceOptions,
    clips: Annotated[
        int, typer.Option(metavar="N", min=4, help="Number of videos to use, evenly spaced over all of them.")
    ] = 48,
    speedup: Annotated[
        float | None, typer.Option(metavar="TIMES", help="Goal: so many times faster, as measured on this machine.")
    ] = None,
    operations: Annotated[
        float | None,
        typer.Option(
            metavar="TIMES",
            help="Goal: so many times fewer multiply-accumulates; the result does not depend on the machine.",
        ),
    ] = None,
    agreement: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Goal: the fastest settings that keep this share of the predictions, such as 0.98."
        ),
    ] = None,
    holdout: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the clips that are held back for the comparison.")
    ] = 0.5,
    trials: Annotated[int, typer.Option(metavar="N", min=0, help="Number of settings to try.")] = 40,
    minutes: Annotated[
        float, typer.Option(metavar="MINUTES", min=0, help="Time limit: fewer settings are tried if it is short.")
    ] = 8.0,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=0, help="Number of timed passes; 0 for none, with --operations.")
    ] = 5,
    settings: SharedOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.", show_default="tuning/MODEL"),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write a copy of the checkpoint with the settings.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace earlier results, and the checkpoint in the --save folder.")
    ] = False,
    running: ClipRunOptions,
    batch_size: Annotated[
        int, typer.Option("--batch-size", metavar="N", min=1, help="Number of clips per batch.")
    ] = 8,
    speed_batch_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Number of clips per timed pass.",
            show_default="1 on the CPU, else --batch-size",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the search.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"optuna": "optuna", "matplotlib": "matplotlib"}, extra="tune")
    from ...analysis.files import model_name
    from ...analysis.files import write_json as write_json_file
    from ...benchmark.timing import ProcessorTime
    from ...tuning import tune
    from ...tuning.plot import draw_frontier

    goals = {"speedup": speedup, "operations": operations, "agreement": agreement}
    given = [f"--{name}" for name, value in goals.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            f"{' and '.join(given)} exclude each other"
            if given
            else "one of --speedup, --operations and --agreement must be given"
        )
    shared = settings.settings()
    folder = output or Path("tuning") / model_name(model).replace("/", "-")
    _check_output(folder, overwrite)
    found = find_clips(
        model,
        source,
        running,
        settings={},
        limit=clips,
        batch_size=batch_size,
        seed=seed,
        save=save,
        overwrite=overwrite,
    )
    classifier = found.classifier
    with_settings(classifier.model.config, shared)
    if not as_json:
        _print_decided(found, goals, holdout, folder)
    decoded = found.decode()
    make_folder(folder)
    if overwrite:
        (folder / JOURNAL).unlink(missing_ok=True)
    elif (folder / JOURNAL).exists():
        print_note(f"continuing the search in {folder}")
    processor = ProcessorTime()
    try:
        with (
            _progress() as on_progress,
            input_errors(SettingError),
            input_errors(ValueError, OSError, options=ARGUMENTS),
            processor,
        ):
            result = tune(
                classifier.model,
                decoded.frames,
                **goals,
                settings=shared,
                transform=classifier.transform,
                holdout=holdout,
                trials=trials,
                minutes=minutes,
                batch_size=batch_size,
                rounds=rounds,
                speed_batch_size=speed_batch_size,
                seed=seed,
                journal=folder / JOURNAL,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        print_note(f"interrupted: repeat the command to continue the search in {folder}")
        raise
    content: dict[str, Any] = {
        "model": model_name(classifier.name),
        "videos": "a folder of videos" if source.dataset is None else source.dataset,
        "unreadable": len(decoded.failures),
        "sampling": found.sampling.to_dict(),
        **result.to_dict(),
    }
    with input_errors(OSError, at=f"--output {folder}"):
        files = [draw_frontier(result, folder / PLOT, title=_title(content, result))]
        files.append(write_json_file(folder / SETTINGS_FILE, result.settings))
        files.append(write_json_file(folder / RESULTS, content))
    written = [] if save is None else write_checkpoint(model, save, result.settings, CardOptions())[1]
    if as_json:
        write_json({"output": str(folder), "folder": None if save is None else str(save), "files": written, **content})
    else:
        _print_result(classifier, result)
        for path in (*files, *([] if save is None else [save])):
            print_line(path)
    if speedup is not None:
        print_busy(processor.share)
    finish_clips(decoded)


def _check_output(folder: Path, overwrite: bool) -> None:
    if (folder / RESULTS).exists() and not overwrite:
        raise InputError(f"--output {folder} already has a {RESULTS}: replace it with --overwrite")
    check_writable(folder)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Shows the progress of each phase: as a bar on a terminal, otherwise as one line."""
    if not fits_bar():

        def print_phase(progress: Progress) -> None:
            if progress.done == 0:
                print_line(f"{progress.phase} ...", stderr=True)

        yield print_phase
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn

    with live_bar(BarColumn(bar_width=20), MofNCompleteColumn(), TimeElapsedColumn(), text_first=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda it: bar.update(task, description=it.phase, completed=it.done, total=it.total)


# --- printing
def _goal_in_words(goals: Mapping[str, float | None]) -> str:
    [(name, value)] = [(name, value) for name, value in goals.items() if value is not None]
    return {
        "speedup": f"{value:g} times faster, measured here",
        "operations": f"{value:g} times fewer multiply-accumulates",
        "agreement": f"fastest with an agreement of {value:g}",
    }[name]


def _print_decided(found: UnlabelledClips, goals: Mapping[str, float | None], holdout: float, folder: Path) -> None:
    classifier, num_videos = found.classifier, len(found.examples)
    held_back = int(num_videos * holdout)
    print_fields(
        [
            ("model", f"{classifier.name} ({classifier.model.config.model_type})"),
            (
                "clips",
                f"{num_videos} of {found.source}; {held_back} held back, transform {classifier.transform_source}",
            ),
            ("goal", _goal_in_words(goals)),
            ("runs on", f"{classifier.device}, {found.request.dtype}"),
            ("output", folder),
        ]
    )


def _print_result(classifier: Classifier, result: TuningResult) -> None:
    print_line()
    if result.finalists:
        measured = any(it.speedup is not None for it in result.finalists)
        print_table(
            ["settings", "MACs", *(["speed-up"] if measured else []), "KL (nats)", "agree %", "KL, search clips"],
            [_row(it, result) for it in result.finalists],
            text=("settings",),
            title=f"{len(result.trials)} settings tried, each with the amount of removal that the goal needs; on the "
            f"{len(result.finalists[0].held_back.divergences)} clips held back:",
        )
    for it in result.comparison:
        changes = f"KL {_signed(it.divergence, 1, 4)}, agreement {_signed(it.agreement, 100, 1)} points"
        print_paragraph(f"{it.compared} minus {it.name}: {changes}")
    for note in result.notes:
        print_paragraph(note)
    config = with_settings(classifier.model.config, result.settings)
    print_line()
    print_fields([("recommended", describe_settings(config.token_merging_settings(resolved=True)))])
    defaults = config.token_merging_defaults()
    changed = {name: value for name, value in result.settings.items() if value != defaults[name]}
    if isinstance(changed.get("input_keep"), float):  # the exact number, rather than a share of 16 digits
        changed["input_keep"] = config.token_merging_plan().input_keep
    print_line(f"options: {settings_as_options(changed)}")


def _row(finalist: Finalist, result: TuningResult) -> list[str]:
    from ...analysis.estimates import estimate

    name = finalist.name + (" (best)" if result.best is not None and finalist.name == result.best.name else "")
    searched = finalist.searched
    return [
        name,
        f"{finalist.operations:.2f}x",
        *([] if finalist.speedup is None else [f"{finalist.speedup:.2f}x"]),
        _with_error(estimate(finalist.held_back.divergences), 1, 4),
        _with_error(estimate(finalist.held_back.agreements), 100, 1),
        "" if searched is None else f"{searched.mean_divergence:.4f}",
    ]


def _with_error(found: Estimate, scale: float, digits: int, sign: str = "") -> str:
    error = "" if found.standard_error is None else f" ± {scale * found.standard_error:.{digits}f}"
    return f"{scale * (found.value or 0.0):{sign}.{digits}f}{error}"


def _signed(found: Estimate, scale: float, digits: int) -> str:
    return _with_error(found, scale, digits, "+")


def _title(content: Mapping[str, Any], result: TuningResult) -> str:
    goal = json.dumps(result.conditions["goal"]).strip("{}").replace('"', "")
    return f"{content['model']}, {goal}"
