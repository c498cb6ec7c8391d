"""Benchmark variants: stock models and models that merge tokens, with shared weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .._compat import attn_implementation, set_attn_implementation
from ..api import apply_token_merging
from ..describe import setting_name

SHORT_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Variant:
    """Model variant to benchmark.

    Attributes:
        dtype: Name of a torch dtype.
        attn_implementation: Attention implementation, as in transformers.
        settings: Token merging settings; None for a stock model of transformers.
        compiled: Whether it runs through `torch.compile(fullgraph=True)`.
    """

    dtype: str
    attn_implementation: str
    settings: Mapping[str, Any] | None = field(default=None, hash=False)
    compiled: bool = False

    @property
    def is_stock(self) -> bool:
        """Whether it is an unmodified model of transformers."""
        return self.settings is None

    @property
    def label(self) -> str:
        """Description without the dtype: "stock sdpa", "r = 150, decreasing, sdpa"."""
        words = ["stock"] if self.settings is None else [setting_name({"r": 0, **self.settings})]
        separator = " " if self.is_stock else ", "
        return separator.join([*words, self.attn_implementation]) + (", compiled" if self.compiled else "")

    @property
    def name(self) -> str:
        """The label with the dtype, unique within a benchmark."""
        return f"{self.label}, {SHORT_DTYPES.get(self.dtype, self.dtype)}"


def make_variants(
    settings: Sequence[Mapping[str, Any]],
    *,
    dtypes: Sequence[str],
    attn_implementations: Sequence[str],
    stock_attn_implementations: Sequence[str],
    compiled: Sequence[bool] = (False,),
    float32_baseline: bool = False,
) -> list[Variant]:
    """Returns all variants of a benchmark: for each dtype, the stock models, then those that merge.

    Args:
        settings: Token merging settings.
        dtypes: Names of torch dtypes.
        attn_implementations: Attention implementations of models that merge.
        stock_attn_implementations: Attention implementations of stock models. Uncompiled stock models are always
            included as baselines.
        compiled: Whether to run models uncompiled (False), compiled (True), or both.
        float32_baseline: Whether to add a stock model in float32, with the first of the implementations.

    Returns:
        The variants, without duplicates.

    Examples:
        >>> variants = make_variants([{"r": 8}], dtypes=["float32"], attn_implementations=["sdpa"],
        ...                          stock_attn_implementations=["sdpa", "eager"])
        >>> [variant.name for variant in variants]
        ['stock sdpa, fp32', 'stock eager, fp32', 'r = 8, sdpa, fp32']
    """
    variants = []
    if float32_baseline and "float32" not in dtypes:
        variants.append(Variant("float32", stock_attn_implementations[0]))
    for dtype in dtypes:
        for compile_it in dict.fromkeys((False, *compiled)):
            variants += [Variant(dtype, name, compiled=compile_it) for name in stock_attn_implementations]
        for compile_it in compiled:
            variants += [
                Variant(dtype, name, changes, compile_it) for name in attn_implementations for changes in settings
            ]
    return list({variant.name: variant for variant in variants}.values())


def supports(head_class: Any, config: Any, implementation: str) -> str | None:
    """Checks whether a model class supports an attention implementation here, without creating weights.

    Args:
        head_class: A classifier of transformers or of this package.
        config: Its config.
        implementation: Attention implementation, as in transformers.

    Returns:
        None if supported, otherwise the reason.

    Examples:
        >>> import transformers
        >>> supports(transformers.TimesformerForVideoClassification, transformers.TimesformerConfig(), "eager")
    """
    config = copy.deepcopy(config)
    set_attn_implementation(config, implementation)
    model = head_class.__new__(head_class)
    try:
        # Runs transformers' checks of the config; subclasses create the modules.
        PreTrainedModel.__init__(model, config)
    except (ValueError, ImportError) as error:
        return str(error).partition("\n")[0]
    return None


def share_weights(model: nn.Module) -> Any:
    """Returns a copy of a model with its own config but the same parameters and buffers."""
    tensors: Iterable[torch.Tensor] = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


class ModelPool:
    """Pool of the models of all variants; models with the same dtype share weights.

    Args:
        stock: A stock classifier of transformers.
        device: Device of the models.

    Examples:
        >>> import transformers
        >>> config = transformers.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                      num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> pool = ModelPool(transformers.VideoMAEForVideoClassification(config), torch.device("cpu"))
        >>> stock = pool.model(Variant("float32", "eager"))
        >>> merging = pool.model(Variant("float32", "sdpa", {"r": 8}))
        >>> merging.classifier.weight is stock.classifier.weight, merging.config.token_merging_r
        (True, 8)
    """

    def __init__(self, stock: nn.Module, device: torch.device) -> None:
        self._source, self._device = stock.eval(), device
        self._stock: dict[str, Any] = {}
        self._models: dict[tuple[str, str, bool], Any] = {}
        self._defaults: dict[tuple[str, str, bool], dict[str, Any]] = {}
        self._compiled: dict[tuple[str, str, bool], Callable[..., Any]] = {}

    def model(self, variant: Variant) -> Any:
        """Returns the model of a variant, in eval mode, with its settings; the next call may change them."""
        key = (variant.dtype, variant.attn_implementation, variant.is_stock)
        if key not in self._models:
            model = share_weights(self._weights(variant.dtype))
            if not variant.is_stock:
                apply_token_merging(model)
                self._defaults[key] = model.config.token_merging_settings()
            if attn_implementation(model.config) != variant.attn_implementation:
                model.set_attn_implementation(variant.attn_implementation)
            self._models[key] = model
        model = self._models[key]
        if variant.settings is not None:
            # All settings: none of the previous variant's may remain.
            model.set_token_merging(**{**self._defaults[key], **variant.settings})
        return model

    def runner(self, variant: Variant) -> Callable[..., Any]:
        """Returns the callable of a variant: its model, compiled if requested."""
        model = self.model(variant)
        if not variant.compiled:
            return model
        key = (variant.dtype, variant.attn_implementation, variant.is_stock)
        if key not in self._compiled:
            self._compiled[key] = torch.compile(model, fullgraph=True, dynamic=False)
        return self._compiled[key]

    def _weights(self, dtype: str) -> Any:
        """Returns the stock model that shares its weights with all models of a dtype."""
        if dtype not in self._stock:
            self._stock[dtype] = copy.deepcopy(self._source).to(device=self._device, dtype=getattr(torch, dtype))
        return self._stock[dtype]
