"""Neighbours in time: the latest earlier token at the patch position of each token, or near it."""

from __future__ import annotations

import torch
from torch import Tensor

from .layout import TokenLayout
from .similarity import descending_order
from .tokens import gather_tokens


def earlier_neighbours(vectors: Tensor, index: Tensor, layout: TokenLayout, window: int = 0) -> tuple[Tensor, Tensor]:
    """Finds the earlier neighbour of each token: the most similar of the latest tokens at and around its position.

    On a full grid, these are the tokens of the frame before. If some are missing, those before them stand for them.
    Of equally similar tokens, it is the nearest, then the one in the upper row, then the one on the left.

    Args:
        vectors: (B, S, N, D) float, unit vectors, without prefix tokens.
        index: (B, S, N) int64, original index of each token.
        layout: Token layout of a clip.
        window: Number of rows and columns around the patch position of a token in which neighbours may be.

    Returns:
        The positions (B, S, N) int64 of the neighbours, and their similarity (B, S, N); if a token has none, its own
        position and -inf.

    Raises:
        ValueError: If there is a window, but the patches of a frame form no grid.
    """
    frames, patches = layout.num_frames, layout.num_patches
    position = torch.arange(index.shape[-1], device=index.device).expand_as(index)
    grid = index.new_full((*index.shape[:-1], frames * patches), -1).scatter(-1, index, position)
    present = grid.unflatten(-1, (frames, patches)).unbind(-2)
    before = [torch.full_like(present[0], -1)]
    for frame in present[:-1]:  # ONNX knows no cumulative maximum
        before.append(frame.where(frame >= 0, before[-1]))
    latest = torch.cat(before, dim=-1)

    neighbour, similarity = position, torch.full_like(vectors[..., 0], -torch.inf)
    for rows, columns in _offsets(layout, window):
        moved, inside = _moved(index, layout, rows, columns)
        candidate = latest.gather(-1, moved)
        score = (vectors * gather_tokens(vectors, candidate.clamp_min(0))).sum(dim=-1)
        is_better = inside & (candidate >= 0) & (score > similarity)
        neighbour, similarity = candidate.where(is_better, neighbour), score.where(is_better, similarity)
    return neighbour, similarity


def _offsets(layout: TokenLayout, window: int) -> list[tuple[int, int]]:
    """Returns the offsets (rows, columns) in a window, the nearest first."""
    if window == 0:
        return [(0, 0)]
    if layout.num_columns is None:
        raise ValueError(f"window must be 0, as the patches of a frame form no grid, got {window}")
    rows = min(window, layout.num_patches // layout.num_columns - 1)
    columns = min(window, layout.num_columns - 1)
    offsets = [(row, column) for row in range(-rows, rows + 1) for column in range(-columns, columns + 1)]
    return sorted(offsets, key=lambda offset: offset[0] ** 2 + offset[1] ** 2)


def _moved(index: Tensor, layout: TokenLayout, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Returns the index of the patch so many rows and columns away, and whether there is one; else, its own index."""
    if rows == columns == 0:
        return index, torch.ones_like(index, dtype=torch.bool)
    assert layout.num_columns is not None  # checked by `_offsets`
    patch = index % layout.num_patches
    row, column = patch // layout.num_columns + rows, patch % layout.num_columns + columns
    inside = (row >= 0) & (row < layout.num_patches // layout.num_columns)
    inside &= (column >= 0) & (column < layout.num_columns)
    return (index + rows * layout.num_columns + columns).where(inside, index), inside


def join_best(neighbour: Tensor, similarity: Tensor, r: int, num_frames: int) -> Tensor:
    """Merges the r tokens that are most similar to their earlier neighbours into these, and so into runs over time.

    Args:
        neighbour: (B, S, N) int64, positions of earlier neighbours.
        similarity: (B, S, N) float; -inf for tokens that must not merge.
        r: Number of tokens that merge, if so many may.
        num_frames: Number of frames.

    Returns:
        (B, S, N) int64, for each token the position of the first token of its run: see `assign_heirs`.
    """
    best = descending_order(similarity)[..., :r]
    joins = torch.zeros_like(neighbour, dtype=torch.bool).scatter(-1, best, True) & (similarity > -torch.inf)
    position = torch.arange(neighbour.shape[-1], device=neighbour.device).expand_as(neighbour)
    heir = neighbour.where(joins, position)
    # A run has at most one token per frame, and each round doubles the way to its start.
    for _ in range(max(num_frames - 2, 0).bit_length()):
        heir = heir.gather(-1, heir)
    return heir
