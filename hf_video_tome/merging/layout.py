"""Token layout of a clip: the order of tokens in the sequence, and the sets in which they are matched."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TokenLayout(NamedTuple):
    """Token layout of a clip.

    Attributes:
        num_prefix_tokens: Number of tokens before the patches, which never merge (1 with a CLS token).
        num_frames: Number of frames (or tubelets along time) T.
        num_patches: Number of patch tokens per frame P, before any merging.
        patch_major: Whether patch p of frame t is at prefix + p * T + t (TimeSformer) rather than prefix + t * P + p.
        num_columns: Number of patches per row of a frame, before any merging; None if they form no grid.

    Examples:
        >>> TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196).num_tokens
        1569
    """

    num_prefix_tokens: int
    num_frames: int
    num_patches: int
    patch_major: bool = False
    num_columns: int | None = None

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the unmerged sequence."""
        return self.num_prefix_tokens + self.num_frames * self.num_patches

    def token_index(self, device: torch.device | None = None) -> Tensor:
        """Returns the index of each token of the unmerged sequence within the clip.

        Returns:
            (num_tokens,) int64: t * P + p for patch p of frame t, -1 for prefix tokens.

        Examples:
            >>> TokenLayout(1, num_frames=2, num_patches=3, patch_major=True).token_index().tolist()
            [-1, 0, 3, 1, 4, 2, 5]
        """
        index = torch.arange(self.num_frames * self.num_patches, device=device)
        if self.patch_major:
            index = index.view(self.num_frames, self.num_patches).T.flatten()
        return torch.cat((index.new_full((self.num_prefix_tokens,), -1), index))

    def set_size(self, scope: str) -> tuple[int, int]:
        """Returns the number of tokens in a matched set, and how many of them are protected.

        With scope "clip", the set is the whole sequence. Otherwise it consists of the patches of one frame, or with
        "time" of one patch position, without prefix tokens.
        """
        if scope == "clip":
            return self.num_tokens, self.num_prefix_tokens
        return (self.num_frames if scope == "time" else self.num_patches), 0

    def num_sets(self, scope: str) -> int:
        """Returns the number of matched sets: 1 for "clip", one per patch position for "time", else one per frame."""
        if scope == "clip":
            return 1
        return self.num_patches if scope == "time" else self.num_frames

    def grid(self, num_tokens: int, scope: str) -> tuple[int, int]:
        """Returns the number of frames, and of patches per frame, of a sequence.

        Args:
            num_tokens: Number of tokens of the sequence, merged or not.
            scope: "frame", "tube" or "time"; with "clip", merged tokens form no grid.

        Returns:
            (frames, patches): "time" reduces the number of frames, other scopes the number of patches.

        Examples:
            >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196)
            >>> layout.grid(785, "tube"), layout.grid(785, "time")
            ((8, 98), (4, 196))
        """
        num_sets = self.num_sets(scope)
        set_tokens = (num_tokens - self.num_prefix_tokens) // num_sets
        return (set_tokens, num_sets) if scope == "time" else (num_sets, set_tokens)

    def _set_major(self, scope: str) -> bool:
        """Returns whether the tokens of a set, rather than the n-th tokens of all sets, are adjacent."""
        return self.patch_major == (scope == "time")

    def sequence_length(self, set_tokens: int, scope: str) -> int:
        """Returns the number of tokens of the sequence if each matched set has `set_tokens`."""
        return set_tokens if scope == "clip" else self.num_prefix_tokens + self.num_sets(scope) * set_tokens

    def split(self, x: Tensor, scope: str) -> tuple[Tensor | None, Tensor]:
        """Splits a sequence into matched sets.

        Args:
            x: (B, N, ...), one entry per token of the sequence, merged or not.
            scope: "clip", "frame", "tube" or "time".

        Returns:
            The prefix (B, num_prefix_tokens, ...), or None if it is part of the set, and the sets (B, S, n, ...) with
            S = `num_sets(scope)`.
        """
        if scope == "clip":
            return None, x.unsqueeze(1)
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        if self._set_major(scope):
            return prefix, patches.unflatten(1, (self.num_sets(scope), -1))
        return prefix, patches.unflatten(1, (-1, self.num_sets(scope))).transpose(1, 2)

    def join(self, prefix: Tensor | None, sets: Tensor, scope: str) -> Tensor:
        """Joins matched sets into a sequence: the inverse of `split`, for any number of tokens per set.

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
        """Returns whether the n-th tokens of all sets are adjacent in the sequence: see `split_aligned`."""
        return scope != "clip" and not self._set_major(scope)

    def split_aligned(self, x: Tensor, scope: str) -> tuple[Tensor, Tensor]:
        """Splits a sequence into one set of rows, each with the n-th tokens of all sets; no data is moved.

        Args:
            x: (B, N, C), one vector per token of the sequence, merged or not.
            scope: A scope with aligned sets.

        Returns:
            The prefix (B, num_prefix_tokens, C), and the rows (B, 1, n, S * C) with S = `num_sets(scope)`.

        Examples:
            >>> layout = TokenLayout(num_prefix_tokens=1, num_frames=8, num_patches=196, patch_major=True)
            >>> layout.has_aligned_sets("tube"), layout.split_aligned(torch.zeros(2, 1569, 4), "tube")[1].shape
            (True, torch.Size([2, 1, 196, 32]))
        """
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        return prefix, patches.unflatten(1, (-1, self.num_sets(scope))).flatten(2).unsqueeze(1)

    def join_aligned(self, prefix: Tensor, rows: Tensor, scope: str) -> Tensor:
        """Joins rows into a sequence: the inverse of `split_aligned`, for any number of rows."""
        num_sets = self.num_sets(scope)
        patches = rows.squeeze(1).unflatten(-1, (num_sets, rows.shape[-1] // num_sets)).flatten(1, 2)
        return torch.cat((prefix, patches), dim=1) if self.num_prefix_tokens else patches

    def sequence_index(self, index: Tensor, set_tokens: int, scope: str) -> Tensor:
        """Converts positions within each set to positions in the sequence.

        Args:
            index: (B, S, n) int64 positions within the set, each < `set_tokens`; -1 is kept.
            set_tokens: Number of tokens per set.
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
