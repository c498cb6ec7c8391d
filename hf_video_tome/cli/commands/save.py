"""`hf-video-tome save`: save and share a checkpoint that merges tokens."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ...loading import SAVED_TRANSFORM
from ..common import (
    Classifier,
    InputError,
    JsonOption,
    ModelArgument,
    check_writable,
    describe_counts,
    describe_merging,
    find_checkpoint,
    input_errors,
    merging_summary,
    quiet_transformers,
)
from ..merging_options import MergingOptions
from ..option_groups import grouped_options
from ..printing import print_fields, write_json
from .card import CardOptions, check_hub_id, make_card

HELP = """Save a checkpoint with merging settings (weights, config, processor and model card), and share it.

\b
Examples:
  hf-video-tome save videomae-moving-digits videomae-merged --r 38
  hf-video-tome save videomae-moving-digits videomae-code --r 38 --remote-code
  hf-video-tome save videomae-moving-digits videomae-shared --r 38 --push-to-hub me/videomae-tome --private
"""
SHORT_HELP = "Save and share a checkpoint with merging settings."


@grouped_options
def command(
    model: ModelArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to write.")],
    *,
    contents: CardOptions,
    remote_code: Annotated[
        bool,
        typer.Option(
            "--remote-code",
            help="Write the code beside the weights, so that from_pretrained(..., trust_remote_code=True) merges "
            "tokens without this package.",
        ),
    ] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="ID", help="Upload the folder to this repository on the Hub.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a new repository as private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Branch to commit to.")] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of committing.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the checkpoint in FOLDER.")] = False,
    merging: MergingOptions,
    as_json: JsonOption = False,
) -> None:
    """Runs the command; see `HELP`."""
    from ...api import token_counts
    from ...hub import upload_checkpoint
    from ...hub.checkpoint import UPLOAD_ERRORS

    for option, given in (("--private", private), ("--revision", revision), ("--create-pr", create_pr)):
        if given and push_to_hub is None:
            raise InputError(f"{option} has no effect without --push-to-hub")
    check_hub_id(contents.repo_id, "--repo-id")
    check_hub_id(push_to_hub, "--push-to-hub")
    if push_to_hub is not None and contents.repo_id not in (None, push_to_hub):
        raise InputError(
            f"--repo-id must be the repository of --push-to-hub, {push_to_hub}, or omitted, got {contents.repo_id}"
        )
    if contents.repo_id is None and push_to_hub is not None and "/" in push_to_hub:
        # The Hub completes a name without an owner, and nobody could load it as given.
        contents = replace(contents, repo_id=push_to_hub)
    check_folder(folder, find_checkpoint(model), overwrite)
    classifier, files = write_checkpoint(model, folder, merging.settings(), contents, remote_code)
    address = None
    if push_to_hub is not None:
        later = ["hf", "upload", push_to_hub, str(folder), *(["--private"] if private else [])]
        later += [] if revision is None else ["--revision", revision]
        later += ["--create-pr"] if create_pr else []
        hint = f"{folder} is written; retry with --overwrite, or upload all of its files with: {shlex.join(later)}"
        with input_errors(*UPLOAD_ERRORS, rewrite=lambda text: f"--push-to-hub {push_to_hub}: {text}; {hint}"):
            address = upload_checkpoint(
                folder, push_to_hub, files=files, private=private or None, revision=revision, create_pr=create_pr
            )
    summary, counts = merging_summary(classifier.model), token_counts(classifier.model)
    if as_json:
        write_json(
            {
                "model": classifier.name,
                "folder": str(folder),
                "files": files,
                "token_merging": summary,
                "token_counts": counts,
                "remote_code": remote_code,
                "repo_id": push_to_hub or contents.repo_id,
                "address": address,
            }
        )
        return
    code = [name for name in files if name.endswith(".py")]
    others = [name for name in files if name not in code]
    print_fields(
        [
            ("model", classifier.name),
            ("merging", describe_merging(summary)),
            ("tokens", describe_counts(counts, classifier.model.config.token_layout.num_tokens)),
            ("folder", folder),
            ("files", ", ".join([*others, f"{len(code)} Python files"] if code else others)),
            *([] if address is None else [("Hub", address)]),
        ]
    )


def write_checkpoint(
    model: str, folder: Path, settings: Mapping[str, Any], contents: CardOptions, remote_code: bool = False
) -> tuple[Classifier, list[str]]:
    """Writes a checkpoint with merging settings, its processor and its card.

    Args:
        model: The checkpoint, as named by the user.
        folder: Output folder, see `check_folder`.
        settings: Merging settings.
        contents: Content of the card.
        remote_code: Whether to write the code beside the weights.

    Returns:
        The checkpoint with the settings, and the written files.

    Raises:
        InputError: If the checkpoint cannot be loaded or written.
    """
    from ...hub import save_checkpoint
    from ...hub.checkpoint import PROCESSOR_FILES

    classifier, card = make_card(model, settings, contents, remote_code=remote_code)
    with quiet_transformers(), input_errors(OSError, ValueError, at=folder):
        processor = classifier.location if classifier.transform_source == SAVED_TRANSFORM else None
        files = save_checkpoint(classifier.model, folder, processor=processor, card=card, remote_code=remote_code)
        for name in PROCESSOR_FILES if processor is None else ():
            (folder / name).unlink(missing_ok=True)  # from a replaced checkpoint
    return classifier, files


def check_folder(folder: Path, location: str, overwrite: bool, option: str = "FOLDER") -> None:
    """Checks the output folder of a checkpoint.

    Args:
        folder: The folder; it need not exist.
        location: Folder or Hub id of the input checkpoint.
        overwrite: Whether to replace a checkpoint in the folder.
        option: Name of the option in errors.

    Raises:
        InputError: If the folder cannot be written, or has other content.
    """
    check_writable(folder, option)
    if not folder.exists():
        return
    if folder.is_dir():
        from ...hub.checkpoint import SCRATCH

        if all(path.name.startswith(SCRATCH) for path in folder.iterdir()):  # empty, except after a killed save
            return
    if not overwrite:
        raise InputError(f"{folder} already exists; replace the checkpoint in it with --overwrite")
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} is not a checkpoint folder (it has no config.json), so --overwrite does not replace it"
        )
    if Path(location).is_dir() and Path(location).resolve() == folder.resolve():
        raise InputError(f"{folder} is the input checkpoint: give another folder")
