"""V-JEPA 2 configuration with token merging."""

from __future__ import annotations

from typing import ClassVar

import transformers

from ...configuration import ClipShape, TokenMergingConfigMixin, setting
from ...merging.layout import TokenLayout


class VJEPA2Config(TokenMergingConfigMixin, transformers.VJEPA2Config):
    """`transformers.VJEPA2Config` and the token merging fields of `TokenMergingConfigMixin`, and one more.

    All tokens of a clip are matched together; there is no CLS token. Each layer turns queries and keys by the place
    (t, h, w) of their token, so merged tokens need a place.

    Proportional attention is off, as for VideoMAE: the encoder was pre-trained on clips most of whose tokens were left
    out. The attentive pooler, which was trained on all of them, weighs tokens by size with
    `token_merging_pooling="weighted"`.

    The paper of the settings does not cover V-JEPA 2. r = 390 removes about as much, at large size and 64 frames, as
    its settings for the other architectures, and needs 3.08 times fewer operations.

    Attributes:
        token_merging_position: Where a merged token lies: in the middle of all that it stands for ("centroid",
            default), or where the token lay that the others were merged into ("destination").

    Examples:
        >>> VJEPA2Config(frames_per_clip=16, token_merging_r=100).token_layout.num_tokens
        2048
    """

    token_merging_position: str = setting("centroid")

    default_token_merging_scope: ClassVar[str] = "clip"
    default_proportional_attention: ClassVar[bool] = False
    # Of the clips that the checkpoint was trained on; it takes other numbers of frames, too.
    clip_fields: ClassVar[tuple[str, str, str]] = ("frames_per_clip", "in_chans", "crop_size")
    # The pipeline of transformers asks for it.
    attribute_map: ClassVar[dict[str, str]] = {"num_frames": "frames_per_clip"}

    def tubelet_grid(self, clip: ClipShape) -> tuple[int, int, int]:
        """A clip too short for one tubelet is repeated by the embeddings, once for each frame of a tubelet."""
        if clip.frames < self.tubelet_size:
            clip = clip._replace(frames=clip.frames * self.tubelet_size)
        return super().tubelet_grid(clip)

    def layout_of(self, clip: ClipShape) -> TokenLayout:
        """The tokens, frame by frame."""
        num_slots, rows, columns = self.tubelet_grid(clip)
        return TokenLayout(0, num_slots, rows * columns)
