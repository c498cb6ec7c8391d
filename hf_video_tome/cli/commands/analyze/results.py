"""Output files of an analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ...common import InputError, JsonOption, check_writable, input_errors
from ...evaluation import (
    output_folder,
)
from ...printing import print_line, print_paragraph, write_json


@dataclass(frozen=True)
class OutputOptions:
    """Options for the output."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FOLDER", help="Folder for the files.", show_default="analysis/KIND-MODEL"
        ),
    ] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an earlier run.")] = False
    as_json: JsonOption = False

    def folder(self, kind: str, model: str | None, evaluation: Path | None = None) -> Path:
        """Returns the output folder, without checking it."""
        from ....analysis.files import model_name

        name = evaluation.resolve().name if evaluation is not None else model_name(model or "")
        return self.output or Path("analysis") / output_folder(kind, name, "").name.strip("-")

    def check(self, folder: Path, kind: str, resume: bool = False) -> None:
        """Checks the output folder, without creating it.

        Raises:
            InputError: If it is not writable, or has results that may not be replaced.
        """
        if (folder / f"{kind}.json").exists() and not (self.overwrite or resume):
            raise InputError(f"--output {folder} already has a {kind}.json: replace it with --overwrite")
        check_writable(folder)


def title_of(conditions: Mapping[str, Any], num_clips: int) -> str:
    """Returns the title of a plot: model, dataset and number of clips."""
    return f"{conditions.get('model', 'model')} on {conditions.get('dataset', 'data')}, {num_clips} clips"


def write_results(
    folder: Path,
    kind: str,
    conditions: Mapping[str, Any],
    content: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    pictures: Sequence[Path],
    as_json: bool,
    lines: Sequence[str] = (),
) -> None:
    """Writes the data beside the plots, and prints the main results and all file names."""
    from ....analysis.files import versions, write_csv
    from ....analysis.files import write_json as write_json_file

    everything = {"analysis": kind, "conditions": {**conditions, "versions": versions()}, **content}
    with input_errors(OSError, at=f"--output {folder}"):
        files = [write_csv(folder / f"{kind}.csv", rows), write_json_file(folder / f"{kind}.json", everything)]
    if as_json:
        write_json({"output": str(folder), **everything})
        return
    for line in lines:
        print_paragraph(line)
    for path in (*pictures, *files):
        print_line(path)
