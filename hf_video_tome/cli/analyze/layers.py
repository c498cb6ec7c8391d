"""`hf-video-tome analyze layers`: what each layer would merge by itself."""

from __future__ import annotations

from typing import Annotated

import typer

from ..common import (
    Dtype,
    DtypeOption,
    HeadAggregationOption,
    JsonOption,
    ModelArgument,
    ModeOption,
    PoolingOption,
    PositionOption,
    ProportionalAttentionOption,
    ROption,
    ScheduleOption,
    ScopeOption,
    ThresholdOption,
    input_errors,
    make_folder,
    option_names,
    progress_bar,
    require_packages,
)
from ..evaluation import (
    AnnotationsOption,
    BatchSizeOption,
    ClipSamplingRateOption,
    ClipStrategyOption,
    DataDirOption,
    DataOptionOption,
    DeviceChoice,
    SplitOption,
    WorkersOption,
)
from .inputs import (
    load,
    make_request,
    merging_options,
)
from .options import (
    DataOption,
    ExamplesOption,
    OutputOption,
    OverwriteOption,
    SeedOption,
)
from .results import (
    check_output,
    choose_output,
    described,
    title_of,
    write_results,
)

HELP = """Layer duplication: what would be merged if one layer decided alone?

The merge decision of each layer is repeated as often as there are layers, with nothing in between, and measured: how
alike the merged tokens are in colour and in keys, how far apart they lie, and whether they are of one time.

\b
Example:
  hf-video-tome analyze layers videomae-moving-digits --dataset moving-digits --r 38
"""
SHORT_HELP = "What each layer would merge by itself."
ERROR_NOTE = "± one standard error over the clips"


def command(
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
    """Runs the command; see `HELP`."""
    require_packages({"matplotlib": "matplotlib"}, extra="viz")
    from ...analysis import draw_layers, save_layer_groups, study_layers
    from ...visualization import ClipGeometry

    given = merging_options(
        r, schedule, mode, threshold, scope, pooling, head_aggregation, proportional_attention, position
    )
    request = make_request(
        model, dataset, None, data_dir=data_dir, split=split, annotations=annotations, data_option=data_option,
        strategy=strategy, sampling_rate=sampling_rate, batch_size=batch_size, workers=workers, dtype=dtype,
        device=device, seed=seed,
    )  # fmt: skip
    target = choose_output(output, "layers", model, None)
    check_output(target, "layers", overwrite)
    loaded = load(request, lambda found: found.spread(clips), given)
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
    make_folder(target)
    conditions = loaded.conditions(seed)
    pictures = [
        draw_layers(
            study,
            target / "layers.png",
            title=title_of(conditions, study.clips),
            note=f"{described(conditions)}. A token and those that it is merged with; {ERROR_NOTE}",
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
                note=f"{loaded.name(number)}; {described(conditions)}",
            )
        )
    content = {"clips": study.clips, "token_counts": list(study.token_counts), "measures": study.rows()}
    write_results(target, "layers", conditions, content, study.rows(), pictures, as_json)
    loaded.finish()
