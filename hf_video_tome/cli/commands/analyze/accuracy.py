"""`hf-video-tome analyze accuracy`: plot accuracy against r and speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .... import loading
from ....merging.schedule import SCHEDULE_INFLECTIONS
from ....merging.setting_error import SettingError
from ...common import (
    Classifier,
    Dtype,
    InputError,
    input_errors,
    load_classifier,
    make_folder,
    print_busy,
    read_benchmark,
    require_packages,
    with_settings,
)
from ...merging_options import SEVERAL, MatchingOptions, ModesOption, option_of, parse_setting
from ...option_groups import grouped_options
from ...printing import progress_bar
from .inputs import choose_device, load_evaluated, take_results
from .options import DatasetOption, EvaluatedDataOptions, EvaluationRunOptions, OptionalModelArgument
from .results import OutputOptions, title_of, write_results

HELP = """Plot accuracy against r up to the limit, and against speed, for each schedule and mode.

Evaluate the unmerged model and all r, modes and schedules in one pass, or use a finished evaluation with --evaluation.
Speed-ups come from --benchmark FILE, or are measured here on random clips (skip this with --rounds 0); with
--evaluation, this needs the evaluated MODEL.

\b
Examples:
  hf-video-tome analyze accuracy videomae-moving-digits --dataset moving-digits --mode merge --mode drop
  hf-video-tome analyze accuracy --evaluation evaluations/my-run
"""
SHORT_HELP = "Plot accuracy against r and speed, per schedule and mode."
ROUNDS = 10
"""Default number of timed rounds per setting."""


@grouped_options
def command(
    model: OptionalModelArgument = None,
    *,
    dataset: DatasetOption = None,
    data: EvaluatedDataOptions,
    r: Annotated[
        list[str] | None,
        option_of("r", f"{SEVERAL} A list is not possible here.", default="6.25, 12.5, 25 and 50 % of a matched set"),
    ] = None,
    mode: ModesOption = None,
    schedule: Annotated[
        list[str] | None,
        option_of("schedule", SEVERAL, default=", ".join(SCHEDULE_INFLECTIONS)),
    ] = None,
    matching: MatchingOptions,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="results.json of a benchmark of the same model and settings, for the speed-ups.",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Number of timed rounds per setting; 0 for none.", show_default=str(ROUNDS)
        ),
    ] = None,
    run: EvaluationRunOptions,
    files: OutputOptions,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ....analysis import accuracy_curves, draw_accuracy, setting_grid
    from ....analysis.accuracy import curve_rows
    from ....analysis.files import conditions_of_run
    from ....analysis.speed import measure_speed_ups, speed_ups_of

    common, evaluation = matching.settings(), data.evaluation
    if evaluation is not None and (r or mode or schedule or common):
        raise InputError("--evaluation has its own settings: --r, --mode, --schedule and the like have no effect")
    if benchmark is not None and rounds:
        raise InputError("--benchmark and --rounds exclude each other")
    for option, given in (("--rounds", rounds), ("--benchmark", benchmark)):
        if given and model is None:
            raise InputError(f"{option} needs MODEL, so that speed and accuracy are of the same model")
    schedules = [parse_setting("schedule", text) for text in schedule or SCHEDULE_INFLECTIONS]
    modes = [parse_setting("mode", text) for text in mode or ["merge"]]
    values = None if r is None else [_one_r(text) for text in r]
    if values is not None and not any(values):
        raise InputError("--r must be more than 0 at least once: 0 is always measured too")

    measured = None if benchmark is None else read_benchmark(benchmark)
    taken: tuple[list[float], dict[str, Any]] | None = None

    def take_speed_ups(config: Any, settings: Sequence[Mapping[str, Any]], own: str) -> None:
        nonlocal taken
        if measured is not None:
            configs = [with_settings(config, changes) for changes in settings]
            with input_errors(ValueError, at=f"--benchmark {benchmark}"):
                taken = speed_ups_of(measured, configs, own)

    def grid(classifier: Classifier) -> list[dict[str, Any]]:
        config: Any = classifier.model.config
        with_settings(config, common)
        with input_errors(ValueError, options=("r",)):
            found = setting_grid(config, values, modes, schedules, common)
        take_speed_ups(config, found, run.dtype or Dtype.float32)  # rather now than after all of the evaluation
        return found

    def check(results: dict[str, Any]) -> None:
        with input_errors(ValueError, at=f"--evaluation {evaluation}"):
            accuracy_curves(results)

    target, results, failed = take_results("accuracy", model, dataset, data, run, files, settings=grid, check=check)
    classifier: Classifier | None = None
    if evaluation is not None and model is not None:
        classifier = load_evaluated(model, results, choose_device(run.device))
        resolved = [setting["resolved"] for setting in results["settings"]]
        if measured is not None or rounds != 0:
            for number, settings in enumerate(resolved):  # a mode, say, that nobody has registered here
                _check_settings(classifier, settings, f"--evaluation {evaluation}: settings[{number}]")
        take_speed_ups(classifier.model.config, resolved, results["run"]["dtype"])
    speed_ups, conditions_of_speed = taken or (None, None)
    num_rounds = ROUNDS if rounds is None else rounds
    if taken is None and num_rounds and model is not None:
        import torch

        from ....benchmark.timing import ProcessorTime

        own = results["run"]["dtype"]
        classifier = classifier or load_classifier(model, {}, own, choose_device(run.device))
        # As resolved in the evaluation, whatever settings are saved with this checkpoint.
        settings = [setting["resolved"] for setting in results["settings"]]
        counts = [setting["token_counts"] for setting in results["settings"]]
        processor = ProcessorTime()
        num_tokens = classifier.model.config.token_layout.num_tokens
        passes = num_rounds * (1 + sum(tokens[-1] < num_tokens for tokens in counts))
        with progress_bar(f"timing {len(settings)} settings", passes) as advance:
            speed_ups = measure_speed_ups(
                classifier.model,
                settings,
                batch_size=run.batch_size,
                rounds=num_rounds,
                seed=run.seed,
                on_progress=advance,
                processor=processor,
            )
        share = processor.share if classifier.device.type == "cpu" else None
        print_busy(share)
        conditions_of_speed = {
            "batch_size": run.batch_size,
            "rounds": num_rounds,
            "dtype": own,
            "device": classifier.device.type,
            "threads": torch.get_num_threads(),
            "processor_share": share,
            "input": "random clips, all settings in turn, median of the ratios",
        }
    with input_errors(ValueError):
        num_tokens = None if classifier is None else classifier.model.config.token_layout.num_tokens
        curves = accuracy_curves(results, speed_ups, num_tokens)
    make_folder(target)
    conditions = {**conditions_of_run(results["run"]), "speed": conditions_of_speed}
    note = f"± one standard error over {results['num_labelled']} clips; dotted: unmerged"
    picture = draw_accuracy(
        curves, target / "accuracy.png", title=title_of(conditions, results["num_labelled"]), note=note
    )
    write_results(
        target, "accuracy", conditions, {"points": curve_rows(curves)}, curve_rows(curves), [picture], files.as_json
    )
    if failed:
        raise typer.Exit(2)


def _check_settings(classifier: Classifier, settings: Mapping[str, Any], where: str) -> None:
    """Checks the settings of a file; errors keep their Python names."""
    with input_errors(SettingError, loading.UnsupportedSettingsError, at=where, options=None):
        loading.with_settings(classifier.model.config, settings)


def _one_r(text: str) -> int | float:
    value = parse_setting("r", text)
    if isinstance(value, list):
        raise InputError(f"--r must be a number or a share here, got {text!r}")
    return value
