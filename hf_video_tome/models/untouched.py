"""Whether modules are what they seem: nobody hooked them or replaced a method."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def are_untouched(modules: Iterable[nn.Module]) -> bool:
    """Whether calling modules is nothing but their own `forward`: no hooks, no replaced method (of accelerate).

    The hooks by which transformers records outputs stay for good once outputs were asked for, and do nothing
    otherwise: they do not count.
    """
    if any(getattr(nn.modules.module, "_global" + name) for name in _HOOKS):
        return False
    for module in modules:
        fields = module.__dict__
        if "forward" in fields:
            return False
        for name in _HOOKS:
            if fields[name] and any(not _records_outputs(hook) for hook in fields[name].values()):
                return False
    return True


def _records_outputs(hook: object) -> bool:
    return getattr(hook, "__module__", None) == "transformers.utils.output_capturing"
