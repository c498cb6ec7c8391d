"""`hf-video-tome card`: the model card of a checkpoint that merges tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import (
    Classifier,
    HeadAggregationOption,
    InputError,
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
    check_output_file,
    find_checkpoint,
    input_errors,
    load_classifier,
    merging_settings,
    print_note,
    read_benchmark,
    read_evaluation,
    write_json,
)

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

HELP = """Write the model card of a checkpoint that merges tokens.

Settings come from the checkpoint and the options, accuracy from output folders of hf-video-tome evaluate, speed from
those of hf-video-tome benchmark, the licence from the checkpoint's own card. Nothing is made up: what is not known is
left out, and said.

\b
Examples:
  hf-video-tome card videomae-moving-digits --r 38
  hf-video-tome card MCG-NJU/videomae-base-finetuned-kinetics --r 150 --evaluation evaluations/k400 --output README.md
"""
SHORT_HELP = "Write the model card of a checkpoint that merges tokens."

EvaluationOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--evaluation",
        metavar="FOLDER",
        help="Output folder of hf-video-tome evaluate, of this checkpoint; can be given more than once.",
    ),
]
BenchmarkOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--benchmark",
        metavar="FOLDER",
        help="Output folder of hf-video-tome benchmark; can be given more than once.",
    ),
]
BaseModelOption = Annotated[
    str | None,
    typer.Option(
        "--base-model",
        metavar="ID",
        help="Where the weights of a folder come from: an id on the Hub.",
        show_default="MODEL, if that is one",
    ),
]


RepoIdOption = Annotated[
    str | None,
    typer.Option(
        "--repo-id", metavar="ID", help="Where it will be on the Hub, for the title and the snippets of the card."
    ),
]


@dataclass(frozen=True)
class CardRequest:
    """What a card is to be made of.

    Attributes:
        model: The checkpoint, as the user called it.
        settings: Merging settings, from `merging_settings`.
        evaluations: Output folders.
        benchmarks: Output folders.
        base_model: Hub id that the weights come from, if the user said so.
        repo_id: Hub id that the card is for, if the user said so.
        remote_code: Whether the code lies beside it.
    """

    model: str
    settings: dict[str, Any]
    evaluations: Sequence[Path] = ()
    benchmarks: Sequence[Path] = ()
    base_model: str | None = None
    repo_id: str | None = None
    remote_code: bool = False


def command(
    model: ModelArgument,
    evaluation: EvaluationOption = None,
    benchmark: BenchmarkOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it.", show_default="printed"),
    ] = None,
    base_model: BaseModelOption = None,
    repo_id: RepoIdOption = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Say how to use the code that lies beside the weights.")
    ] = False,
    r: ROption = None,
    mode: ModeOption = None,
    threshold: ThresholdOption = None,
    schedule: ScheduleOption = None,
    scope: ScopeOption = None,
    pooling: PoolingOption = None,
    head_aggregation: HeadAggregationOption = None,
    proportional_attention: ProportionalAttentionOption = None,
    position: PositionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    check_hub_id(repo_id, "--repo-id")
    settings = merging_settings(
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
    if output is not None and output.is_dir():
        raise InputError(f"--output {output}: is a folder; give a file, such as README.md")
    if output is not None:
        check_output_file(output)
    request = CardRequest(model, settings, evaluation or [], benchmark or [], base_model, repo_id, remote_code)
    _, card = make_card(request)
    if output is not None:
        with input_errors(OSError, rewrite=lambda text: f"--output {output}: {text}"):
            card.save(output)
    if as_json:
        write_json(
            {"output": None if output is None else str(output), "metadata": card.data.to_dict(), "card": str(card)}
        )
    else:
        typer.echo(str(card).rstrip() if output is None else f"card: {output}")


def check_hub_id(value: str | None, option: str) -> None:
    """Refuses what cannot be the id of a repository on the Hub.

    Args:
        value: Value of an option; None where it was not given.
        option: The option.

    Raises:
        InputError: Saying what such an id looks like.
    """
    from huggingface_hub.utils import validate_repo_id

    if value is not None:
        # What the message goes on with is for calls in Python.
        with input_errors(ValueError, rewrite=lambda text: f"{option}: {text.partition(' Use `repo_type`')[0]}"):
            validate_repo_id(value)


def make_card(request: CardRequest) -> tuple[Classifier, ModelCard]:
    """Loads a checkpoint and writes its card; says what is not known.

    Args:
        request: What to write of.

    Returns:
        The checkpoint, with the settings, and the card.

    Raises:
        InputError: If the checkpoint cannot be loaded, or what was measured is of another one.
    """
    from dataclasses import replace

    from ..hub import model_card, read_base_checkpoint

    check_hub_id(request.base_model, "--base-model")
    find_checkpoint(request.model)
    evaluations = [read_evaluation(folder) for folder in request.evaluations]
    benchmarks = [read_benchmark(folder) for folder in request.benchmarks]
    classifier = load_classifier(request.model, request.settings)
    with input_errors(ValueError):
        base = read_base_checkpoint(classifier.location, name=Path(classifier.name).name)
        if request.base_model is not None:
            if base.repo_id not in (None, request.base_model):
                raise InputError(f"--base-model {request.base_model}: the card of {request.model} says {base.repo_id}")
            base = replace(base, repo_id=request.base_model)
            if not base.license:
                base = replace(base, license=read_base_checkpoint(request.base_model).license)
        card = model_card(
            classifier.model,
            base,
            evaluations=evaluations,
            benchmarks=benchmarks,
            repo_id=request.repo_id,
            remote_code=request.remote_code,
        )
    if not base.license:
        print_note("the checkpoint's card names no licence, so that this one names none either")
    if base.repo_id is None:
        print_note("the card names no base model: give it with --base-model if it is on the Hub")
    if evaluations and "model-index" not in card.data.to_dict():
        print_note("nothing was measured with exactly these settings, so that the metadata holds no accuracy")
    return classifier, card
