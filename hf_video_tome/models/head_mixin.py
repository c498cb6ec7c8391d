"""Common code of classifiers around an encoder that merges tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from transformers.modeling_outputs import ImageClassifierOutput

from ..merging.plan import Plan
from .model_mixin import TokenMergingModelMixin
from .outputs import BaseModelOutputWithTokenMerging, VideoClassifierOutputWithTokenMerging
from .untouched import are_untouched


class TokenMergingHeadMixin(TokenMergingModelMixin):
    """Mixin for heads that merge tokens."""

    reads: ClassVar[Literal["prefix", "tokens"]] = "tokens"
    """Output of the base model that the head reads: only the prefix tokens, or all tokens and their sizes."""

    def _make_plan(self, pixel_values: Tensor | None, kwargs: Any, *args: Any, **options: Any) -> Plan:
        plan = super()._make_plan(pixel_values, kwargs, *args, **options)
        only_prefix = self.reads == "prefix" and self._may_leave_out_tokens(kwargs)
        return plan._replace(reads="prefix" if only_prefix else "tokens")

    def _may_leave_out_tokens(self, asked: Mapping[str, Any]) -> bool:
        """Returns whether the last layer of the base model may compute the prefix tokens only.

        It may not if gradients are enabled (they would be missing instead of zero), in training, or if anything in the
        base model is hooked or replaced and may read the output of the layer.

        Args:
            asked: Keyword arguments of the call, which may request hidden states, attentions or a trace.

        Returns:
            Whether the other tokens are unused.
        """
        head: Any = self
        names = ("output_hidden_states", "output_attentions")
        asks_for_more = any(getattr(head.config, name) if asked.get(name) is None else asked[name] for name in names)
        if asked.get("output_token_merging") or asks_for_more or torch.is_grad_enabled():
            return False
        modules = list(head.base_model.modules())
        return are_untouched(modules) and not any(module.training for module in modules)

    def _classify(
        self, pooled: Tensor, outputs: BaseModelOutputWithTokenMerging, labels: Tensor | None, **loss_kwargs: Any
    ) -> ImageClassifierOutput:
        """Computes logits and loss like the stock heads.

        Args:
            pooled: (B, C) float, input of the classifier.
            outputs: Output of the base model.
            labels: Labels for the loss, or None.
            **loss_kwargs: Arguments of the loss function.

        Returns:
            The output of transformers, with the trace if there is one.
        """
        head: Any = self
        logits = head.classifier(pooled)
        fields = {
            "loss": None if labels is None else head.loss_function(labels, logits, head.config, **loss_kwargs),
            "logits": logits,
            "hidden_states": outputs.hidden_states,
            "attentions": outputs.attentions,
        }
        trace = getattr(outputs, "token_merging", None)
        if trace is None:
            return ImageClassifierOutput(**fields)
        return VideoClassifierOutputWithTokenMerging(**fields, token_merging=trace)
