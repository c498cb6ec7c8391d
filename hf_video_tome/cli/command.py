"""A command that explains itself without torch, and makes ready for its work when it begins."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import typer

from .imports import ImportOption, import_all, imported_values
from .single_values import SingleValuesCommand


class Command(SingleValuesCommand):
    """A command of `hf-video-tome`: see `add_command`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the words of a command line, once the modules that they name are imported."""
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        import_all(values.get("imports"))
        for parameter in self.params:
            new = imported_values(str(parameter.name))
            if new:
                parameter.help += f" Imported: {', '.join(new)}."  # type: ignore[attr-defined]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command, once its words are parsed."""
        from ..registration import register

        register()  # in a process of our own importing the package has not, and modules may have added encoders
        return super().invoke(ctx)


def add_command(app: typer.Typer, name: str, module: Any) -> None:
    """Adds a command to an app, with the option `--import`.

    Args:
        app: The app.
        name: Name of the command.
        module: Its module, with `command`, `HELP` and `SHORT_HELP`.
    """
    app.command(name, cls=Command, help=module.HELP, short_help=module.SHORT_HELP)(_with_imports(module.command))


def _with_imports(command: Callable[..., None]) -> Callable[..., None]:
    """Returns a command the option `--import`, which `Command` heeds before the command runs."""
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
