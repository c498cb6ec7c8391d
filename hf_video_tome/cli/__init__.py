"""The `hf-video-tome` command.

Bad input gives one line on stderr, `error: ...`, and exit code 2. Unexpected errors keep their traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from .command import add_command
from .commands import (
    analyze,
    benchmark,
    calibrate,
    card,
    classify,
    convert,
    demo,
    evaluate,
    paper,
    save,
    tune,
    visualize,
)
from .common import InputError
from .imports import EarlyImportOption
from .printing import OutputError, one_line, print_error, print_line, print_lines, print_safely, safe_printing

PROGRAM = "hf-video-tome"

app = typer.Typer(
    name=PROGRAM,
    help="Token merging for video classification models: faster inference without training.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # panels leave too little room for the text and truncate long option names,
)
for _name, _module in (
    ("classify", classify),
    ("evaluate", evaluate),
    ("benchmark", benchmark),
    ("calibrate", calibrate),
    ("tune", tune),
    ("paper", paper),
    ("convert", convert),
    ("visualize", visualize),
    ("card", card),
    ("save", save),
    ("demo", demo),
):
    add_command(app, _name, _module)
app.add_typer(analyze.app, name="analyze", help=analyze.HELP, short_help=analyze.SHORT_HELP)


def _print_version(wanted: bool) -> None:
    if wanted:
        from ..version import __version__

        print_line(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    imports: EarlyImportOption = None,
) -> None:
    if context.invoked_subcommand is None:
        print_lines(context.get_help())
        raise typer.Exit(2)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
        arguments: Arguments without the program name; None uses those of this process.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    with safe_printing():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        result = command.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
    except InputError as error:
        print_error(error)
        return 2
    except typer.Abort:
        return 130
    except Exception as error:
        # Usage errors, such as unknown options. Their class is click's or that of Typer's own copy, depending on the
        # version of Typer, so they are recognised by their attributes.
        if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
            raise
        context = getattr(error, "ctx", None)
        path = PROGRAM if context is None else context.command_path
        print_error(f"{error.format_message().rstrip('.')} (see {path} --help)")
        return 2
    return result if isinstance(result, int) else 0


def main() -> None:
    """Runs `hf-video-tome` and `python -m hf_video_tome`."""
    print_safely()  # permanently: shutdown code prints too
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OutputError as error:
        code = 1  # like Click for a closed pipe, such as `| head`
        if error.errno != errno.EPIPE:
            with suppress(OutputError):
                print_error(f"cannot write to stdout: {one_line(error)}")
            code = 2
        # Python's final flush of stdout would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
