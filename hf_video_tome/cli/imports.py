"""`--import`: custom modules that register modes and the like before a command parses its options."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import InputError
from .printing import one_line, print_note

IMPORTED: dict[str, dict[str, list[Any]]] = {}
"""New registry keys of each module imported by `--import` in this process, by registry name.

Like the imported modules and registered modes, it lives as long as the process.
"""
_OPTION: dict[str, Any] = {
    "metavar": "FILE|MODULE",
    "help": "Python file or module to import first, to register custom modes; can be given more than once.",
}


def import_all(names: Iterable[str] | None) -> None:
    """Imports the files and modules named by `--import`, each once.

    Args:
        names: Paths of ".py" files, or names of importable modules.

    Raises:
        InputError: If one does not exist, or raises an error.
    """
    for name in names or ():
        if name in IMPORTED:
            continue
        from ..registration import register

        register()  # a module may load models, and use what installed packages register
        before = _registered()
        try:
            if name.endswith(".py"):
                _import_file(name)
            else:
                _import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"--import {name}: {_describe(error)}") from error
        new = {kind: [key for key in keys if key not in before[kind]] for kind, keys in _registered().items()}
        IMPORTED[name] = {kind: keys for kind, keys in new.items() if keys}
        if not IMPORTED[name]:
            print_note(f"--import {name}: registers nothing new")


ImportOption = Annotated[list[str] | None, typer.Option("--import", **_OPTION)]
"""The option of a command; `Command` imports the modules."""
EarlyImportOption = Annotated[list[str] | None, typer.Option("--import", callback=import_all, **_OPTION)]
"""The option before the name of the command."""


def imported_values(option: str) -> list[str]:
    """Returns the values of "mode" or "input" added by `--import`."""
    return [value for new in IMPORTED.values() for value in new.get(option, [])]


def _registered() -> dict[str, list[Any]]:
    """Returns the keys of every registry; a registry named like an option holds its values."""
    from ..merging.input_stages import INPUT_STAGES
    from ..merging.modes import MODES
    from ..models import ENCODERS, HOSTS

    return {"mode": [*MODES], "input": [*INPUT_STAGES], "encoders": [*ENCODERS], "hosts": [*HOSTS]}


def _import_module(name: str) -> None:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"--import must be a file that ends in .py, or a module such as package.module, got {name!r}")
    import_module(name)


def _import_file(file: str) -> None:
    """Imports a file as a module, with its folder at the end of the search path."""
    path = Path(file).resolve()
    if not path.is_file():
        raise InputError(f"--import {file}: no such file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # at the end, so that its files do not shadow other modules
        invalidate_caches()
    name = path.stem
    found = None if "." in name else find_spec(name)
    if found is None or Path(str(found.origin)).resolve() != path:
        other = "" if found is None else f", which is {found.origin}"
        raise InputError(f"--import {file}: cannot be imported as {name!r}{other}: rename the file")
    import_module(name)


def _describe(error: BaseException) -> str:
    """Describes an error raised by a module, with its line."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(frame.filename).name}, line {frame.lineno}: " for frame in frames if frame.name == "<module>"]
    return f"{''.join(lines[:1])}{type(error).__name__}: {one_line(error)}"
