"""V-JEPA 2 configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin, setting
from ...merging.layout import TokenLayout
from ...merging.settings import TokenMergingSettings


class VJEPA2Config(TokenMergingConfigMixin, transformers.VJEPA2Config):
    """`transformers.VJEPA2Config` with the token merging fields of `TokenMergingConfigMixin`, and a further one.

    All tokens of a clip are matched together; there is no CLS token. Each layer rotates queries and keys by the
    position (t, h, w) of their token, so merged tokens need a position: `token_merging_position`.

    Proportional attention is off, as for VideoMAE: the encoder was pre-trained on masked clips. The attentive pooler,
    which was trained on all tokens, weighs them by size with `token_merging_pooling="weighted"`.

    The token merging paper does not cover V-JEPA 2. At large size and 64 frames, r = 390 removes about as many tokens
    as the paper's settings for the other architectures, and needs 3.08 times fewer operations.

    Examples:
        >>> VJEPA2Config(frames_per_clip=16, token_merging_r=100).token_layout.num_tokens
        2048
    """

    token_merging_position: str = setting(TokenMergingSettings.position)

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = False
    # Shape of the training clips; other numbers of frames are allowed.
    clip_fields: ClassVar[tuple[str, str, str]] = ("frames_per_clip", "in_chans", "crop_size")
    # The pipeline of transformers reads `num_frames`.
    attribute_map: ClassVar[dict[str, str]] = {"num_frames": "frames_per_clip"}

    def default_segments(self, layout: TokenLayout) -> int | None:
        """Returns the number of segments of a clip, for modes that have a default: four time slots each.

        That is 8 at 64 frames. In segments of one or two time slots, a token can hardly meet those of its own place.
        """
        return max(1, layout.num_frames // 4)

    def tubelet_grid(self, clip: ClipShape) -> tuple[int, int, int]:
        """Returns the number of tokens per axis; the embeddings repeat frames of clips shorter than a tubelet."""
        if clip.frames < self.tubelet_size:
            clip = clip._replace(frames=clip.frames * self.tubelet_size)
        return super().tubelet_grid(clip)

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """Returns the token layout: patches frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(0, num_slots, rows * columns, num_columns=columns)
