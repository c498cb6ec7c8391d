"""VideoMAE configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout
from ...merging.scopes import SCOPES


class VideoMAEConfig(TokenMergingConfigMixin, transformers.VideoMAEConfig):
    """`transformers.VideoMAEConfig` with the token merging fields of `TokenMergingConfigMixin`.

    All tokens of a clip are matched together. Proportional attention is off, which the paper found best for models
    pre-trained as masked autoencoders. The paper uses r = 150 at base size, which needs 2.46 times fewer operations.

    Examples:
        >>> VideoMAEConfig(token_merging_r=150).token_layout.num_tokens
        1568
    """

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = False

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """All scopes; without mean pooling only "clip", because the head then reads token 0, which is not matched."""
        return SCOPES if self.use_mean_pooling else ("clip",)

    @property
    def supports_input_stage(self) -> bool:
        """Whether the head uses mean pooling; otherwise it reads token 0, which must be kept."""
        return bool(self.use_mean_pooling)

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: patches frame by frame; without mean pooling, token 0 is protected."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        if self.use_mean_pooling:
            return TokenLayout(0, num_slots, rows * columns, num_columns=columns)
        return TokenLayout(num_prefix_tokens=1, num_frames=1, num_patches=num_slots * rows * columns - 1)
