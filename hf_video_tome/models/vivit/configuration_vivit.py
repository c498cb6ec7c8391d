"""ViViT configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout


class VivitConfig(TokenMergingConfigMixin, transformers.VivitConfig):
    """`transformers.VivitConfig` with the token merging fields of `TokenMergingConfigMixin`.

    All tokens of a clip are matched together, except for CLS, which never merges. Proportional attention is on. The
    paper uses r = 300 at base size and 32 frames, which needs 2.55 times fewer operations.

    Examples:
        >>> VivitConfig(token_merging_r=300).token_layout.num_tokens
        3137
    """

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = True

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: CLS, then the patches frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(1, num_slots, rows * columns, num_columns=columns)
