"""ViViT configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout


class VivitConfig(TokenMergingConfigMixin, transformers.VivitConfig):
    """`transformers.VivitConfig` and the token merging fields of `TokenMergingConfigMixin`.

    All tokens of a clip are matched together; the CLS token is never merged. Proportional attention is on. Paper: r =
    300 at base size and 32 frames, where it needs 2.55 times fewer operations.

    Examples:
        >>> VivitConfig(token_merging_r=300).token_layout.num_tokens
        3137
    """

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = True

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """CLS, then the tokens frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_slots, rows * columns)
