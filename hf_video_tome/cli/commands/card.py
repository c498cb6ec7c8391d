"""`hf-video-tome card`: write the model card of a checkpoint that merges tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..common import (
    Classifier,
    InputError,
    JsonOption,
    ModelArgument,
    check_output_file,
    find_checkpoint,
    input_errors,
    load_classifier,
    read_benchmark,
    read_evaluation,
)
from ..merging_options import MergingOptions
from ..option_groups import grouped_options
from ..printing import print_lines, print_note, write_json

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

HELP = """Write the model card of a checkpoint that merges tokens.

Settings come from the checkpoint and the options, accuracy from output folders of hf-video-tome evaluate, speed from
those of hf-video-tome benchmark, and the licence from the checkpoint's own card. Unknown facts are omitted, with a
note.

\b
Examples:
  hf-video-tome card videomae-moving-digits --r 38
  hf-video-tome card MCG-NJU/videomae-base-finetuned-kinetics --r 150 --evaluation evaluations/k400 --output README.md
"""
SHORT_HELP = "Write the model card of a checkpoint that merges tokens."


@dataclass(frozen=True)
class CardOptions:
    """Options for the content of a card beyond the checkpoint's own facts."""

    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="Output folder of hf-video-tome evaluate for this checkpoint; can be given more than once.",
        ),
    ] = None
    benchmark: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Output folder of hf-video-tome benchmark; can be given more than once."),
    ] = None
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Origin of the weights of a folder: a model id on the Hub.",
            show_default="MODEL, if it is a model id",
        ),
    ] = None
    repo_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Repository of the checkpoint on the Hub, for the title and the snippets of the card."
        ),
    ] = None


@grouped_options
def command(
    model: ModelArgument,
    *,
    contents: CardOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the card to this file.", show_default="printed"),
    ] = None,
    remote_code: Annotated[
        bool, typer.Option("--remote-code", help="Explain how to use the code beside the weights.")
    ] = False,
    merging: MergingOptions,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    check_hub_id(contents.repo_id, "--repo-id")
    settings = merging.settings()
    if output is not None and output.is_dir():
        raise InputError(f"--output {output}: is a folder; give a file, such as README.md")
    if output is not None:
        check_output_file(output)
    _, card = make_card(model, settings, contents, remote_code=remote_code)
    if output is not None:
        with input_errors(OSError, at=f"--output {output}"):
            card.save(output)
    if as_json:
        write_json(
            {"output": None if output is None else str(output), "metadata": card.data.to_dict(), "card": str(card)}
        )
    else:
        print_lines(str(card).rstrip() if output is None else f"card: {output}")


def check_hub_id(value: str | None, option: str) -> None:
    """Checks the id of a repository on the Hub.

    Args:
        value: Value of the option; None if not given.
        option: The option.

    Raises:
        InputError: If the id is malformed; the message describes the format.
    """
    from huggingface_hub.utils import validate_repo_id

    if value is not None:
        # The rest of the message is about calls in Python.
        with input_errors(ValueError, rewrite=lambda text: f"{option}: {text.partition(' Use `repo_type`')[0]}"):
            validate_repo_id(value)


def make_card(
    model: str, settings: Mapping[str, Any], contents: CardOptions, remote_code: bool
) -> tuple[Classifier, ModelCard]:
    """Loads a checkpoint and writes its card; prints notes about missing facts.

    Args:
        model: The checkpoint, as named by the user.
        settings: Merging settings, from `MergingOptions`.
        contents: Further content of the card.
        remote_code: Whether the code is stored beside the weights.

    Returns:
        The checkpoint, with the settings, and the card.

    Raises:
        InputError: If the checkpoint cannot be loaded, or the measurements belong to another one.
    """
    from ...hub import model_card, read_base_checkpoint

    base_model = contents.base_model
    check_hub_id(base_model, "--base-model")
    find_checkpoint(model)
    evaluations = [read_evaluation(folder) for folder in contents.evaluation or []]
    benchmarks = [read_benchmark(folder) for folder in contents.benchmark or []]
    classifier = load_classifier(model, settings)
    with input_errors(ValueError):
        base = read_base_checkpoint(classifier.location, name=Path(classifier.name).name)
        if base_model is not None:
            if base.repo_id not in (None, base_model):
                raise InputError(f"--base-model {base_model}: the card of {model} says {base.repo_id}")
            base = replace(base, repo_id=base_model)
            if not base.license:
                base = replace(base, license=read_base_checkpoint(base_model).license)
        card = model_card(
            classifier.model,
            base,
            evaluations=evaluations,
            benchmarks=benchmarks,
            repo_id=contents.repo_id,
            remote_code=remote_code,
        )
    if not base.license:
        print_note("the checkpoint's card names no licence, so this one does not either")
    if base.repo_id is None:
        print_note("the card names no base model: give it with --base-model if it is on the Hub")
    if evaluations and "model-index" not in card.data.to_dict():
        print_note("nothing was measured with exactly these settings, so the metadata has no accuracy")
    return classifier, card
