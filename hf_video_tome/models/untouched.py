"""Whether modules are what they seem: nobody hooked them or replaced a method."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from .._compat import has_global_hooks, hooks_of, records_outputs


def are_untouched(modules: Iterable[nn.Module]) -> bool:
    """Whether calling modules is nothing but their own `forward`: no hooks, no replaced method (of accelerate).

    The hooks by which transformers records outputs stay for good once outputs were asked for, and do nothing
    otherwise: they do not count.
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
