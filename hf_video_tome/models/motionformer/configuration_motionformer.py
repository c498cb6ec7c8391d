"""Motionformer configuration with token merging."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout
from . import plain


@strict
class MotionformerConfig(TokenMergingConfigMixin, plain.MotionformerConfig):
    """The plain `MotionformerConfig` and the token merging fields of `TokenMergingConfigMixin`.

    Every token attends to each frame by itself, so tokens are matched inside each frame and r counts per frame. By
    default one matching serves all frames of a clip ("tube"). The paper matches each frame alone ("frame", r = 18).
    With "time" whole frames merge and r counts frames. Proportional attention is on, in the attention to the frames,
    with "time" in that to the trajectories.

    Examples:
        >>> MotionformerConfig(token_merging_r=18).token_layout.num_tokens
        1569
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    def __post_init__(self, **kwargs: Any) -> None:
        # Before the fields of token merging are checked, for which these sizes must make sense.
        self.validate_architecture()
        super().__post_init__(**kwargs)

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Trajectories need to know of every token which frame it is in, and frames of equal length."""
        return ("frame", "tube", "time")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """CLS, then the tokens frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_slots, rows * columns)
