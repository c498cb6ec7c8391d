"""Turns stock modules into merging ones and back, in place, and gives them the config that goes with it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from .._compat import OLD_FORWARD, register_recorded_outputs


def convert_modules(root: nn.Module, classes: Mapping[type[nn.Module], type[nn.Module]]) -> None:
    """Turns modules into those of another class, in place: parameters, hooks and names stay.

    Hooks of accelerate (offloading) keep the old `forward` of their module; they are given the new one.

    Args:
        root: Where to look, itself included.
        classes: From the exact class of a module to its new one.

    Raises:
        ValueError: If the `forward` of a module was replaced in a way that its class has no part in; nothing is
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
            # transformers looks up by class what a model can record, and fills that in when a model is built.
            register_recorded_outputs(module)


def replace_config(model: nn.Module, old: PreTrainedConfig, new: PreTrainedConfig) -> None:
    """Gives all modules that share a config another one: wrappers, parts of it, and configs that it is part of.

    Args:
        model: The model.
        old: The config that they share.
        new: Takes its place.
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
