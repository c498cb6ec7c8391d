"""Converts stock modules to merging ones and back, in place, and replaces their config."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .._compat import OLD_FORWARD, register_recorded_outputs


def convert_modules(root: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Changes the class of modules in place: parameters, hooks and names are kept.

    Offloading hooks of accelerate store the old `forward` of their module; it is replaced by the new one.

    Args:
        root: Module to search, including itself.
        classes: New class for each exact class of a module.

    Raises:
        ValueError: If the `forward` of a module was replaced by a function that is not from its class. Nothing is
            changed then.
    """
    chosen = [(module, classes[type(module)]) for module in root.modules() if type(module) in classes]
    for module, _ in chosen:
        replaced = OLD_FORWARD if OLD_FORWARD in module.__dict__ else "forward"
        forward = module.__dict__.get(replaced)
        if forward is not None and getattr(forward, "__func__", None) is not type(module).forward:
            raise ValueError(
                f"{type(module).__name__}.forward must be that of its class, but was replaced on the instance "
                "(by accelerate's prepare?): apply or remove token merging first"
            )
    for module, new_class in chosen:
        module.__class__ = new_class
        for name in ("forward", OLD_FORWARD):
            if getattr(module.__dict__.get(name), "__self__", None) is module:
                setattr(module, name, MethodType(new_class.forward, module))
        if isinstance(module, PreTrainedModel):
            # transformers stores the outputs that a class can record when it builds a model.
            register_recorded_outputs(module)


def replace_config(model: nn.Module, old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Replaces a config, and the configs inside it, in all modules and configs that share them.

    Args:
        model: The model.
        old: The shared config.
        new: Its replacement.
    """
    replaced = {id(old): new}
    for name, part in vars(old).items():
        if isinstance(part, PreTrainedConfig):
            replaced[id(part)] = getattr(new, name)
    for module in model.modules():
        config = module.__dict__.get("config")
        if id(config) in replaced:
            module.config = replaced[id(config)]
        elif isinstance(config, PreTrainedConfig):
            for name, part in vars(config).items():
                if id(part) in replaced:
                    setattr(config, name, replaced[id(part)])
