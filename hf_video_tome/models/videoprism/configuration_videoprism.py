"""VideoPrism configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout


class VideoPrismVisionConfig(TokenMergingConfigMixin, transformers.VideoPrismVisionConfig):
    """`transformers.VideoPrismVisionConfig` with the token merging fields of `TokenMergingConfigMixin`.

    A spatial encoder processes each frame separately, then a temporal encoder processes each patch position over all
    frames. Tokens merge in the spatial encoder, so r counts tokens per frame, and layers are spatial layers. By
    default, all frames of a clip share one matching ("tube"), which keeps patch positions aligned for the temporal
    encoder. "frame" matches each frame separately, which misaligns them, and is meant for comparison. Proportional
    attention is on, in the spatial encoder.

    The token merging paper does not cover VideoPrism. At base size and 16 frames, r = 20 needs 2.52 times fewer
    operations, about as the paper's r for ViViT.

    Examples:
        >>> config = VideoPrismVisionConfig(token_merging_r=20)
        >>> config.num_merging_layers, config.token_layout.num_tokens
        (12, 4096)
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Scopes that keep the grid that the temporal encoder needs."""
        return ("frame", "tube")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: patches frame by frame, without a CLS token."""
        num_frames, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(0, num_frames, rows * columns, num_columns=columns)

    @property
    def num_merging_layers(self) -> int:
        """Number of layers of the spatial encoder; those of the temporal encoder do not merge."""
        return self.num_spatial_layers
