"""Where the tokens of a clip lie in the sequence, and which of them are matched with each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SCOPES = ("clip", "frame", "tube")
"""Sets of tokens that can be matched: all of a clip, each frame alone, or all frames alike by one shared matching."""


class TokenLayout(NamedTuple):
    """The layout of one clip's tokens in the sequence of a video transformer.

    Attributes:
        num_prefix_tokens: Tokens before the patches that are never merged (1 with a CLS token).
        num_frames: Frames (or tubelet slots along time) of the patch tokens, T.
        num_patches: Patch tokens of each frame, P, before any merging.
        patch_major: Whether patch p of frame t is at prefix + p * T + t (TimeSformer) rather than prefix + t * P + p.

    Examples:
        >>> TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196).num_tokens
        1569
    """

    num_prefix_tokens: int
    num_frames: int
    num_patches: int
    patch_major: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens of the unmerged sequence."""
        return self.num_prefix_tokens + self.num_frames * self.num_patches

    def set_size(self, scope: str) -> tuple[int, int]:
        """Tokens in one matched set, and how many of them are protected.

        With scope "clip" the set is the whole sequence; else it is the patches of one frame, and prefix tokens stay
        out.
        """
        return (self.num_tokens, self.num_prefix_tokens) if scope == "clip" else (self.num_patches, 0)

    def sequence_length(self, set_tokens: int, scope: str) -> int:
        """Tokens of the whole sequence when each matched set has `set_tokens` left."""
        return set_tokens if scope == "clip" else self.num_prefix_tokens + self.num_frames * set_tokens

    def split(self, x: Tensor, scope: str) -> tuple[Tensor | None, Tensor]:
        """Takes a sequence apart into the sets to be matched.

        Args:
            x: (B, N, ...) one entry per token of the sequence, merged or not.
            scope: "clip", "frame" or "tube".

        Returns:
            The prefix (B, num_prefix_tokens, ...), or None where it is part of the set, and the sets (B, S, n, ...),
            where S is 1 for "clip" and the number of frames otherwise.
        """
        if scope == "clip":
            return None, x.unsqueeze(1)
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        if self.patch_major:
            return prefix, patches.unflatten(1, (-1, self.num_frames)).transpose(1, 2)
        return prefix, patches.unflatten(1, (self.num_frames, -1))

    def join(self, prefix: Tensor | None, sets: Tensor) -> Tensor:
        """Puts back together what `split` took apart: the inverse, for any number of tokens per set.

        Args:
            prefix: (B, num_prefix_tokens, ...) or None.
            sets: (B, S, n, ...).

        Returns:
            (B, N, ...).
        """
        if prefix is None:
            return sets.squeeze(1)
        patches = sets.transpose(1, 2).flatten(1, 2) if self.patch_major else sets.flatten(1, 2)
        return torch.cat((prefix, patches), dim=1) if self.num_prefix_tokens else patches

    def sequence_index(self, index: Tensor, set_tokens: int, scope: str) -> Tensor:
        """Turns positions inside each set into positions in the sequence.

        Args:
            index: (B, S, n) int64 positions inside the set, each < `set_tokens`; -1 stays -1.
            set_tokens: Tokens that each set has.
            scope: "clip", "frame" or "tube".

        Returns:
            (B, S, n) int64 positions in the sequence.
        """
        if scope == "clip":
            return index
        frame = torch.arange(index.shape[1], device=index.device)[:, None]
        if self.patch_major:
            position = self.num_prefix_tokens + index * self.num_frames + frame
        else:
            position = self.num_prefix_tokens + frame * set_tokens + index
        return torch.where(index < 0, index, position)
