"""`hf-video-tome evaluate`: measure the accuracy of a checkpoint with and without merging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...describe import distinct_names
from ...merging.setting_error import SettingError
from ...saved_files import read_json
from ..common import Classifier, InputError, JsonOption, ModelArgument, input_errors, option_name
from ..evaluation import (
    ClipOptions,
    DataOptions,
    EvaluationRequest,
    OverwriteOption,
    PassOptions,
    Protocol,
    ResumeOption,
    finish,
    report_failures,
    run_evaluation,
)
from ..merging_options import (
    SEVERAL,
    MatchingOptions,
    ModeOption,
    PresetName,
    ScheduleOption,
    option_of,
    parse_setting,
)
from ..option_groups import grouped_options
from ..printing import print_line, print_paragraph, print_table, write_json

if TYPE_CHECKING:
    from ...evaluation import EvaluationResults
    from ...evaluation.results import TaskResults


HELP = """Evaluate a checkpoint on a dataset, with several settings in one pass.

Predictions are saved batch by batch; after an interruption, repeat the command with --resume for the same results.
With several GPUs or processes: torchrun --nproc-per-node 2 -m hf_video_tome evaluate ...
(use -r instead of --r there, which torchrun takes for its own option).
Unreadable videos are listed and counted, and the exit code is 2.

\b
Examples:
  hf-video-tome evaluate videomae-moving-digits --dataset moving-digits --r 0 --r 38
  hf-video-tome evaluate google/vivit-b-16x2-kinetics400 --dataset kinetics400 --data-dir /data/k400 --r 0 --r 300
  hf-video-tome evaluate google/vivit-b-16x2-kinetics400 --dataset kinetics400 --data-dir /data/k400 --preset paper
"""
SHORT_HELP = "Evaluate a checkpoint on a dataset."


DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="kinetics400, something-something-v2 (ssv2), epic-kitchens-100, class-folders (a folder of class "
        "folders) or moving-digits.",
    ),
]


@grouped_options
def command(
    model: ModelArgument,
    *,
    dataset: DatasetOption,
    data: DataOptions,
    r: Annotated[
        list[str] | None,
        option_of("r", f"{SEVERAL} The others are compared with the first."),
    ] = None,
    mode: ModeOption = None,
    schedule: ScheduleOption = None,
    matching: MatchingOptions,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FILE",
            help='JSON list of settings to compare, such as [{"r": 0}, {"r": 150, "mode": "drop"}], instead of --r.',
        ),
    ] = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(
            help="Instead of --r: no merging, and the settings of this name; with paper, all rows of its table for "
            "this architecture."
        ),
    ] = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            help="Usual sampling for the architecture and dataset: one view (single), many views (full), or as in the "
            "paper (paper).",
            show_default="single; paper with --preset paper",
        ),
    ] = None,
    sampling: ClipOptions,
    num_clips: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of clips per video, averaged.", show_default="by --protocol"),
    ] = None,
    num_crops: Annotated[
        int | None,
        typer.Option(
            metavar="1|3", min=1, max=3, help="Number of crops per clip, averaged.", show_default="by --protocol"
        ),
    ] = None,
    target_fps: Annotated[
        float | None,
        typer.Option(
            metavar="FPS",
            help="Resample frames to this rate by their time stamps; for variable frame rates.",
            show_default="stored frames",
        ),
    ] = None,
    short_videos: Annotated[
        Literal["pad", "refuse"],
        typer.Option(
            help="For a video with too few frames, repeat its last frame (pad) or count it as unreadable (refuse)."
        ),
    ] = "pad",
    videos: PassOptions,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seed of random sampling and of the random modes.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for predictions and results.",
            show_default="evaluations/MODEL-DATASET-SPLIT",
        ),
    ] = None,
    resume: ResumeOption = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: retry unreadable videos.")
    ] = False,
    overwrite: OverwriteOption = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Output folder of an earlier evaluation of the same videos, to compare with.",
            show_default="the first setting",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    given = [name for name, value in (("--r", r), ("--settings", settings_file), ("--preset", preset)) if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} exclude each other")
    common = matching.settings(mode=mode, schedule=schedule)
    if common and (settings_file or preset):
        raise InputError(f"{option_name(next(iter(common)))} and {given[0]} exclude each other; use it with --r")

    def settings(classifier: Classifier) -> list[dict[str, Any]]:
        if preset is not None and preset != "paper":
            from ...presets import preset as preset_of

            with input_errors(SettingError):
                return [classifier.model.config.unmerged_settings, preset_of(preset, classifier.model)]
        if preset is not None:
            from ...evaluation.paper import paper_table_settings

            with input_errors(ValueError, at=f"--preset {preset}"):
                return paper_table_settings(classifier.model.config.model_type)
        if settings_file is not None:
            return _read_settings(settings_file, classifier)
        return [{**common, "r": parse_setting("r", value)} for value in r] if r else [common]

    request = EvaluationRequest(
        model=model,
        dataset=dataset,
        data=data,
        settings=settings,
        protocol=protocol or ("paper" if preset == "paper" else "single"),
        sampling={
            **asdict(sampling),
            "num_clips": num_clips,
            "num_crops": num_crops,
            "target_fps": target_fps,
        },
        pad=short_videos == "pad",
        **asdict(videos),
        seed=seed,
        output=output,
        resume=resume,
        retry_failed=retry_failed,
        overwrite=overwrite,
        reference=reference,
    )
    finished = run_evaluation(request, quiet=as_json)
    results, folder, timing = finished.results, finished.folder, finished.timing
    if finished.processes.is_main:
        if as_json:
            write_json({"output": str(folder), **results.to_dict(), "timing": timing})
        else:
            print_results(results, timing)
            print_line()
            print_line(f"results:      {folder / 'results.json'}")
            print_line(f"predictions:  {folder / 'predictions.jsonl'}")
        report_failures(results, folder)
    finish(finished.processes, bool(results.failures))


def _read_settings(path: Path, classifier: Classifier) -> list[dict[str, Any]]:
    """Reads the settings of a file, by their Python names."""
    config: Any = classifier.model.config
    with input_errors(OSError, ValueError, at="--settings"):
        content = read_json(path)
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise InputError(
            f'--settings {path}: must hold a JSON list of objects, such as [{{"r": 0}}, {{"r": 150, "mode": "drop"}}]'
        )
    for entry in content:
        candidate = type(config).from_stock(config)
        with input_errors(ValueError, at=f"--settings {path}", options=None):
            candidate.update_token_merging(**entry)
    return content


# --- printing
def print_results(results: EvaluationResults, timing: Mapping[str, Any]) -> None:
    """Prints a table with one row per setting and task, with footnotes."""
    _print_table(results, timing)
    for line in footnotes(results, timing):
        print_paragraph(line)


def _print_table(results: EvaluationResults, timing: Mapping[str, Any]) -> None:
    """Prints the results with each setting, usually within 80 columns."""
    run = results.run
    names = distinct_names([setting.changes for setting in results.settings])
    several = len(run["tasks"]) > 1
    compared = any(setting.agreement is not None for setting in results.settings)
    columns = ["settings", "tokens", *(["task"] if several else []), "top-1 %", "top-5", "NLL"]
    columns += [*(["agree", "change"] if compared else []), "clips/s"]
    rows = []
    for name, setting, rate in zip(names, results.settings, timing["clips_per_second"], strict=True):
        counts, difference = setting.token_counts, setting.top_1_difference
        tasks: Mapping[str, TaskResults | None] = setting.tasks or {"": None}
        for number, (task, measured) in enumerate(tasks.items(), start=1):
            # What concerns all tasks stands in the line of the last, which is all of them together.
            first, last = number == 1, number == len(tasks)
            cells = {
                "settings": name if first else "",
                "tokens": f"{counts[0]} → {counts[-1]}" if counts and first else "",
                "task": task,
                "top-1 %": _percent(measured.top_1.value, measured.top_1.standard_error) if measured else "",
                "top-5": _percent(measured.top_5.value) if measured else "",
                "NLL": f"{measured.nll:.3f}" if measured else "",
                "agree": _percent(setting.agreement.value) if setting.agreement and last else "",
                "change": _percent(difference.value, difference.standard_error, "+") if difference and last else "",
                "clips/s": f"{rate:.1f}" if rate is not None and last else "",
            }
            rows.append([cells[column] for column in columns])
    title = f"{run.get('model', '')} on {run.get('dataset', '')}"
    print_table(columns, rows, text=("settings", "task"), title=title)


def _percent(value: float, error: float | None = None, sign: str = "") -> str:
    """Formats a share as a percentage, with its standard error."""
    return f"{100 * value:{sign}.2f}" + ("" if error is None else f" ± {100 * error:.2f}")


def footnotes(results: EvaluationResults, timing: Mapping[str, Any]) -> list[str]:
    """Returns footnotes that explain the table."""
    failed, labelled = len(results.failures), results.num_labelled
    unread = f"; {failed} could not be read" if failed else ""
    if labelled:
        text = f"{labelled} of {results.num_videos} videos counted{unread}. ± standard error."
    elif failed == results.num_videos:
        text = f"None of the {results.num_videos} videos could be read."
    else:
        text = f"{results.num_videos} videos{unread}; their labels are unknown, so there is no accuracy."
    numbers = {setting.num_compared for setting in results.settings if setting.num_compared}
    if numbers:
        where = f"the {max(numbers)} videos that both could read" if results.run["reference"] else "the same videos"
        to = f"{results.run['reference']['folder']}" if results.run["reference"] else "the first line"
        text += f" agree: % with the answer of {to}; change: of top-1 to it, on {where}."
    lines = [text]
    if timing.get("seconds"):
        lines.append(
            f"Waited for data {timing['waiting_for_data']:.1%} of {timing['seconds']:.0f} s (and "
            f"{timing['startup_seconds']:.1f} s for the first batch). clips/s: the model alone, beside "
            "decoding on the same machine; for speed use measurements made for it."
        )
    return lines
