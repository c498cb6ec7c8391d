"""Names of a package that are imported on first use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes `__getattr__` and `__dir__` of a package whose modules are slow to import, or need more than is installed.

    Type checkers do not run them: they read the same imports under `if TYPE_CHECKING`.

    Args:
        package: `__name__` of the package.
        modules: From each module inside the package to the names that the package has from it.

    Returns:
        `__getattr__` and `__dir__`.

    Examples:
        >>> module_getattr, _ = lazy_names("hf_video_tome.data", {"clips": ["read_clips"]})
        >>> module_getattr("read_clips").__module__
        'hf_video_tome.data.video.clips'
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def module_getattr(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{module_of[name]}", package), name)

    def module_dir() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return module_getattr, module_dir
