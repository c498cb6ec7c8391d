"""Command class that prints its help without importing torch."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from .imports import ImportOption, import_all, imported_values
from .single_values import SingleValuesCommand


class Command(SingleValuesCommand):
    """Command of `hf-video-tome`: see `add_command`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments, after importing the modules named by `--import`."""
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        import_all(values.get("imports"))
        for parameter in self.params:
            new = imported_values(str(parameter.name))
            if new:
                parameter.help += f" Imported: {', '.join(new)}."  # type: ignore[attr-defined]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        from ..registration import register

        register()  # importing the package does not register in our own process, and modules may have added encoders
        return super().invoke(ctx)


def add_command(app: typer.Typer, name: str, module: Any) -> None:
    """Adds a command to an app, with the option `--import`.

    Args:
        app: The app.
        name: Name of the command.
        module: Module of the command, with `command`, `HELP` and `SHORT_HELP`.
    """
    app.command(name, cls=Command, help=module.HELP, short_help=module.SHORT_HELP)(_with_imports(module.command))


def _with_imports(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the option `--import` to a command; `Command` handles it before the command runs."""
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    imports = inspect.Parameter("imports", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ImportOption)

    @functools.wraps(command)
    def run(imports: list[str] | None = None, **values: Any) -> None:
        command(**values)

    own = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]
    # Typer reads both.
    run.__signature__ = inspect.Signature([*own, imports])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, imports)}
    return run
