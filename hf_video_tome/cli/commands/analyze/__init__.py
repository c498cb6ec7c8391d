"""`hf-video-tome analyze`: what merging does, in pictures and in the numbers behind them.

Each kind of analysis is a module with a command.
"""

from __future__ import annotations

import typer

from ...command import add_command
from ...imports import EarlyImportOption
from ...printing import print_lines
from . import accuracy, confusion, layers, splice

SHORT_HELP = "See what merging does: accuracy, confusions, layers, clip splicing."
HELP = """See what merging does, in pictures and in the numbers behind them.

Each analysis writes a picture, its data as CSV, and a JSON file with the results and the conditions of the run.
Drawing needs matplotlib: pip install "hf-video-tome[viz]"
"""

app = typer.Typer(name="analyze", help=HELP, no_args_is_help=False, rich_markup_mode=None, add_completion=False)
for _name, _module in (("accuracy", accuracy), ("confusion", confusion), ("layers", layers), ("splice", splice)):
    add_command(app, _name, _module)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, imports: EarlyImportOption = None) -> None:
    if context.invoked_subcommand is None:
        print_lines(context.get_help())
        raise typer.Exit(2)
