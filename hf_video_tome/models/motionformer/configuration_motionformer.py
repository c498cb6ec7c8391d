"""Motionformer configuration with token merging."""

from __future__ import annotations

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...configuration import TokenMergingConfigMixin, image_grid
from ...merging import TokenLayout, TokenMergingPlan
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

    @property
    def token_layout(self) -> TokenLayout:
        """CLS, then the tokens frame by frame."""
        return self._layout(self.image_size)

    def _layout(self, image_size: Any) -> TokenLayout:
        rows, columns = image_grid(image_size, self.patch_size)
        return TokenLayout(1, self.num_frames // self.tubelet_size, rows * columns)

    def token_merging_plan(self, image_size: tuple[int, int] | None = None) -> TokenMergingPlan:
        """What each layer will do: made once per forward call.

        Args:
            image_size: Height and width of the frames, where positions are interpolated; None for the size of the
                config.

        Raises:
            ValueError: If the fields do not go with each other.
        """
        plan = super().token_merging_plan()
        layout = plan.layout if image_size is None else self._layout(image_size)
        return (
            plan if layout == plan.layout else plan._replace(requested=self._requested_removals(layout), layout=layout)
        )
