"""Motionformer configuration with token merging."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout
from . import plain


@strict
class MotionformerConfig(TokenMergingConfigMixin, plain.MotionformerConfig):
    """The plain `MotionformerConfig` with the token merging fields of `TokenMergingConfigMixin`.

    Tokens attend to each frame separately, so they are matched within frames and r counts tokens per frame. By
    default, all frames of a clip share one matching ("tube"); the paper matches each frame separately ("frame",
    r = 18). With "time", whole frames merge and r counts frames. Proportional attention is on, in the attention to
    frames, or with "time" in the attention to trajectories.

    Examples:
        >>> MotionformerConfig(token_merging_r=18).token_layout.num_tokens
        1569
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    def __post_init__(self, **kwargs: Any) -> None:
        # First, because the checks of the token merging fields need valid sizes.
        self.validate_architecture()
        super().__post_init__(**kwargs)

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Scopes that keep every token in its frame and all frames equally long, as trajectories need."""
        return ("frame", "tube", "time")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: CLS, then the patches frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_slots, rows * columns, num_columns=columns)
