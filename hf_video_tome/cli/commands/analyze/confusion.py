"""`hf-video-tome analyze confusion`: compare confusion matrices with and without merging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer

from ....describe import distinct_names
from ...common import (
    Classifier,
    InputError,
    input_errors,
    make_folder,
    require_packages,
)
from ...merging_options import MergingOptions
from ...option_groups import grouped_options
from .inputs import load_evaluated, merging_of, take_results
from .options import DatasetOption, EvaluatedDataOptions, EvaluationRunOptions, OptionalModelArgument
from .results import OutputOptions, title_of, write_results

HELP = """Compare confusion matrices without and with merging.

Evaluate the unmerged model and one r, or use two settings of a finished evaluation with --evaluation.

\b
Examples:
  hf-video-tome analyze confusion videomae-moving-digits --dataset moving-digits --r 46
  hf-video-tome analyze confusion --evaluation evaluations/my-run --before 0 --after 2
"""
SHORT_HELP = "Compare confusion matrices without and with merging."


@grouped_options
def command(
    model: OptionalModelArgument = None,
    *,
    dataset: DatasetOption = None,
    data: EvaluatedDataOptions,
    before: Annotated[
        int, typer.Option(metavar="N", min=0, help="Index of the evaluation's setting to compare with.")
    ] = 0,
    after: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Index of the setting to compare.", show_default="the last"),
    ] = None,
    merging: MergingOptions,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Task of the classifier, such as verb or noun.", show_default="the first"),
    ] = None,
    classes: Annotated[int, typer.Option(metavar="N", min=1, help="Number of classes to draw.")] = 20,
    select: Annotated[
        str,
        typer.Option(metavar="WHICH", help="Draw the classes with the most changes (changed), or the first (first)."),
    ] = "changed",
    run: EvaluationRunOptions,
    files: OutputOptions,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ....analysis import choose_classes, compare_confusions, draw_confusion
    from ....analysis.confusion import SELECTIONS, describe_choice
    from ....analysis.files import conditions_of_run
    from ....evaluation import classifier_tasks, read_predictions

    if select not in SELECTIONS:
        raise InputError(f"--select must be one of {', '.join(SELECTIONS)}, got {select!r}")
    settings, evaluation = merging.settings(), data.evaluation
    if evaluation is not None and settings:
        raise InputError("--evaluation has its own settings: choose two of them with --before and --after")
    if evaluation is None and (before, after) != (0, None):
        raise InputError("--before and --after have no effect without --evaluation")

    def compared(classifier: Classifier) -> list[dict[str, Any]]:
        _choose_task(task, [found.name for found in classifier_tasks(classifier.model.config)])
        config: Any = classifier.model.config
        return [config.unmerged_settings, merging_of(settings, classifier)[0]]

    def choose(results: Mapping[str, Any]) -> tuple[int, str]:
        chosen = _choose_settings(before, after, len(results["settings"]))
        return chosen, _choose_task(task, list(results["run"]["tasks"]))

    target, results, failed = take_results(
        "confusion", model, dataset, data, run, files, settings=compared, check=choose
    )
    evaluated_run = results["run"]
    compared_with, chosen_task = choose(results)
    names = _class_names(model, results, chosen_task)
    with input_errors(ValueError, OSError):
        rows = read_predictions(evaluation or target / "evaluation", [chosen_task])
        change = compare_confusions(rows, before, compared_with, evaluated_run["tasks"][chosen_task], chosen_task)
    drawn = choose_classes(change, classes, select)
    headings = distinct_names([results["settings"][number]["changes"] for number in (before, compared_with)])
    make_folder(target)
    conditions = {
        **conditions_of_run(evaluated_run),
        "task": chosen_task,
        "before": results["settings"][before]["resolved"],
        "after": results["settings"][compared_with]["resolved"],
    }
    summary = change.summary()
    picture = draw_confusion(
        change,
        drawn,
        target / "confusion.png",
        names=names,
        headings=(headings[0], headings[1]),
        title=title_of(conditions, summary["videos"]),
        note=f"{describe_choice(change, drawn, select)}; in all: {summary['right_to_wrong']} right answers "
        f"lost, {summary['wrong_to_right']} gained, {summary['wrong_to_other_wrong']} wrong in another way. "
        "Left and middle: share of the class",
    )
    content = {"summary": summary, "drawn_classes": [{"class": label, "name": names(label)} for label in drawn]}
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in summary.items()]
    write_results(target, "confusion", conditions, content, change.rows(names), [picture], files.as_json, lines)
    if failed:
        raise typer.Exit(2)


def _choose_settings(before: int, after: int | None, count: int) -> int:
    """Returns the index of the setting to compare, the last by default."""
    last = count - 1
    chosen = last if after is None else after
    if before > last or chosen > last or before == chosen:
        raise InputError(f"--before and --after must be two of the settings 0 to {last}, got {before} and {chosen}")
    return chosen


def _choose_task(task: str | None, known: Sequence[str]) -> str:
    """Returns the task to analyse, the first by default."""
    if task is not None and task not in known:
        raise InputError(f"--task must be one of {', '.join(known)}, got {task!r}")
    return known[0] if task is None else task


def _class_names(model: str | None, results: Mapping[str, Any], task: str) -> Callable[[int], str]:
    """Returns the class names of a task; indices without a model."""
    if model is None:
        return str
    from ....evaluation import classifier_tasks, output_name

    config: Any = load_evaluated(model, results).model.config
    answered = next(found for found in classifier_tasks(config) if found.name == task)
    return lambda label: output_name(config, answered, label)
