"""Segmentation of a clip by dynamic programming, so that as many tokens as possible stay the same in a segment."""

from __future__ import annotations

import torch
from torch import Tensor


def best_segments(gains: list[list[int]]) -> list[tuple[int, int]]:
    """Splits frames into the segments with the largest total gain.

    Args:
        gains: For each first frame, the gain of the segments that end after 1, 2, ... frames.

    Returns:
        (first frame, frame after the last) of each segment, in order; of equally good ones, those with the earliest
        start of the last segment.

    Examples:
        >>> best_segments([[0, 5, 6], [0, 4], [0]]), best_segments([[0, 1, 1], [0, 4], [0]])
        ([(0, 3)], [(0, 1), (1, 3)])
    """
    total, start = [0], [0]
    for end in range(1, len(gains) + 1):
        totals = [total[first] + gains[first][end - first - 1] for first in range(end)]
        total.append(max(totals))
        start.append(totals.index(total[-1]))
    segments, end = [], len(gains)
    while end > 0:
        segments.append((start[end], end))
        end = start[end]
    return segments[::-1]


def static_tokens(is_present: Tensor, is_similar: Tensor) -> Tensor:
    """Returns the tokens that merge into the first frame of their segment, with segments that save most tokens.

    A patch position is static in a segment if each of its tokens, after the first, is similar to the one before. The
    gain of a segment is the number of tokens at such positions, apart from the first of each position: with all tokens
    present, the number of static positions times the number of frames less one. Runs on the host.

    Args:
        is_present: (B, T, P) bool, which tokens there are.
        is_similar: (B, T, P) bool, whether they are similar to the latest one before at their patch position.

    Returns:
        (B, T, P) bool on the CPU.
    """
    is_present, is_similar = is_present.cpu(), is_similar.cpu()
    is_static, gains, is_later = [], [], []
    for first in range(is_present.shape[1]):
        present = is_present[:, first:]
        later = present & (present.cumsum(dim=1) > 1)
        static = (later & ~is_similar[:, first:]).cumsum(dim=1) == 0
        gains.append((static * later.cumsum(dim=1)).sum(dim=-1).tolist())
        is_static.append(static)
        is_later.append(later)
    merges = torch.zeros_like(is_present)
    for clip in range(len(merges)):
        for first, end in best_segments([gain[clip] for gain in gains]):
            length = end - first
            merges[clip, first:end] = is_later[first][clip, :length] & is_static[first][clip, length - 1]
    return merges
