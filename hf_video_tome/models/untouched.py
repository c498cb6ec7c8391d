"""Checks that modules have no hooks and no replaced methods."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from .._compat import has_global_hooks, hooks_of, records_outputs


def are_untouched(modules: Iterable[nn.Module]) -> bool:
    """Returns whether calling the modules just runs their own `forward`, without hooks or replaced methods.

    Hooks with which transformers records outputs do not count: they are never removed, but do nothing unless outputs
    are requested.
    """
    if has_global_hooks():
        return False
    for module in modules:
        if "forward" in module.__dict__:
            return False
        for hooks in hooks_of(module):
            if hooks and not all(records_outputs(hook) for hook in hooks.values()):
                return False
    return True
