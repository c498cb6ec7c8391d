"""Where the tokens of a clip lie in the sequence, and which of them are matched with each other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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

    def token_index(self, device: torch.device | None = None) -> Tensor:
        """Where each token of the unmerged sequence is in the clip.

        Returns:
            (num_tokens,) int64: t * P + p of patch p of frame t, -1 of prefix tokens.

        Examples:
            >>> TokenLayout(1, num_frames=2, num_patches=3, patch_major=True).token_index().tolist()
            [-1, 0, 3, 1, 4, 2, 5]
        """
        index = torch.arange(self.num_frames * self.num_patches, device=device)
        if self.patch_major:
            index = index.view(self.num_frames, self.num_patches).T.flatten()
        return torch.cat((index.new_full((self.num_prefix_tokens,), -1), index))

    def set_size(self, scope: str) -> tuple[int, int]:
        """Tokens in one matched set, and how many of them are protected.

        With scope "clip" the set is the whole sequence; else it is the patches of one frame, or with "time" those of
        one place, and prefix tokens stay out.
        """
        if scope == "clip":
            return self.num_tokens, self.num_prefix_tokens
        return (self.num_frames if scope == "time" else self.num_patches), 0

    def num_sets(self, scope: str) -> int:
        """Matched sets of a clip, always as many: 1 with "clip", the places with "time", else the frames."""
        if scope == "clip":
            return 1
        return self.num_patches if scope == "time" else self.num_frames

    def grid(self, num_tokens: int, scope: str) -> tuple[int, int]:
        """Frames, and places in each of them, that a sequence has after any number of steps.

        Args:
            num_tokens: Tokens of the sequence, merged or not.
            scope: "frame", "tube" or "time": with "clip", merged tokens lie on no grid.

        Returns:
            (frames, places): with "time" the frames become fewer, else the places.

        Examples:
            >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196)
            >>> layout.grid(785, "tube"), layout.grid(785, "time")
            ((8, 98), (4, 196))
        """
        num_sets = self.num_sets(scope)
        set_tokens = (num_tokens - self.num_prefix_tokens) // num_sets
        return (set_tokens, num_sets) if scope == "time" else (num_sets, set_tokens)

    def _set_major(self, scope: str) -> bool:
        """Whether the tokens of a set lie together in the sequence, rather than the n-th tokens of all sets."""
        return self.patch_major == (scope == "time")

    def sequence_length(self, set_tokens: int, scope: str) -> int:
        """Tokens of the whole sequence when each matched set has `set_tokens` left."""
        return set_tokens if scope == "clip" else self.num_prefix_tokens + self.num_sets(scope) * set_tokens

    def split(self, x: Tensor, scope: str) -> tuple[Tensor | None, Tensor]:
        """Takes a sequence apart into the sets to be matched.

        Args:
            x: (B, N, ...) one entry per token of the sequence, merged or not.
            scope: "clip", "frame", "tube" or "time".

        Returns:
            The prefix (B, num_prefix_tokens, ...), or None where it is part of the set, and the sets (B, S, n, ...),
            where S is `num_sets(scope)`.
        """
        if scope == "clip":
            return None, x.unsqueeze(1)
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        if self._set_major(scope):
            return prefix, patches.unflatten(1, (self.num_sets(scope), -1))
        return prefix, patches.unflatten(1, (-1, self.num_sets(scope))).transpose(1, 2)

    def join(self, prefix: Tensor | None, sets: Tensor, scope: str) -> Tensor:
        """Puts back together what `split` took apart: the inverse, for any number of tokens per set.

        Args:
            prefix: (B, num_prefix_tokens, ...) or None.
            sets: (B, S, n, ...).
            scope: As for `split`.

        Returns:
            (B, N, ...).
        """
        if prefix is None:
            return sets.squeeze(1)
        patches = sets.flatten(1, 2) if self._set_major(scope) else sets.transpose(1, 2).flatten(1, 2)
        return torch.cat((prefix, patches), dim=1) if self.num_prefix_tokens else patches

    def has_aligned_sets(self, scope: str) -> bool:
        """Whether the n-th tokens of all sets lie side by side in the sequence: see `split_aligned`."""
        return scope != "clip" and not self._set_major(scope)

    def split_aligned(self, x: Tensor, scope: str) -> tuple[Tensor, Tensor]:
        """Takes a sequence apart into one set, of which each token is the n-th of all sets: nothing is moved.

        Args:
            x: (B, N, C), one vector per token of the sequence, merged or not.
            scope: One that has aligned sets.

        Returns:
            The prefix (B, num_prefix_tokens, C), and the rows (B, 1, n, S * C), where S is `num_sets(scope)`.

        Examples:
            >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196, patch_major=True)
            >>> layout.has_aligned_sets("tube"), layout.split_aligned(torch.zeros(2, 1569, 4), "tube")[1].shape
            (True, torch.Size([2, 1, 196, 32]))
        """
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return prefix, patches.unflatten(1, (-1, self.num_sets(scope))).flatten(2).unsqueeze(1)

    def join_aligned(self, prefix: Tensor, rows: Tensor, scope: str) -> Tensor:
        """The inverse of `split_aligned`, for any number of rows."""
        num_sets = self.num_sets(scope)
        patches = rows.squeeze(1).unflatten(-1, (num_sets, rows.shape[-1] // num_sets)).flatten(1, 2)
        return torch.cat((prefix, patches), dim=1) if self.num_prefix_tokens else patches

    def sequence_index(self, index: Tensor, set_tokens: int, scope: str) -> Tensor:
        """Turns positions inside each set into positions in the sequence.

        Args:
            index: (B, S, n) int64 positions inside the set, each < `set_tokens`; -1 stays -1.
            set_tokens: Tokens that each set has.
            scope: "clip", "frame", "tube" or "time".

        Returns:
            (B, S, n) int64 positions in the sequence.
        """
        if scope == "clip":
            return index
        own = torch.arange(index.shape[1], device=index.device)[:, None]
        if self._set_major(scope):
            position = self.num_prefix_tokens + own * set_tokens + index
        else:
            position = self.num_prefix_tokens + index * self.num_sets(scope) + own
        return torch.where(index < 0, index, position)
