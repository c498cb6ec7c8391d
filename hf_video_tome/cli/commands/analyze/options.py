"""Options shared by several analyses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ...common import Dtype
from ...evaluation import BatchSizeOption, ClipOptions, DataOptions, DeviceChoice, LimitOption, WorkersOption

OptionalModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="Checkpoint: a folder, a model id on the Hub, or the name of a bundled checkpoint. Optional with "
        "--evaluation.",
        show_default=False,
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="kinetics400, something-something-v2 (ssv2), epic-kitchens-100, class-folders or moving-digits.",
        show_default=False,
    ),
]
ExamplesOption = Annotated[int, typer.Option("--examples", metavar="N", min=0, help="Number of clips to draw.")]


@dataclass(frozen=True)
class EvaluatedDataOptions(DataOptions):
    """Options for a dataset, or for a finished evaluation."""

    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Output folder of a finished `hf-video-tome evaluate` to use instead of running one.",
        ),
    ] = None


@dataclass(frozen=True)
class RunOptions(ClipOptions):
    """Options for sampling and running the model; those not in `ClipOptions` are fields of `EvaluationRequest`."""

    dtype: Annotated[Dtype | None, typer.Option(help="Data type of the model.")] = Dtype.float32
    batch_size: BatchSizeOption = 8
    workers: WorkersOption = 0
    device: DeviceChoice = None
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of all random numbers.")] = 0


@dataclass(frozen=True)
class EvaluationRunOptions(RunOptions):
    """Options for running the model in analyses that evaluate a dataset, which takes longer."""

    dtype: Annotated[
        Dtype | None,
        typer.Option(help="Data type of the model.", show_default="float32, or that of --evaluation"),
    ] = None
    workers: WorkersOption = 2
    limit: LimitOption = None
    resume: Annotated[bool, typer.Option("--resume", help="Resume the evaluation in the output folder.")] = False
