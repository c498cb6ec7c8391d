"""What classifiers around an encoder that merges tokens share."""

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
    """What heads that merge tokens have in common."""

    reads: ClassVar[Literal["prefix", "tokens"]] = "tokens"
    """What the head reads of its base model: the prefix tokens alone, or all tokens and their sizes."""

    def _make_plan(self, pixel_values: Tensor | None, kwargs: Any, *args: Any, **options: Any) -> Plan:
        plan = super()._make_plan(pixel_values, kwargs, *args, **options)
        only_prefix = self.reads == "prefix" and self._may_leave_out_tokens(kwargs)
        return plan._replace(reads="prefix" if only_prefix else "tokens")

    def _may_leave_out_tokens(self, asked: Mapping[str, Any]) -> bool:
        """Whether the base model may leave everything but the prefix out of its last layer.

        Not where there may be gradients, which would be missing instead of zero; nor in training, nor where anything
        in the base model is hooked or replaced: somebody may be looking at what the layer returns.

        Args:
            asked: Keyword arguments of the call, which may ask for hidden states, attentions or a trace.

        Returns:
            Whether it makes no difference to anybody.
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
        """Logits and loss as the stock heads compute them.

        Args:
            pooled: (B, C) what the classifier reads.
            outputs: What the base model returned.
            labels: Labels for the loss, or None.
            **loss_kwargs: For the loss function.

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
