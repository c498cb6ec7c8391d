"""Undocumented parts of transformers and torch that the package uses, in one place.

Each entry says what it is for and, after "Gone:", what to do if it disappears. Class attributes that subclasses are
meant to override (`_supports_sdpa`, `_can_record_outputs`, ...) are set in those subclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

# transformers converts checkpoints in an older layout only for its own classes and registered ones.
# Gone: convert in `_load_from_state_dict`, and load with `load_state_dict`.
from transformers.conversion_mapping import USER_REGISTERED_MAPPINGS, get_model_conversion_mapping
from transformers.conversion_mapping import get_checkpoint_conversion_mapping as get_checkpoint_conversion_mapping
from transformers.conversion_mapping import (
    register_checkpoint_conversion_mapping as register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming, apply_renamings

# Identifies sdpa attention, which may run in blocks instead. Gone: compare with the name "sdpa".
from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa_attention_forward

# Finds the function of an attention implementation: transformers searches the source of a model for
# `ALL_ATTENTION_FUNCTIONS.get_interface(` to see if it can switch. Gone: the documented `AttentionInterface`.
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

# Arguments and return values of a forward. Gone: `dict[str, Any]`, `to_tuple()`, reading the config.
from transformers.utils.generic import TransformersKwargs as TransformersKwargs
from transformers.utils.generic import can_return_tuple as can_return_tuple
from transformers.utils.generic import merge_with_config_defaults as merge_with_config_defaults

# Records `hidden_states` and `attentions` with hooks. Gone: collect them in `run_layers`.
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY
from transformers.utils.output_capturing import capture_outputs as capture_outputs

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

OLD_FORWARD = "_old_forward"
"""Attribute in which accelerate's offloading hooks keep the original `forward` of a module. Gone: refuse such
modules."""


# --- attention implementations
def attn_implementation(config: PreTrainedConfig) -> str | None:
    """Returns the attention implementation of a config; None before a model is built from it.

    Gone: there is no other way to read it; store it next to the config.
    """
    implementation: str | None = config._attn_implementation
    return implementation


def set_attn_implementation(config: PreTrainedConfig, implementation: str | None) -> None:
    """Sets the attention implementation of a config that has no model yet, or whose model is known to support it.

    Gone: `model.set_attn_implementation`, which takes a model.
    """
    config._attn_implementation = implementation


# --- building and loading
def build_model(model_class: Any, config: PreTrainedConfig) -> Any:
    """Builds a model of exactly this class in the dtype of its config. Gone: call the class."""
    return model_class._from_config(config)


def saved_renamings(model: PreTrainedModel) -> Callable[[str], str]:
    """Returns a function from weight names in files to names in the model. Gone: use the names of the model."""
    conversions: list[Any] = getattr(model, "_weight_conversions", None) or get_model_conversion_mapping(model)
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    return lambda name: apply_renamings(name, renamings)


def registered_conversions() -> set[str]:
    """Returns the set of all registered checkpoint conversions; changing it in place unregisters them.

    Gone: conversions stay registered.
    """
    return USER_REGISTERED_MAPPINGS


def unregister_auto_class(auto_class: Any, config_class: Any) -> None:
    """Undoes `auto_class.register(config_class, ...)`. Gone: register the stock class again, with `exist_ok`."""
    auto_class._model_mapping._extra_content.pop(config_class, None)


def unregister_image_processor(config_class: Any) -> None:
    """Undoes `AutoImageProcessor.register(config_class, ...)`. Gone: as above."""
    IMAGE_PROCESSOR_MAPPING._extra_content.pop(config_class, None)


def unregister_config(model_type: str) -> None:
    """Undoes `AutoConfig.register(model_type, ...)`. Gone: as above."""
    CONFIG_MAPPING._extra_content.pop(model_type, None)


# --- recorded outputs
def register_recorded_outputs(model: PreTrainedModel) -> None:
    """Updates the outputs that transformers can record for a model whose class changed. Gone: nothing to do."""
    _CAN_RECORD_REGISTRY[model] = model._can_record_outputs


def records_outputs(hook: object) -> bool:
    """Returns whether transformers records outputs with a hook. Such hooks are never removed, and usually do nothing.

    Gone: treat them like any other hook; models are slower after a call with `output_hidden_states`.
    """
    return getattr(hook, "__module__", None) == capture_outputs.__module__


# --- torch
def hooks_of(module: nn.Module) -> list[dict[int, object]]:
    """Returns the hooks around the forward of a module. Gone: treat every module as hooked."""
    return [module.__dict__[name] for name in _HOOKS]


def has_global_hooks() -> bool:
    """Returns whether global hooks run around the forward of every module. Gone: as above."""
    return any(getattr(nn.modules.module, "_global" + name) for name in _HOOKS)


def is_compiled(model: nn.Module) -> bool:
    """Returns whether `module.compile()` compiled a module in place. Gone: record the call."""
    return getattr(model, "_compiled_call_impl", None) is not None


def is_compiled_name(name: str) -> bool:
    """Returns whether the name of a module shows that `torch.compile` wraps it. Gone: as above."""
    return name.rpartition(".")[2] == "_orig_mod"


def many_graphs(number: int) -> AbstractContextManager[None]:
    """Lets `torch.compile` build `number` graphs of one function. Gone: `torch.compiler.reset()` between variants."""
    config: Any = torch._dynamo.config
    context: AbstractContextManager[None] = config.patch(recompile_limit=max(config.recompile_limit, number))
    return context


def compiler_freezes() -> bool:
    """Returns whether compiling a model freezes its weights (`TORCHINDUCTOR_FREEZING=1`). Gone: read the variable."""
    from torch._inductor import config

    return bool(config.freezing)


def multiplies_bfloat16_without_amx() -> bool:
    """Returns whether the CPU has bfloat16 instructions but no matrix units (AMX).

    Gone: `torch.cpu.get_capabilities()` in newer versions; False if unknown.
    """
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_bfloat16 is not None and has_amx is not None and has_bfloat16() and not has_amx()
