"""`hf-video-tome analyze`: analyse the effects of merging, with plots and data.

Each analysis is a module with a command.
"""

from __future__ import annotations

import typer

from ...command import add_command
from ...imports import EarlyImportOption
from ...printing import print_lines
from . import accuracy, confusion, layers, splice

SHORT_HELP = "Analyse the effects of merging: accuracy, confusions, layers, clip splicing."
HELP = """Analyse the effects of merging, with plots and data.

Each analysis writes a plot, its data as CSV, and a JSON file with the results and the conditions of the run.
Plots need matplotlib: pip install "hf-video-tome[viz]"
"""

app = typer.Typer(name="analyze", help=HELP, no_args_is_help=False, rich_markup_mode=None, add_completion=False)
for _name, _module in (("accuracy", accuracy), ("confusion", confusion), ("layers", layers), ("splice", splice)):
    add_command(app, _name, _module)


@app.callback(invoke_without_command=True)
def _root(context: typer.Context, imports: EarlyImportOption = None) -> None:
    if context.invoked_subcommand is None:
        print_lines(context.get_help())
        raise typer.Exit(2)
