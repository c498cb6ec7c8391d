"""The options that say how tokens are merged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from .common import merging_settings

ModeOption = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="What becomes of redundant tokens: merge, drop, hybrid (needs --threshold), random_merge or random_drop.",
        show_default="merge",
    ),
]
ModesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="merge, drop, hybrid (needs --threshold), random_merge or random_drop; can be given more than once.",
        show_default="merge",
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="SCHEDULE",
        help="How the removal is spread over the layers: constant, decreasing (most in early layers: fastest), "
        "increasing, or a number from -1 (decreasing) to 1 (increasing).",
        show_default="constant",
    ),
]


@dataclass(frozen=True)
class RemovalOptions:
    """How many tokens go in which layer, and what becomes of them; for commands that take one value of each."""

    r: Annotated[
        str | None,
        typer.Option(
            "--r",
            "-r",
            metavar="R",
            help="Tokens that each layer removes: a number (150), a share of the tokens up to 0.5 (0.1), or a list "
            "with one number per layer (8,8,4). 0 merges nothing.",
            show_default="as saved with the checkpoint, else 0",
        ),
    ] = None
    mode: ModeOption = None
    schedule: ScheduleOption = None


@dataclass(frozen=True)
class MatchingOptions:
    """How tokens find each other and what a merged one counts; for commands that compare several r, modes, schedules.

    A new setting becomes a field here, and with that an option of all commands that merge.
    """

    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="COSINE",
            help="Cosine similarity, -1 to 1, under which hybrid drops a token instead of merging it.",
        ),
    ] = None
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="Which tokens may merge with each other: those of the whole clip (clip), of each frame alone "
            "(frame), of each frame with one matching shared by all frames (tube), or of each place over time with "
            "one matching shared by all places (time): whole frames then merge.",
            show_default="chosen by the architecture",
        ),
    ] = None
    pooling: Annotated[
        str | None,
        typer.Option(
            "--pooling",
            metavar="POOLING",
            help="How a head that averages the tokens counts a merged one: by what is in it (weighted), or as one "
            "(mean).",
            show_default="weighted",
        ),
    ] = None
    head_aggregation: Annotated[
        str | None,
        typer.Option(
            "--head-aggregation",
            metavar="HOW",
            help="Compare tokens by their keys averaged over the attention heads (mean) or side by side (concat).",
            show_default="mean",
        ),
    ] = None
    proportional_attention: Annotated[
        bool | None,
        typer.Option(
            "--proportional-attention/--no-proportional-attention",
            help="Let a token that stands for several count as several in the attention.",
            show_default="chosen by the architecture",
        ),
    ] = None
    input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="STAGE",
            help="What enters the first layer: all tubelets, or random ones only (random).",
            show_default="all",
        ),
    ] = None
    input_keep: Annotated[
        str | None,
        typer.Option(
            "--input-keep",
            metavar="KEEP",
            help="What the input stage keeps: a share of the tubelets (0.5), or how many (784).",
            show_default="two thirds",
        ),
    ] = None
    position: Annotated[
        str | None,
        typer.Option(
            "--position",
            metavar="POSITION",
            help="Where a merged token lies, for V-JEPA 2: where the token was that the others were merged into "
            "(destination), or in the middle of all of them (centroid).",
            show_default="centroid",
        ),
    ] = None

    def settings(self, **others: Any) -> dict[str, Any]:
        """The options that were given, as settings for `set_token_merging`.

        Args:
            **others: Values of merging options that the command has beside the group, by name.

        Raises:
            InputError: If a value is not possible for any model.
        """
        return merging_settings(**others, **asdict(self))


@dataclass(frozen=True)
class MergingOptions(MatchingOptions, RemovalOptions):
    """All of them; those of the base that is named last come first in the help."""
