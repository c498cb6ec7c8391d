"""`hf-video-tome paper`: reproduce the paper's table on real checkpoints and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import InputError, JsonOption, find_checkpoint, input_errors
from ..evaluation import (
    DataOptions,
    EvaluationRequest,
    LabelsOption,
    OverwriteOption,
    PassOptions,
    ResumeOption,
    finish,
    output_folder,
    report_failures,
    run_evaluation,
)
from ..option_groups import grouped_options
from ..printing import print_line, print_paragraph, print_table, write_json

if TYPE_CHECKING:
    from ...evaluation import EvaluationResults
    from ..common import Classifier

HELP = """Reproduce the table of "Video, How Do Your Tokens Merge?" (CVPRW 2025) alongside its published numbers.

Evaluate every checkpoint on every given dataset, with all rows of the table in one pass, one view each. Give
checkpoints that are not on the Hub (ViViT on Something-Something, all on EPIC-KITCHENS) with --checkpoint.

\b
Examples:
  hf-video-tome paper --kinetics400 /data/k400 --something-something-v2 /data/ssv2
  hf-video-tome paper --epic-kitchens-100 /data/epic --checkpoint epic-kitchens-100=checkpoints/vivit-epic
"""
SHORT_HELP = "Reproduce the paper's table on real checkpoints."
DATASETS = ("kinetics400", "something-something-v2", "epic-kitchens-100")


@grouped_options
def command(
    *,
    kinetics400: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of Kinetics-400.")] = None,
    something_something_v2: Annotated[
        str | None,
        typer.Option("--something-something-v2", "--ssv2", metavar="FOLDER", help="Folder of Something-Something v2."),
    ] = None,
    epic_kitchens_100: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of EPIC-KITCHENS-100.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATASET=MODEL",
            help="Checkpoint to evaluate on a dataset, instead of all from the Hub; can be given more than once.",
        ),
    ] = None,
    architecture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only use the Hub's checkpoints of this architecture; can be given more than once."
        ),
    ] = None,
    labels: LabelsOption = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for predictions and results.")
    ] = Path("evaluations/paper"),
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    videos: PassOptions,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    from ...data.loading import DATASETS as DATASET_ENTRIES
    from ...data.loading import load
    from ...evaluation.paper import PAPER_CHECKPOINTS, paper_table_settings

    folders = dict(zip(DATASETS, (kinetics400, something_something_v2, epic_kitchens_100), strict=True))
    own: dict[str, list[str]] = {name: [] for name in DATASETS}
    for text in checkpoint or []:
        name, separator, model = text.partition("=")
        if not separator or name not in DATASETS or not model:
            raise InputError(f"--checkpoint must be DATASET=MODEL with one of {', '.join(DATASETS)}, got {text!r}")
        if folders[name] is None:
            raise InputError(f"--checkpoint {text}: --{name} is not given, so there is nothing to evaluate it on")
        own[name].append(model)
    if not any(folders.values()):
        raise InputError(f"give the folder of at least one dataset: {', '.join(f'--{name}' for name in DATASETS)}")
    known = sorted({model_type for model_type, _ in PAPER_CHECKPOINTS})
    for name in architecture or []:
        if name not in known:
            raise InputError(f"--architecture must be one of {', '.join(known)}, got {name!r}")

    jobs = []
    for dataset, folder in folders.items():
        if folder is None:
            continue
        from_hub = [
            model
            for (model_type, name), model in PAPER_CHECKPOINTS.items()
            if name == dataset and (not architecture or model_type in architecture)
        ]
        models = own[dataset] or from_hub
        if not models:
            raise InputError(f"--{dataset}: the Hub has no checkpoint for it; give one: --checkpoint {dataset}=MODEL")
        jobs += [(dataset, folder, model) for model in models]
    # Report errors in any of them before the first one runs for hours.
    destinations = [output / output_folder(model, dataset, "").name.rstrip("-") for dataset, _, model in jobs]
    for number, destination in enumerate(destinations):
        if destination in destinations[:number]:
            raise InputError(f"two evaluations would be written to {destination}: give each checkpoint once")

    for dataset, folder, model in jobs:
        find_checkpoint(model)
        with input_errors(ValueError, OSError, at=f"--{dataset}"):
            load(dataset, DATASET_ENTRIES[dataset].evaluation_split, folder, streaming=True)

    def settings(classifier: Classifier) -> list[dict[str, Any]]:
        with input_errors(ValueError):
            return paper_table_settings(classifier.model.config.model_type)

    finished = []
    for (dataset, folder, model), destination in zip(jobs, destinations, strict=True):
        request = EvaluationRequest(
            model=model,
            dataset=dataset,
            data=DataOptions(data_dir=folder, labels=labels),
            settings=settings,
            protocol="paper",
            output=destination,
            **asdict(videos),
            resume=resume,
            overwrite=overwrite,
        )
        finished.append(run_evaluation(request, quiet=as_json))
    processes = finished[0].processes
    if processes.is_main:
        for evaluation in finished:
            report_failures(evaluation.results, evaluation.folder)
        if as_json:
            content = [{**evaluation.results.to_dict(), "timing": evaluation.timing} for evaluation in finished]
            write_json({"evaluations": content})
        else:
            _print_table([evaluation.results for evaluation in finished])
            print_paragraph(
                "Published: one view, one crop. The paper's checkpoints are not always those of the Hub, and its "
                "copies of the datasets lack other videos: compare the differences between rows, not the rows."
            )
            print_line()
            print_line(f"results:  {output}")
    finish(processes, any(evaluation.results.failures for evaluation in finished))


def _print_table(finished: Sequence[EvaluationResults]) -> None:
    from ...evaluation.paper import published_top_1

    text = ("model", "dataset", "mode", "task")
    rows = []
    for results in finished:
        for number, setting in enumerate(results.settings):
            changes, counts = setting.changes, setting.token_counts
            published = published_top_1(results.run["model_type"], results.run["dataset"], changes)
            for task, measured in setting.tasks.items():
                value = published.get(task)
                cells = (
                    "" if number else Path(results.run["model"]).name,
                    "" if number else results.run["dataset"],
                    changes["mode"] if changes["r"] else "none",
                    "" if len(setting.tasks) == 1 else task,
                    str(changes["r"]),
                    "" if counts is None else f"{counts[0]} → {counts[-1]}",
                    f"{100 * measured.top_1.value:.2f} ± {100 * measured.top_1.standard_error:.2f}",
                    "" if value is None else f"{100 * value:.2f}",
                )
                rows.append(cells)
    print_table((*text, "r", "tokens", "measured", "published"), rows, text=text, title="top-1 accuracy, %")
