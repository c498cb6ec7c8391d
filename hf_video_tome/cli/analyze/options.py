"""Options that several analyses have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
