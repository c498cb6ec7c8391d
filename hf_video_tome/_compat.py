"""What the package uses of transformers and torch that they do not document, in one place.

Each entry says what it is for, and what takes its place should it go. Class attributes that subclasses are meant to
override (`_supports_sdpa`, `_can_record_outputs`, ...) are set where the classes are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel

# Checkpoints in the layout of older versions are converted for classes outside of transformers only when told so.
# Gone: convert in `_load_from_state_dict`, and load by `load_state_dict`.
from transformers.conversion_mapping import USER_REGISTERED_MAPPINGS, get_model_conversion_mapping
from transformers.conversion_mapping import get_checkpoint_conversion_mapping as get_checkpoint_conversion_mapping
from transformers.conversion_mapping import (
    register_checkpoint_conversion_mapping as register_checkpoint_conversion_mapping,
)
from transformers.core_model_loading import WeightRenaming, apply_renamings

# Attention on sdpa may run in blocks instead. Gone: compare names, "sdpa".
from transformers.integrations.sdpa_attention import sdpa_attention_forward as sdpa_attention_forward

# Finds the function of an attention implementation: transformers looks for `ALL_ATTENTION_FUNCTIONS.get_interface(`
# in the source of models that can change theirs. Gone: `transformers.AttentionInterface`, which is documented.
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS as ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

# What a forward of transformers takes and how it returns. Gone: `dict[str, Any]`, `to_tuple()`, reading the config.
from transformers.utils.generic import TransformersKwargs as TransformersKwargs
from transformers.utils.generic import can_return_tuple as can_return_tuple
from transformers.utils.generic import merge_with_config_defaults as merge_with_config_defaults

# Fills in `hidden_states` and `attentions` by hooks. Gone: collect them in `run_layers`.
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY
from transformers.utils.output_capturing import capture_outputs as capture_outputs

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

OLD_FORWARD = "_old_forward"
"""Where accelerate (its hooks that offload) keeps the `forward` of a module that it replaced. Gone: refuse such
modules."""


# --- attention implementations
def attn_implementation(config: PreTrainedConfig) -> str | None:
    """Returns the attention implementation of a config; None before a model was built from it.

    Gone: there is no other way to read it; keep it beside the config.
    """
    implementation: str | None = config._attn_implementation
    return implementation


def set_attn_implementation(config: PreTrainedConfig, implementation: str | None) -> None:
    """Sets the attention implementation of a config that no model has yet, or whose model is known to run on it.

    Gone: `model.set_attn_implementation`, which takes a model.
    """
    config._attn_implementation = implementation


# --- building and loading
def build_model(model_class: Any, config: PreTrainedConfig) -> Any:
    """Builds a model in the dtype of its config, whatever the Auto classes would build. Gone: call the class."""
    return model_class._from_config(config)


def saved_renamings(model: PreTrainedModel) -> Callable[[str], str]:
    """Returns what turns names of weights in files into those in a model. Gone: files have the names of the model."""
    conversions: list[Any] = getattr(model, "_weight_conversions", None) or get_model_conversion_mapping(model)
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    return lambda name: apply_renamings(name, renamings)


def registered_conversions() -> set[str]:
    """Returns the keys of the checkpoint conversions that somebody registered, to be changed in place.

    Gone: what was registered stays registered.
    """
    return USER_REGISTERED_MAPPINGS


def unregister_auto_class(auto_class: Any, config_class: Any) -> None:
    """Undoes `auto_class.register(config_class, ...)`. Gone: register the stock class again, with `exist_ok`."""
    auto_class._model_mapping._extra_content.pop(config_class, None)


def unregister_image_processor(config_class: Any) -> None:
    """Undoes `AutoImageProcessor.register(config_class, ...)`; likewise."""
    IMAGE_PROCESSOR_MAPPING._extra_content.pop(config_class, None)


def unregister_config(model_type: str) -> None:
    """Undoes `AutoConfig.register(model_type, ...)`; likewise."""
    CONFIG_MAPPING._extra_content.pop(model_type, None)


# --- recorded outputs
def register_recorded_outputs(model: PreTrainedModel) -> None:
    """Has transformers look up again what a model can record, which goes by its class. Gone: nothing to do."""
    _CAN_RECORD_REGISTRY[model] = model._can_record_outputs


def records_outputs(hook: object) -> bool:
    """Whether a hook is one by which transformers records outputs. They stay for good, and do nothing unless asked.

    Gone: count them as any other hook; models are slower after a call with `output_hidden_states`.
    """
    return getattr(hook, "__module__", None) == capture_outputs.__module__


# --- torch
def hooks_of(module: nn.Module) -> list[dict[int, object]]:
    """Returns the hooks around the forward of a module. Gone: torch has no other way; count every module as hooked."""
    return [module.__dict__[name] for name in _HOOKS]


def has_global_hooks() -> bool:
    """Whether there are hooks around the forward of all modules; likewise."""
    return any(getattr(nn.modules.module, "_global" + name) for name in _HOOKS)


def is_compiled(model: nn.Module) -> bool:
    """Whether a module was compiled in place, by `module.compile()`. Gone: ask whether it was told to."""
    return getattr(model, "_compiled_call_impl", None) is not None


def is_compiled_name(name: str) -> bool:
    """Whether a module of that name lies in the wrapper that `torch.compile` returns; likewise."""
    return name.rpartition(".")[2] == "_orig_mod"


def many_graphs(number: int) -> AbstractContextManager[None]:
    """Lets `torch.compile` make that many graphs of one function. Gone: `torch.compiler.reset()` between variants."""
    config: Any = torch._dynamo.config
    context: AbstractContextManager[None] = config.patch(recompile_limit=max(config.recompile_limit, number))
    return context


def compiler_freezes() -> bool:
    """Whether compiled models have their weights in them (`TORCHINDUCTOR_FREEZING=1`). Gone: read the environment."""
    from torch._inductor import config

    return bool(config.freezing)


def multiplies_bfloat16_without_amx() -> bool:
    """Whether the CPU has instructions for products of bfloat16, but no matrix units (AMX) for them.

    Gone: `torch.cpu.get_capabilities()` of newer versions; where nothing is known, False.
    """
    has_bfloat16 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_bfloat16 is not None and has_amx is not None and has_bfloat16() and not has_amx()
