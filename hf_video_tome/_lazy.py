"""Imports names of a package on first use (PEP 562); they are written once, as imports for type checkers."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast


class _SourceLoader(Protocol):
    def get_source(self, fullname: str) -> str | None: ...


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns `__getattr__` and `__dir__` for a package with slow imports or optional dependencies.

    The names are those that its `__init__.py` imports under `if TYPE_CHECKING`, which type checkers and editors read
    and Python does not run. The modules that define them are attributes of the package too, as after a normal import.

    Args:
        package: `__name__` of the package.

    Returns:
        `__getattr__` and `__dir__`.

    Examples:
        >>> module_getattr, _ = lazy_names("hf_video_tome.data")
        >>> module_getattr("read_clips").__module__
        'hf_video_tome.data.video.clips'
    """
    origins = _type_checking_imports(package)
    modules = {origin.partition(".")[0] for origin in origins.values()}

    def module_getattr(name: str) -> Any:
        if name in origins:
            return getattr(import_module(f".{origins[name]}", package), name)
        if name in modules:
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def module_dir() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins})

    return module_getattr, module_dir


def _type_checking_imports(package: str) -> dict[str, str]:
    """Maps each name that a package imports for type checkers to its module: "video.clips", ".tasks"."""
    spec = find_spec(package)
    source = None if spec is None else cast(_SourceLoader, spec.loader).get_source(package)
    if source is None:
        raise ImportError(f"{package} needs the source of its __init__.py, which names what it imports on first use")
    return {
        alias.name: "." * (node.level - 1) + str(node.module)
        for block in ast.parse(source).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
