"""`hf-video-tome analyze`: what merging does, in pictures and in the numbers behind them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Classifier,
    Dtype,
    DtypeOption,
    HeadAggregationOption,
    InputError,
    JsonOption,
    ModeOption,
    PoolingOption,
    PositionOption,
    ProportionalAttentionOption,
    ROption,
    ScheduleOption,
    ScopeOption,
    ThresholdOption,
    check_device,
    console,
    describe_merging,
    input_errors,
    load_classifier,
    merging_settings,
    one_line,
    option_names,
    parse_r,
    print_error,
    print_note,
    progress_bar,
    require_packages,
    write_json,
)
from .evaluate import (
    SHOWN_FAILURES,
    AnnotationsOption,
    BatchSizeOption,
    ClipSamplingRateOption,
    ClipStrategy,
    ClipStrategyOption,
    DataDirOption,
    DataOptionOption,
    DeviceChoice,
    LimitOption,
    Protocol,
    Request,
    SplitOption,
    WorkersOption,
    choose_sampling,
    distinct_names,
    finish,
    load_examples,
    output_folder,
    parse_data_options,
    report_failures,
    run_evaluation,
)

if TYPE_CHECKING:
    from ..analysis import Clips
    from ..evaluation import Examples, Task

SHORT_HELP = "See what merging does: accuracy, confusions, layers, clip splicing."
HELP = """See what merging does, in pictures and in the numbers behind them.

Each analysis writes a picture, its data as CSV, and a JSON file with the results and the conditions of the run.
Drawing needs matplotlib: pip install "hf-video-tome[viz]"
"""
DEFAULT_REMOVED = 0.8
"""Share of the tokens that all layers together are asked to remove where nothing else is said."""
ERROR_NOTE = "± one standard error over the clips"

app = typer.Typer(name="analyze", help=HELP, no_args_is_help=False, rich_markup_mode=None, add_completion=False)

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Checkpoint: a folder, a model id on the Hub, or one that comes with the package."
    ),
]
OptionalModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Checkpoint: a folder, a model id on the Hub, or one that comes with the package. Can be left out with "
        "--evaluation.",
        show_default=False,
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="kinetics400, something-something-v2 (ssv2), epic-kitchens-100, class-folders or moving-digits.",
        show_default=False,
    ),
]
EvaluationOption = Annotated[
    Path | None,
    typer.Option(
        "--evaluation",
        metavar="FOLDER",
        help="Output folder of a finished `hf-video-tome evaluate` to take in place of running one.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the files.", show_default="analysis/KIND-MODEL"),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run there.")]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything that is drawn at random.")]
ExamplesOption = Annotated[int, typer.Option("--examples", metavar="N", min=0, help="Clips to draw.")]


@app.callback(invoke_without_command=True)
def _root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


# --- accuracy
ACCURACY_HELP = """Accuracy against r up to the limit, and against speed, for each schedule and mode.

Runs an evaluation of the unmerged model and of all r, modes and schedules in one pass, or takes a finished one with
--evaluation. The speed-up comes from --benchmark FILE, or is measured here on random clips (--rounds 0 leaves it out).

\b
Examples:
  hf-video-tome analyze accuracy videomae-moving-digits --dataset moving-digits --mode merge --mode drop
  hf-video-tome analyze accuracy --evaluation evaluations/my-run
"""


@app.command("accuracy", help=ACCURACY_HELP, short_help="Accuracy against r and speed, per schedule and mode.")
def accuracy(
    model: OptionalModelArgument = None,
    dataset: DataOption = None,
    data_dir: DataDirOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    data_option: DataOptionOption = None,
    evaluation: EvaluationOption = None,
    r: Annotated[
        list[str] | None,
        typer.Option(
            "--r",
            "-r",
            metavar="R",
            help="Tokens that each layer removes, a number (150) or a share (0.1); can be given more than once.",
            show_default="6.25, 12.5, 25 and 50 % of the tokens that are matched together",
        ),
    ] = None,
    mode: Annotated[
        list[str] | None,
        typer.Option(
            "--mode",
            metavar="MODE",
            help="merge, drop, hybrid (needs --threshold), random_merge or random_drop; can be given more than once.",
            show_default="merge",
        ),
    ] = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            "--schedule",
            metavar="SCHEDULE",
            help="constant, decreasing, increasing or a number from -1 to 1; can be given more than once.",
            show_default="constant, decreasing and increasing",
        ),
    ] = None,
    threshold: ThresholdOption = None,
    scope: ScopeOption = None,
    pooling: PoolingOption = None,
    head_aggregation: HeadAggregationOption = None,
    proportional_attention: ProportionalAttentionOption = None,
    position: PositionOption = None,
    benchmark: Annotated[
        Path | None,
        typer.Option(
            "--benchmark",
            metavar="FILE",
            help="results.json of a benchmark with the same settings, to take the speed-ups from.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=0, help="How often each setting is timed; 0 for not at all.")
    ] = 10,
    strategy: ClipStrategyOption = None,
    sampling_rate: ClipSamplingRateOption = None,
    limit: LimitOption = None,
    batch_size: BatchSizeOption = 8,
    workers: WorkersOption = 2,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceChoice = None,
    seed: SeedOption = 0,
    output: OutputOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in the output folder.")] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `ACCURACY_HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ..analysis import accuracy_curves, draw_accuracy, setting_grid
    from ..analysis.accuracy import curve_rows
    from ..analysis.files import conditions_of_run
    from ..analysis.speed import measure_speed_ups, read_speed_ups

    common = merging_settings(
        None,
        None,
        threshold=threshold,
        scope=scope,
        pooling=pooling,
        head_aggregation=head_aggregation,
        proportional_attention=proportional_attention,
        position=position,
    )
    if evaluation is not None and (r or mode or schedule or common):
        raise InputError("the settings are those of --evaluation: --r, --mode, --schedule and the like go without it")
    schedules = [
        merging_settings(None, text)["schedule"] for text in schedule or ["constant", "decreasing", "increasing"]
    ]

    def grid(classifier: Classifier) -> list[dict[str, Any]]:
        values = None if r is None else [_one_r(text) for text in r]
        with input_errors(ValueError, rewrite=lambda text: option_names(_dashes(text))):
            return setting_grid(classifier.model.config, values, mode or ["merge"], schedules, common)

    target = _output(output, "accuracy", model, evaluation, overwrite or resume)
    request = _request(
        model, dataset, evaluation, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        settings=grid, strategy=strategy, sampling_rate=sampling_rate, limit=limit, batch_size=batch_size,
        workers=workers, dtype=dtype, device=device, seed=seed, output=target / "evaluation", resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    done = _evaluated(request, evaluation, as_json)
    if done is None:
        return
    results, failed = done
    speed_ups: list[float] | None = None
    measured: dict[str, Any] | None = None
    if benchmark is not None:
        with input_errors(OSError, ValueError, KeyError, TypeError, rewrite=lambda text: f"--benchmark: {text}"):
            speed_ups, measured = read_speed_ups(benchmark, results["settings"], results["run"]["dtype"])
    elif rounds and model is not None:
        import torch

        classifier = load_classifier(model, {}, dtype.value, _device(device))
        changes = [setting["changes"] for setting in results["settings"]]
        counts = [setting["token_counts"] for setting in results["settings"]]
        passes = rounds * (1 + sum(own[-1] < own[0] for own in counts))
        with progress_bar(f"timing {len(changes)} settings", passes) as advance:
            speed_ups = measure_speed_ups(
                classifier.model, changes, batch_size=batch_size, rounds=rounds, seed=seed, on_progress=advance
            )
        measured = {
            "batch_size": batch_size,
            "rounds": rounds,
            "dtype": dtype.value,
            "device": classifier.device.type,
            "threads": torch.get_num_threads(),
            "input": "random clips, all settings in turn, median of the ratios",
        }
    with input_errors(ValueError):
        curves = accuracy_curves(results, speed_ups)
    conditions = {**conditions_of_run(results["run"]), "speed": measured}
    note = f"± one standard error over {results['num_labelled']} clips; dotted: unmerged"
    picture = draw_accuracy(
        curves, target / "accuracy.png", title=_title(conditions, results["num_labelled"]), note=note
    )
    _write(target, "accuracy", conditions, {"points": curve_rows(curves)}, curve_rows(curves), [picture], as_json)
    if failed:
        raise typer.Exit(2)


# --- confusion
CONFUSION_HELP = """Confusion matrices without and with merging, and what merging changes in them.

Runs an evaluation of the unmerged model and of one r, or takes two settings of a finished one with --evaluation.

\b
Examples:
  hf-video-tome analyze confusion videomae-moving-digits --dataset moving-digits --r 46
  hf-video-tome analyze confusion --evaluation evaluations/my-run --before 0 --after 2
"""


@app.command("confusion", help=CONFUSION_HELP, short_help="What merging changes in the confusion matrix.")
def confusion(
    model: OptionalModelArgument = None,
    dataset: DataOption = None,
    data_dir: DataDirOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    data_option: DataOptionOption = None,
    evaluation: EvaluationOption = None,
    before: Annotated[
        int, typer.Option("--before", metavar="N", min=0, help="Number of the evaluation's setting to compare with.")
    ] = 0,
    after: Annotated[
        int | None,
        typer.Option(
            "--after", metavar="N", min=0, help="Number of the setting that is compared.", show_default="the last"
        ),
    ] = None,
    r: ROption = None,
    mode: ModeOption = None,
    threshold: ThresholdOption = None,
    schedule: ScheduleOption = None,
    scope: ScopeOption = None,
    pooling: PoolingOption = None,
    head_aggregation: HeadAggregationOption = None,
    proportional_attention: ProportionalAttentionOption = None,
    position: PositionOption = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", metavar="NAME", help="Task of the classifier, such as verb or noun.", show_default="the first"
        ),
    ] = None,
    classes: Annotated[int, typer.Option("--classes", metavar="N", min=1, help="Classes to draw.")] = 20,
    select: Annotated[
        str,
        typer.Option(
            "--select", metavar="WHICH", help="Draw the classes with the most changes (changed), or the first (first)."
        ),
    ] = "changed",
    strategy: ClipStrategyOption = None,
    sampling_rate: ClipSamplingRateOption = None,
    limit: LimitOption = None,
    batch_size: BatchSizeOption = 8,
    workers: WorkersOption = 2,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceChoice = None,
    seed: SeedOption = 0,
    output: OutputOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the evaluation in the output folder.")] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `CONFUSION_HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ..analysis import choose_classes, compare_confusions, draw_confusion
    from ..analysis.confusion import SELECTIONS
    from ..analysis.files import conditions_of_run
    from ..evaluation import read_predictions

    if select not in SELECTIONS:
        raise InputError(f"--select must be one of {', '.join(SELECTIONS)}, got {select!r}")
    settings = _merging_options(
        r, schedule, mode, threshold, scope, pooling, head_aggregation, proportional_attention, position
    )
    if evaluation is not None and settings:
        raise InputError("the settings are those of --evaluation: choose two of them with --before and --after")
    if evaluation is None and (before, after) != (0, None):
        raise InputError("--before and --after choose among the settings of --evaluation")

    target = _output(output, "confusion", model, evaluation, overwrite or resume)
    request = _request(
        model, dataset, evaluation, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        settings=lambda classifier: [{"r": 0}, _with_default_r(settings, classifier)], strategy=strategy,
        sampling_rate=sampling_rate, limit=limit, batch_size=batch_size, workers=workers, dtype=dtype, device=device,
        seed=seed, output=target / "evaluation", resume=resume, overwrite=overwrite,
    )  # fmt: skip
    done = _evaluated(request, evaluation, as_json)
    if done is None:
        return
    results, failed = done
    run = results["run"]
    last = len(results["settings"]) - 1
    after = last if after is None else after
    if before > last or after > last or before == after:
        raise InputError(f"--before and --after must be two of the settings 0 to {last}, got {before} and {after}")
    chosen_task = next(iter(run["tasks"])) if task is None else task
    if chosen_task not in run["tasks"]:
        raise InputError(f"--task must be one of {', '.join(run['tasks'])}, got {task!r}")
    names = _class_names(model, run, chosen_task)
    with input_errors(ValueError, OSError):
        rows = read_predictions(evaluation or target / "evaluation")
        change = compare_confusions(rows, before, after, run["tasks"][chosen_task], chosen_task)
    drawn = choose_classes(change, classes, select)
    headings = distinct_names([results["settings"][number]["changes"] for number in (before, after)])
    conditions = {
        **conditions_of_run(run),
        "task": chosen_task,
        "before": results["settings"][before]["resolved"],
        "after": results["settings"][after]["resolved"],
    }
    summary = change.summary()
    which = {"changed": f"the {len(drawn)} classes with the most changes", "first": f"the first {len(drawn)} classes"}
    picture = draw_confusion(
        change,
        drawn,
        target / "confusion.png",
        names=names,
        headings=(headings[0], headings[1]),
        title=_title(conditions, summary["videos"]),
        note=f"{which[select]} of {run['tasks'][chosen_task]}; in all: {summary['right_to_wrong']} right answers "
        f"lost, {summary['wrong_to_right']} gained, {summary['wrong_to_other_wrong']} wrong in another way. "
        "Left and middle: share of the class",
    )
    content = {"summary": summary, "drawn_classes": [{"class": label, "name": names(label)} for label in drawn]}
    _write(target, "confusion", conditions, content, change.rows(names), [picture], as_json)
    if failed:
        raise typer.Exit(2)


# --- layers
LAYERS_HELP = """Layer duplication: what would be merged if one layer decided alone?

The merge decision of each layer is repeated as often as there are layers, with nothing in between, and measured: how
alike the merged tokens are in colour and in keys, how far apart they lie, and whether they are of one time.

\b
Example:
  hf-video-tome analyze layers videomae-moving-digits --dataset moving-digits --r 38
"""


@app.command("layers", help=LAYERS_HELP, short_help="What each layer would merge by itself.")
def layers(
    model: ModelArgument,
    dataset: DataOption = None,
    data_dir: DataDirOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    data_option: DataOptionOption = None,
    clips: Annotated[
        int, typer.Option("--clips", metavar="N", min=1, help="Clips to look at, spread evenly over the data set.")
    ] = 48,
    examples: ExamplesOption = 1,
    r: ROption = None,
    mode: ModeOption = None,
    threshold: ThresholdOption = None,
    schedule: ScheduleOption = None,
    scope: ScopeOption = None,
    pooling: PoolingOption = None,
    head_aggregation: HeadAggregationOption = None,
    proportional_attention: ProportionalAttentionOption = None,
    position: PositionOption = None,
    strategy: ClipStrategyOption = None,
    sampling_rate: ClipSamplingRateOption = None,
    batch_size: BatchSizeOption = 8,
    workers: WorkersOption = 0,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceChoice = None,
    seed: SeedOption = 0,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `LAYERS_HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ..analysis import draw_layers, save_layer_groups, study_layers
    from ..visualization import ClipGeometry

    given = _merging_options(
        r, schedule, mode, threshold, scope, pooling, head_aggregation, proportional_attention, position
    )
    target = _output(output, "layers", model, None, overwrite)
    request = _request(
        model, dataset, None, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        strategy=strategy, sampling_rate=sampling_rate, batch_size=batch_size, workers=workers, dtype=dtype,
        device=device, seed=seed,
    )  # fmt: skip
    loaded = _load(request, lambda found: found.spread(clips), given)
    with (
        progress_bar(
            f"comparing the layers on {len(loaded.clips)} clips", -(-len(loaded.clips) // batch_size)
        ) as advance,
        input_errors(ValueError, rewrite=option_names),
    ):
        study = study_layers(
            loaded.classifier.model,
            loaded.classifier.transform,
            loaded.clips,
            loaded.settings,
            batch_size=batch_size,
            seed=seed,
            num_examples=max(examples, 1),
            on_progress=advance,
        )
    conditions = loaded.conditions(seed)
    pictures = [
        draw_layers(
            study,
            target / "layers.png",
            title=_title(conditions, study.clips),
            note=f"{_described(conditions)}. A token and those that it is merged with; {ERROR_NOTE}",
        )
    ]
    geometry = ClipGeometry.from_config(loaded.classifier.model.config)
    for number in range(min(examples, len(study.examples))):
        pictures.append(
            save_layer_groups(
                study,
                target / f"layers-groups-{number}.png",
                loaded.clips,
                geometry,
                example=number,
                title=f"{conditions['model']}: what each layer would merge by itself, and the model",
                note=f"{loaded.name(number)}; {_described(conditions)}",
            )
        )
    content = {"clips": study.clips, "token_counts": list(study.token_counts), "measures": study.rows()}
    _write(target, "layers", conditions, content, study.rows(), pictures, as_json)
    loaded.finish()


# --- splice
SPLICE_HELP = """Clip splicing: does merging go by looks or by meaning?

Tubelets of each clip are replaced by those of another: one with the nearest colours, one of the same class, the one
that the model takes for the most similar, or a random one. Counts how much merges across the splice, beside the clip
itself (nothing replaced) and random merging.

\b
Example:
  hf-video-tome analyze splice videomae-moving-digits --dataset moving-digits --r 38 --region tubelets
"""


@app.command("splice", help=SPLICE_HELP, short_help="Whether tokens merge across a splice of two clips.")
def splice(
    model: ModelArgument,
    dataset: DataOption = None,
    data_dir: DataDirOption = None,
    split: SplitOption = None,
    annotations: AnnotationsOption = None,
    data_option: DataOptionOption = None,
    classes: Annotated[
        int, typer.Option("--classes", metavar="N", min=1, help="Classes to take, spread over those of the data set.")
    ] = 30,
    per_class: Annotated[
        int, typer.Option("--per-class", metavar="N", min=2, help="Clips to take of each of them.")
    ] = 4,
    region: Annotated[
        str,
        typer.Option(
            "--region",
            metavar="REGION",
            help="What is replaced: tubelets at random places (tubelets), the last time slots (time), or the right "
            "side of all frames (space).",
        ),
    ] = "tubelets",
    share: Annotated[
        float, typer.Option("--share", metavar="SHARE", help="Share of the clip that is replaced, 0 to 1.")
    ] = 0.5,
    examples: ExamplesOption = 2,
    r: ROption = None,
    mode: ModeOption = None,
    threshold: ThresholdOption = None,
    schedule: ScheduleOption = None,
    scope: ScopeOption = None,
    pooling: PoolingOption = None,
    head_aggregation: HeadAggregationOption = None,
    proportional_attention: ProportionalAttentionOption = None,
    position: PositionOption = None,
    strategy: ClipStrategyOption = None,
    sampling_rate: ClipSamplingRateOption = None,
    batch_size: BatchSizeOption = 8,
    workers: WorkersOption = 0,
    dtype: DtypeOption = Dtype.float32,
    device: DeviceChoice = None,
    seed: SeedOption = 0,
    output: OutputOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `SPLICE_HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ..analysis import draw_splices, save_splice_examples, study_splices, whole_classes
    from ..analysis.splice import REGIONS
    from ..merging.layout import SHARED_SCOPES
    from ..visualization import ClipGeometry

    if region not in REGIONS:
        raise InputError(f"--region must be one of {', '.join(REGIONS)}, got {region!r}")
    given = _merging_options(
        r, schedule, mode, threshold, scope, pooling, head_aggregation, proportional_attention, position
    )
    target = _output(output, "splice", model, None, overwrite)
    request = _request(
        model, dataset, None, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        strategy=strategy, sampling_rate=sampling_rate, batch_size=batch_size, workers=workers, dtype=dtype,
        device=device, seed=seed,
    )  # fmt: skip
    loaded = _load(request, lambda found: whole_classes(found, classes, per_class), given)
    scope_used = loaded.conditions(seed)["resolved"]["scope"]
    if region == "tubelets" and scope_used in SHARED_SCOPES:
        print_note(
            f"with scope {scope_used} one matching serves all frames or places, each of which is spliced elsewhere: "
            "it can see little of the splice (see --region space or time)"
        )
    with (
        progress_bar(f"splicing {len(loaded.clips)} clips", len(loaded.clips)) as advance,
        input_errors(ValueError, rewrite=lambda text: option_names(_dashes(text))),
    ):
        study = study_splices(
            loaded.classifier.model,
            loaded.classifier.transform,
            loaded.clips,
            loaded.settings,
            loaded.tasks,
            region=region,
            share=share,
            batch_size=batch_size,
            seed=seed,
            num_examples=examples,
            on_progress=advance,
        )
    conditions = {
        **loaded.conditions(seed),
        "region": region,
        "share": share,
        "classes": classes,
        "per_class": per_class,
    }
    what = {"tubelets": "of the tubelets", "time": "of the time slots", "space": "of the columns"}[region]
    summary = study.summary()
    num_clips = len(study.splices) // len(summary["kinds"])
    note = f"{share:.0%} {what} replaced; {_described(conditions)}"
    pictures = [
        draw_splices(
            study,
            target / "splice.png",
            title=_title(conditions, num_clips),
            note=f"{note}; ± one standard error",
        )
    ]
    geometry = ClipGeometry.from_config(loaded.classifier.model.config)
    for number, found in enumerate(study.examples):
        pictures.append(
            save_splice_examples(
                study,
                target / f"splice-example-{number}.png",
                geometry,
                example=number,
                names=loaded.name,
                title=f"{conditions['model']}: {loaded.name(found[0].splice.clip)!r}, spliced",
                note=note,
            )
        )
    content = {"clips": num_clips, **summary}
    _write(target, "splice", conditions, content, study.rows(), pictures, as_json)
    loaded.finish()


# --- what they share
@dataclass(frozen=True)
class _Loaded:
    """A checkpoint, clips for it, and how to merge."""

    classifier: Classifier
    clips: Clips
    tasks: Sequence[Task]
    settings: dict[str, Any]
    dataset: str
    split: str
    sampling: dict[str, Any]
    dtype: str
    batch_size: int

    def conditions(self, seed: int) -> dict[str, Any]:
        """Under which numbers were made, JSON-safe and without paths."""
        from ..analysis.files import model_name

        config: Any = self.classifier.model.config
        resolved = type(config).from_stock(config)
        resolved.update_token_merging(**self.settings)
        return {
            "model": model_name(self.classifier.name),
            "model_type": config.model_type,
            "dataset": self.dataset,
            "split": self.split,
            "num_clips": len(self.clips),
            "unreadable": len(self.clips.failures),
            "sampling": self.sampling,
            "transform": self.classifier.transform.to_dict(),
            "resolved": resolved.token_merging_settings(resolved=True),
            "batch_size": self.batch_size,
            "dtype": self.dtype,
            "device": self.classifier.device.type,
            "seed": seed,
        }

    def name(self, clip: int) -> str:
        """The name of the class of a clip."""
        config: Any = self.classifier.model.config
        labels = self.clips.labels[clip]
        if labels is None:
            return f"clip {clip}"
        return ", ".join(
            str(config.id2label.get(task.start + label, label)) for task, label in zip(self.tasks, labels, strict=True)
        )

    def finish(self) -> None:
        """Lists videos that could not be read.

        Raises:
            Exit: With code 2, if there are any.
        """
        failures = self.clips.failures
        for video_id, reason in list(failures.items())[:SHOWN_FAILURES]:
            print_error(f"{video_id}: {one_line(reason)}")
        if failures:
            print_error(f"{len(failures)} of {len(failures) + len(self.clips)} videos could not be read")
            raise typer.Exit(2)


def _request(
    model: str | None,
    dataset: str | None,
    evaluation: Path | None,
    *,
    strategy: ClipStrategy | None,
    sampling_rate: int | None,
    data_option: list[str] | None,
    settings: Callable[[Classifier], list[dict[str, Any]]] = lambda classifier: [{}],
    output: Path | None = None,
    **others: Any,
) -> Request | None:
    """The options as a request; None where a finished evaluation is taken.

    Raises:
        InputError: If it is not clear what to run.
    """
    if evaluation is not None:
        if dataset is not None:
            raise InputError("--dataset and --evaluation exclude each other")
        return None
    if model is None:
        raise InputError("MODEL must be given, or --evaluation with the folder of a finished evaluation")
    if dataset is None:
        raise InputError("--dataset must be given" + (", or --evaluation" if output is not None else ""))
    return Request(
        model=model,
        dataset=dataset,
        data_options=parse_data_options(data_option or []),
        settings=settings,
        protocol=Protocol.single,
        sampling={"strategy": None if strategy is None else strategy.value, "sampling_rate": sampling_rate},
        output=output,
        **others,
    )


def _evaluated(request: Request | None, evaluation: Path | None, quiet: bool) -> tuple[dict[str, Any], bool] | None:
    """Results of an evaluation, run or read, and whether videos of it could not be read; None in helping processes."""
    if request is None:
        assert evaluation is not None
        path = evaluation / "results.json"
        if not path.is_file():
            raise InputError(
                f"--evaluation {evaluation}: no output folder of a finished evaluation, it has no results.json"
            )
        with input_errors(OSError, ValueError, rewrite=lambda text: f"--evaluation {evaluation}: {text}"):
            results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict) or not {"run", "settings"} <= results.keys():
            raise InputError(f"--evaluation {evaluation}: its results.json is not that of an evaluation")
        return results, False
    finished = run_evaluation(request, quiet=quiet)
    if not finished.processes.is_main:
        finish(finished.processes, False)
        return None
    report_failures(finished.results, finished.folder)
    finish(finished.processes, False)
    # As it is read from a file: JSON has no tuples and no other keys than strings.
    return json.loads(json.dumps(finished.results.to_dict())), bool(finished.results.failures)


def _load(request: Request | None, choose: Callable[[Examples], Examples], given: Mapping[str, Any]) -> _Loaded:
    """Loads the checkpoint and decodes the clips."""
    from ..analysis import load_clips
    from ..data.loading import DATASETS, canonical_name
    from ..evaluation import classifier_tasks

    assert request is not None  # no evaluation can take its place
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("this analysis runs in one process: start it without torchrun or accelerate launch")
    with input_errors(ValueError, rewrite=lambda text: f"--dataset: {text}"):
        name = canonical_name(request.dataset)
    split = request.split or DATASETS[name].evaluation_split
    classifier = load_classifier(request.model, {}, request.dtype.value, _device(request.device))
    config: Any = classifier.model.config
    settings = _with_default_r(given, classifier)
    with input_errors(ValueError, rewrite=option_names):
        type(config).from_stock(config).update_token_merging(**settings)
    sampling = choose_sampling(request, name, classifier)
    with input_errors(ValueError, OSError, ImportError, rewrite=lambda text: f"--dataset {name}: {text}"):
        examples = choose(load_examples(request, name, split, classifier))
    batches = -(-len(examples) // request.batch_size)
    with (
        progress_bar(f"decoding {len(examples)} clips", batches) as advance,
        input_errors(ValueError, rewrite=lambda text: f"--dataset {name}: {text}"),
    ):
        clips = load_clips(
            examples,
            sampling,
            classifier.transform,
            batch_size=request.batch_size,
            num_workers=request.workers,
            seed=request.seed,
            on_progress=advance,
        )
    return _Loaded(
        classifier,
        clips,
        classifier_tasks(config),
        settings,
        name,
        split,
        sampling.to_dict(),
        request.dtype.value,
        request.batch_size,
    )


def _device(name: str | None) -> str:
    """Where to run: as told, else on a GPU if there is any."""
    import torch

    if name is not None:
        check_device(name)
        return name
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if accelerator is None else accelerator.type


def _merging_options(
    r: str | None,
    schedule: str | None,
    mode: str | None,
    threshold: float | None,
    scope: str | None,
    pooling: str | None,
    head_aggregation: str | None,
    proportional_attention: bool | None,
    position: str | None,
) -> dict[str, Any]:
    """The merging options that were given, as settings."""
    return merging_settings(
        r,
        schedule,
        mode=mode,
        threshold=threshold,
        scope=scope,
        pooling=pooling,
        head_aggregation=head_aggregation,
        proportional_attention=proportional_attention,
        position=position,
    )


def _with_default_r(settings: Mapping[str, Any], classifier: Classifier) -> dict[str, Any]:
    """Settings with an r: as given, as saved with the checkpoint, or one that removes most of the tokens."""
    config: Any = classifier.model.config
    saved = config.token_merging_r
    if "r" in settings or (any(saved) if isinstance(saved, list) else saved):
        return dict(settings)
    share = round(DEFAULT_REMOVED / config.num_merging_layers, 4)
    print_note(f"--r was not given: {share:g} of the tokens in each layer")
    return {**settings, "r": min(share, 0.5)}


def _one_r(text: str) -> int | float:
    value = parse_r(text)
    if isinstance(value, list):
        raise InputError(f"--r must be a number or a share here, got {text!r}")
    return value


def _dashes(message: str) -> str:
    """Calls arguments by the names of their options."""
    for name in ("r", "share", "region"):
        if message.startswith(f"{name} "):
            return f"--{message}"
    return message


def _output(output: Path | None, kind: str, model: str | None, evaluation: Path | None, replace: bool) -> Path:
    """The output folder, made.

    Raises:
        InputError: If it cannot be written to, or has results that are not to be replaced.
    """
    from ..analysis.files import model_name

    name = evaluation.resolve().name if evaluation is not None else model_name(model or "")
    folder = output or Path("analysis") / output_folder(kind, name, "").name.strip("-")
    with input_errors(OSError, rewrite=lambda text: f"--output {folder}: {text}"):
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / f"{kind}.json").exists() and not replace:
        raise InputError(f"--output {folder} has a {kind}.json already: --overwrite replaces it")
    return folder


def _class_names(model: str | None, run: Mapping[str, Any], task: str) -> Callable[[int], str]:
    """What the classes of a task are called; by number without a model."""
    if model is None:
        return str
    from ..evaluation import classifier_tasks
    from ..evaluation.tasks import names_digest

    config: Any = load_classifier(model, {}).model.config
    if names_digest(config.id2label) != run.get("outputs"):
        raise InputError(f"MODEL {model} has other outputs than the model of the evaluation")
    start = next(found.start for found in classifier_tasks(config) if found.name == task)
    return lambda label: str(config.id2label.get(start + label, label))


def _described(setting: Mapping[str, Any]) -> str:
    """Settings in a few words."""
    resolved = setting["resolved"]
    if not resolved:
        return "stock model"
    if not (any(resolved["r"]) if isinstance(resolved["r"], list) else resolved["r"]):
        return "unmerged"
    return describe_merging(resolved).split(", with")[0].split(", weighted")[0].split(", mean pooling")[0]


def _title(conditions: Mapping[str, Any], num_clips: int) -> str:
    return f"{conditions.get('model', 'model')} on {conditions.get('dataset', 'data')}, {num_clips} clips"


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    with input_errors(OSError, rewrite=lambda text: f"--output {folder}: {text}"):
        yield


def _write(
    folder: Path,
    kind: str,
    conditions: Mapping[str, Any],
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[Path],
    as_json: bool,
) -> None:
    """Writes the data beside the pictures, and says what there is."""
    from ..analysis.files import versions, write_csv
    from ..analysis.files import write_json as write_json_file

    everything = {"analysis": kind, "conditions": {**conditions, "versions": versions()}, **content}
    with _writing(folder):
        files = [write_csv(folder / f"{kind}.csv", rows), write_json_file(folder / f"{kind}.json", everything)]
    if as_json:
        write_json({"output": str(folder), **everything})
        return
    screen = console()
    for line in _lines(kind, content):
        screen.print(line)
    for path in (*pictures, *files):
        typer.echo(str(path))


def _lines(kind: str, content: Mapping[str, Any]) -> list[str]:
    """The result in a few lines."""
    if kind == "splice":
        lines = [f"partners across the splice, mean over {content['clips']} clips ± standard error:"]
        for name, found in content["kinds"].items():
            lines.append(
                f"  {name:24}{_percent(found['across'])}   minus a random clip: {_percent(found['minus_random_clip'])}"
            )
        chance = content["kinds"]["random"]["random_merging"]
        return [*lines, f"  {'random merging':24}{_percent(chance)}"]
    if kind == "confusion":
        return [f"{name.replace('_', ' ')}: {value}" for name, value in content["summary"].items()]
    return []


def _percent(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    error = "" if found["standard_error"] is None else f" ± {100 * found['standard_error']:.2f}"
    return f"{100 * found['value']:.2f}{error} %"
