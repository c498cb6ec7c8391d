"""`hf-video-tome analyze confusion`: which answers merging changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from ..common import (
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
    input_errors,
    load_classifier,
    require_packages,
)
from ..evaluate import (
    AnnotationsOption,
    BatchSizeOption,
    ClipSamplingRateOption,
    ClipStrategyOption,
    DataDirOption,
    DataOptionOption,
    DeviceChoice,
    LimitOption,
    SplitOption,
    WorkersOption,
    distinct_names,
)
from .inputs import (
    evaluated,
    make_request,
    merging_options,
    with_default_r,
)
from .options import (
    DataOption,
    EvaluationOption,
    OptionalModelArgument,
    OutputOption,
    OverwriteOption,
    SeedOption,
)
from .results import (
    prepare_output,
    title_of,
    write_results,
)

HELP = """Confusion matrices without and with merging, and what merging changes in them.

Runs an evaluation of the unmerged model and of one r, or takes two settings of a finished one with --evaluation.

\b
Examples:
  hf-video-tome analyze confusion videomae-moving-digits --dataset moving-digits --r 46
  hf-video-tome analyze confusion --evaluation evaluations/my-run --before 0 --after 2
"""
SHORT_HELP = "What merging changes in the confusion matrix."


def command(
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
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ...analysis import choose_classes, compare_confusions, draw_confusion
    from ...analysis.confusion import SELECTIONS
    from ...analysis.files import conditions_of_run
    from ...evaluation import read_predictions

    if select not in SELECTIONS:
        raise InputError(f"--select must be one of {', '.join(SELECTIONS)}, got {select!r}")
    settings = merging_options(
        r, schedule, mode, threshold, scope, pooling, head_aggregation, proportional_attention, position
    )
    if evaluation is not None and settings:
        raise InputError("the settings are those of --evaluation: choose two of them with --before and --after")
    if evaluation is None and (before, after) != (0, None):
        raise InputError("--before and --after choose among the settings of --evaluation")

    target = prepare_output(output, "confusion", model, evaluation, overwrite or resume)
    request = make_request(
        model, dataset, evaluation, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        settings=lambda classifier: [{"r": 0}, with_default_r(settings, classifier)], strategy=strategy,
        sampling_rate=sampling_rate, limit=limit, batch_size=batch_size, workers=workers, dtype=dtype, device=device,
        seed=seed, output=target / "evaluation", resume=resume, overwrite=overwrite,
    )  # fmt: skip
    done = evaluated(request, evaluation, as_json)
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
        title=title_of(conditions, summary["videos"]),
        note=f"{which[select]} of {run['tasks'][chosen_task]}; in all: {summary['right_to_wrong']} right answers "
        f"lost, {summary['wrong_to_right']} gained, {summary['wrong_to_other_wrong']} wrong in another way. "
        "Left and middle: share of the class",
    )
    content = {"summary": summary, "drawn_classes": [{"class": label, "name": names(label)} for label in drawn]}
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()]
    write_results(target, "confusion", conditions, content, change.rows(names), [picture], as_json, lines)
    if failed:
        raise typer.Exit(2)


def _class_names(model: str | None, run: Mapping[str, Any], task: str) -> Callable[[int], str]:
    """What the classes of a task are called; by number without a model."""
    if model is None:
        return str
    from ...evaluation import classifier_tasks
    from ...evaluation.tasks import names_digest

    config: Any = load_classifier(model, {}).model.config
    if names_digest(config.id2label) != run.get("outputs"):
        raise InputError(f"MODEL {model} has other outputs than the model of the evaluation")
    start = next(found.start for found in classifier_tasks(config) if found.name == task)
    return lambda label: str(config.id2label.get(start + label, label))
