"""VideoPrism configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin
from ...merging.layout import TokenLayout


class VideoPrismVisionConfig(TokenMergingConfigMixin, transformers.VideoPrismVisionConfig):
    """`transformers.VideoPrismVisionConfig` and the token merging fields of `TokenMergingConfigMixin`.

    A spatial encoder reads each frame by itself, then a temporal encoder reads each place over all frames. Tokens are
    merged in the spatial encoder, so r counts per frame and layers are spatial layers. By default one matching serves
    all frames of a clip ("tube"): the temporal encoder then still reads one place at a time. "frame" matches each
    frame alone, which misaligns the places; it is there to be compared with. Proportional attention is on, in the
    spatial encoder.

    The paper of the settings does not cover VideoPrism. At base size and 16 frames r = 20 needs 2.52 times fewer
    operations, as many as the paper's r saves for ViViT.

    Examples:
        >>> config = VideoPrismVisionConfig(token_merging_r=20)
        >>> config.num_merging_layers, config.token_layout.num_tokens
        (12, 4096)
    """

    default_token_merging_scope: ClassVar[str] = "tube"
    default_proportional_attention: ClassVar[bool] = True

    @property
    def supported_token_merging_scopes(self) -> tuple[str, ...]:
        """Matching across frames would break the grid that the temporal encoder runs on."""
        return ("frame", "tube")

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """The tokens, frame by frame; there is no CLS token."""
        num_frames, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(0, num_frames, rows * columns)

    @property
    def num_merging_layers(self) -> int:
        """The layers of the spatial encoder; those of the temporal encoder do not merge."""
        return self.num_spatial_layers
