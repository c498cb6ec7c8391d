"""Plugins: packages add modes through an entry point that names the module which registers them."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import entry_points

GROUP = "hf_video_tome.modes"
"""Entry point group; each entry names a module that is imported when this package registers."""


def import_plugins() -> None:
    """Imports the modules that installed packages list as entry points of `GROUP`.

    A module that cannot be imported is skipped with a warning: a broken package must not break this one.
    """
    for entry_point in entry_points(group=GROUP):
        try:
            import_module(entry_point.module)
        except Exception as error:
            package = "" if entry_point.dist is None else f" of {entry_point.dist.name}"
            warnings.warn(
                f"skipping the entry point {entry_point.name!r}{package} ({GROUP}): cannot import "
                f"{entry_point.module}: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
