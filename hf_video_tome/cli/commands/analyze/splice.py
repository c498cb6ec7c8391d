"""`hf-video-tome analyze splice`: analyse whether tokens merge across a splice of two clips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....describe import describe_settings
from ...common import (
    InputError,
    ModelArgument,
    input_errors,
    make_folder,
    require_packages,
)
from ...evaluation import DataOptions
from ...merging_options import MergingOptions
from ...option_groups import grouped_options
from ...printing import print_note, progress_bar
from .inputs import load, make_request
from .options import DatasetOption, ExamplesOption, RunOptions
from .results import OutputOptions, title_of, write_results

if TYPE_CHECKING:
    from ....evaluation import Examples

HELP = """Analyse clip splicing: does merging follow appearance or meaning?

Replace tubelets of each clip by those of another clip: the one with the closest colours, one of the same class, the
one most similar for the model, or a random one. Count the merges across the splice, compared with the clip itself
(nothing replaced) and with random merging.

\b
Example:
  hf-video-tome analyze splice videomae-moving-digits --dataset moving-digits --r 38 --region tubelets
"""
SHORT_HELP = "Analyse whether tokens merge across a splice of two clips."


@grouped_options
def command(
    model: ModelArgument,
    *,
    dataset: DatasetOption = None,
    data: DataOptions,
    classes: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of classes, evenly spaced over those of the dataset.")
    ] = 30,
    per_class: Annotated[int, typer.Option(metavar="N", min=2, help="Number of clips per class.")] = 4,
    region: Annotated[
        str,
        typer.Option(
            metavar="REGION",
            help="Region to replace: tubelets at random positions (tubelets), the last time steps (time), or the "
            "right side of all frames (space).",
        ),
    ] = "tubelets",
    share: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of the clip to replace, between 0 and 1.")
    ] = 0.5,
    examples: ExamplesOption = 2,
    merging: MergingOptions,
    run: RunOptions,
    files: OutputOptions,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ....analysis import draw_splices, save_splice_examples, study_splices
    from ....analysis.splice import REGIONS, check_splicing
    from ....merging.scopes import SHARED_SCOPES
    from ....visualization import ClipGeometry

    if region not in REGIONS:
        raise InputError(f"--region must be one of {', '.join(REGIONS)}, got {region!r}")
    if not 0 < share < 1:
        raise InputError(f"--share must be between 0 and 1, both excluded, got {share:g}")
    given = merging.settings()
    request = make_request(model, dataset, data, run)
    target = files.folder("splice", model)
    files.check(target, "splice")
    loaded = load(
        request,
        lambda found: _choose_classes(found, classes, per_class),
        given,
        lambda config: check_splicing(config, region, share),
    )
    conditions = {
        **loaded.conditions(),
        "region": region,
        "share": share,
        "classes": classes,
        "per_class": per_class,
    }
    scope_used = conditions["resolved"]["scope"]
    if region == "tubelets" and scope_used in SHARED_SCOPES:
        print_note(
            f"with scope {scope_used} one matching is shared by all frames or patch positions, each spliced "
            "elsewhere: it can see little of the splice (see --region space or time)"
        )
    with (
        progress_bar(f"splicing {len(loaded.clips)} clips", len(loaded.clips)) as advance,
        input_errors(ValueError, options=("r", "share", "region")),
    ):
        study = study_splices(
            loaded.classifier.model,
            loaded.classifier.transform,
            loaded.clips,
            loaded.settings,
            loaded.tasks,
            region=region,
            share=share,
            batch_size=run.batch_size,
            seed=run.seed,
            num_examples=examples,
            on_progress=advance,
        )
    make_folder(target)
    what = {"tubelets": "of the tubelets", "time": "of the time slots", "space": "of the columns"}[region]
    summary = study.summary()
    num_clips = len(study.splices) // len(summary["kinds"])
    note = f"{share:.0%} {what} replaced; {describe_settings(conditions['resolved'])}"
    pictures = [
        draw_splices(
            study,
            target / "splice.png",
            title=title_of(conditions, num_clips),
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
    write_results(target, "splice", conditions, content, study.rows(), pictures, files.as_json, _lines(content))
    loaded.finish()


def _choose_classes(found: Examples, classes: int, per_class: int) -> Examples:
    """Selects clips of several classes; the error gives advice if no class has two clips."""
    from ....analysis import whole_classes

    advice = "splicing needs two clips of a class: take more videos, with another --split or, for moving-digits"
    with input_errors(ValueError, rewrite=lambda text: f"--dataset: {text}; {advice}, --data-option num_test=240"):
        return whole_classes(found, classes, per_class)


def _lines(content: Mapping[str, Any]) -> list[str]:
    """Returns the main results as lines of text."""
    lines = [f"partners across the splice, mean over {content['clips']} clips ± standard error:"]
    for name, found in content["kinds"].items():
        lines.append(
            f"  {name:24}{_percent(found['across'])}   minus a random clip: {_percent(found['minus_random_clip'])}"
        )
    chance = content["kinds"]["random"]["random_merging"]
    return [*lines, f"  {'random merging':24}{_percent(chance)}"]


def _percent(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "-"
    error = "" if found["standard_error"] is None else f" ± {100 * found['standard_error']:.2f}"
    return f"{100 * found['value']:.2f}{error} %"
