"""Options that several commands have in common, as the fields of one dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

Result = TypeVar("Result")


def grouped_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Returns a Typer command the options of the dataclasses among its parameters.

    Typer makes one option of one parameter, so that an option of ten commands stands in ten signatures. With this
    decorator a keyword-only parameter that is annotated with a dataclass stands for all of the dataclass's fields:
    Typer sees these in its place, and the command gets an instance that holds their values.

    Args:
        command: The command. The fields of its groups are annotated as its own parameters would be, with
            `Annotated[..., typer.Option(...)]`; a field without a default is an option that must be given.

    Returns:
        The command for Typer, which takes keyword arguments alone.

    Raises:
        ValueError: If two parameters or fields have the same name, or a group is not keyword-only.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    fields: dict[str, list[str]] = {}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if not is_dataclass(hints[name]):
            parameters.append(parameter.replace(annotation=hints[name]))
            continue
        if parameter.kind is not parameter.KEYWORD_ONLY:
            raise ValueError(f"the option group {name!r} must be keyword-only")
        group = groups[name] = hints[name]
        kinds = get_type_hints(group, include_extras=True)
        found = inspect.signature(group).parameters.values()
        fields[name] = [field.name for field in found]
        parameters += [field.replace(kind=field.KEYWORD_ONLY, annotation=kinds[field.name]) for field in found]

    @functools.wraps(command)
    def gather(**values: Any) -> Result:
        # All fields are taken out before a group is put in, whose name may be that of a field of another.
        gathered = {
            name: group(**{field: values.pop(field) for field in fields[name]}) for name, group in groups.items()
        }
        return command(**values, **gathered)

    # Typer reads both; a signature refuses parameters of the same name.
    gather.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gather.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gather
