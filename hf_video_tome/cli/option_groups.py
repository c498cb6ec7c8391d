"""Groups of options shared by several commands, as dataclasses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, TypeVar, get_type_hints

Result = TypeVar("Result")


def grouped_options(command: Callable[..., Result]) -> Callable[..., Result]:
    """Expands dataclass parameters of a Typer command into one option per field.

    Typer needs one parameter per option, so an option shared by ten commands would be repeated in ten signatures. With
    this decorator, a keyword-only parameter annotated with a dataclass stands for all fields of the dataclass: Typer
    sees the fields, and the command receives an instance with their values.

    Args:
        command: The command. Fields of its groups are annotated like its own parameters, with
            `Annotated[..., typer.Option(...)]`; a field without a default is a required option.

    Returns:
        The command for Typer, which only takes keyword arguments.

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
        # All fields are removed before groups are added, since a group may be named like another group's field.
        gathered = {
            name: group(**{field: values.pop(field) for field in fields[name]}) for name, group in groups.items()
        }
        return command(**values, **gathered)

    # Typer reads both; a signature rejects duplicate parameters.
    gather.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    gather.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return gather
