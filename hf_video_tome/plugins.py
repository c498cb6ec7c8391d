"""Packages that add modes: they name a module that registers them as an entry point."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import entry_points

GROUP = "hf_video_tome.modes"
"""The group of entry points; each names a module, which is imported when this package registers."""


def import_plugins() -> None:
    """Imports the modules that installed packages name as entry points of `GROUP`.

    One that cannot be imported is left out with a warning: a package that is broken must not break this one.
    """
    for entry_point in entry_points(group=GROUP):
        try:
            import_module(entry_point.module)
        except Exception as error:
            package = "" if entry_point.dist is None else f" of {entry_point.dist.name}"
            warnings.warn(
                f"the entry point {entry_point.name!r}{package} ({GROUP}) is left out, as {entry_point.module} cannot "
                f"be imported: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
