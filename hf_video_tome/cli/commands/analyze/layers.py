"""`hf-video-tome analyze layers`: analyse what each layer would merge on its own."""

from __future__ import annotations

from typing import Annotated

import typer

from ....describe import describe_settings
from ...common import ModelArgument, input_errors, make_folder, require_packages
from ...evaluation import DataOptions
from ...merging_options import MergingOptions
from ...option_groups import grouped_options
from ...printing import progress_bar
from .inputs import load, make_request
from .options import DatasetOption, ExamplesOption, RunOptions
from .results import OutputOptions, title_of, write_results

HELP = """Analyse layer duplication: what would be merged if a single layer decided alone?

Repeat the merge decision of each layer as often as there are layers, with nothing in between, and measure how similar
the merged tokens are in colour and keys, how far apart they are, and whether they share a time step.

\b
Example:
  hf-video-tome analyze layers videomae-moving-digits --dataset moving-digits --r 38
"""
SHORT_HELP = "Analyse what each layer would merge on its own."
ERROR_NOTE = "± one standard error over the clips"


@grouped_options
def command(
    model: ModelArgument,
    *,
    dataset: DatasetOption = None,
    data: DataOptions,
    clips: Annotated[
        int, typer.Option(metavar="N", min=1, help="Number of clips, evenly spaced over the dataset.")
    ] = 48,
    examples: ExamplesOption = 1,
    merging: MergingOptions,
    run: RunOptions,
    files: OutputOptions,
) -> None:
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ....analysis import draw_layers, save_layer_groups, study_layers
    from ....visualization import ClipGeometry

    given = merging.settings()
    request = make_request(model, dataset, data, run)
    target = files.folder("layers", model)
    files.check(target, "layers")
    loaded = load(request, lambda found: found.spread(clips), given)
    with (
        progress_bar(
            f"comparing the layers on {len(loaded.clips)} clips", -(-len(loaded.clips) // run.batch_size)
        ) as advance,
        input_errors(ValueError),
    ):
        study = study_layers(
            loaded.classifier.model,
            loaded.classifier.transform,
            loaded.clips,
            loaded.settings,
            batch_size=run.batch_size,
            seed=run.seed,
            num_examples=max(examples, 1),
            on_progress=advance,
        )
    make_folder(target)
    conditions = loaded.conditions()
    merged = describe_settings(conditions["resolved"])
    pictures = [
        draw_layers(
            study,
            target / "layers.png",
            title=title_of(conditions, study.clips),
            note=f"{merged}. A token and those that it is merged with; {ERROR_NOTE}",
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
                note=f"{loaded.name(number)}; {merged}",
            )
        )
    content = {"clips": study.clips, "token_counts": list(study.token_counts), "measures": study.rows()}
    write_results(target, "layers", conditions, content, study.rows(), pictures, files.as_json)
    loaded.finish()
