"""Changes of tubelets over time, and the runs of unchanged tubelets that one kept tubelet each stands for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .assignment import Assignment
from .similarity import descending_order
from .tokens import marked_first


def last_to_first_change(pixel_values: Tensor, tubelet_shape: tuple[int, int, int]) -> Tensor:
    """Computes the change from the first frame of the previous tubelet to the last frame of each tubelet.

    Args:
        pixel_values: (B, T, C, H, W) float. Frames, rows and columns after the last whole tubelet are ignored.
        tubelet_shape: Frames, height and width of a tubelet.

    Returns:
        (B, T' - 1, P), mean absolute difference for each of P patch positions and all slots but the first, in float32
        or better.

    Examples:
        >>> clip = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(1, 4, 1, 1, 1)
        >>> last_to_first_change(clip, (2, 1, 1)).tolist(), same_frame_change(clip, (2, 1, 1)).tolist()
        ([[[1.0]]], [[[0.0]]])
    """
    depth, height, width = tubelet_shape
    slots = pixel_values.shape[1] // depth
    first, last = (pixel_values[:, start : slots * depth : depth] for start in (0, depth - 1))
    return _change(first[:, :-1], last[:, 1:], height, width)


def same_frame_change(pixel_values: Tensor, tubelet_shape: tuple[int, int, int]) -> Tensor:
    """Computes the change from each frame of the previous tubelet to the same frame of each tubelet.

    Args:
        pixel_values: As for `last_to_first_change`.
        tubelet_shape: As for `last_to_first_change`.

    Returns:
        As for `last_to_first_change`, averaged over the frames of a tubelet.
    """
    depth, height, width = tubelet_shape
    slots = pixel_values.shape[1] // depth
    frames = [pixel_values[:, start : slots * depth : depth] for start in range(depth)]
    return torch.stack([_change(it[:, :-1], it[:, 1:], height, width) for it in frames]).mean(dim=0)


def _change(before: Tensor, after: Tensor, height: int, width: int) -> Tensor:
    """Mean absolute difference of frames (B, S, C, H, W) within each patch: (B, S, P)."""
    dtype = torch.promote_types(before.dtype, torch.float32)
    difference = (after.to(dtype) - before.to(dtype)).abs().mean(dim=2)
    return avg_pool2d(difference, (height, width)).flatten(2)


def keep_largest(change: Tensor, keep: int) -> Tensor:
    """Marks the tubelets with the largest changes of a clip; of equal ones, the earliest.

    Args:
        change: (B, T' - 1, P) float, change of each tubelet of all slots but the first.
        keep: Number of tubelets to keep per clip, P or more, with those of the first slot, which are always kept.

    Returns:
        (B, T', P) bool, `keep` of each clip.

    Examples:
        >>> keep_largest(torch.tensor([[[1.0, 3.0], [2.0, 3.0]]]), 4).int().tolist()
        [[[1, 1], [0, 1], [0, 1]]]
    """
    flat = change.flatten(1)
    chosen = descending_order(flat)[:, : keep - change.shape[2]]
    is_kept = torch.zeros_like(flat, dtype=torch.bool).scatter(-1, chosen, torch.ones_like(chosen, dtype=torch.bool))
    return _with_first_slot(is_kept.view(change.shape))


def keep_above(change: Tensor, threshold: float) -> Tensor:
    """Marks the tubelets that change by more than a threshold, and those of the first slot.

    Args:
        change: As for `keep_largest`.
        threshold: The threshold.

    Returns:
        (B, T', P) bool.

    Examples:
        >>> keep_above(torch.tensor([[[0.1, 0.0], [0.0, 0.3]]]), 0.1).int().tolist()
        [[[1, 1], [0, 0], [0, 1]]]
    """
    return _with_first_slot(change > threshold)


def _with_first_slot(is_kept: Tensor) -> Tensor:
    batch_size, _, num_patches = is_kept.shape
    return torch.cat((is_kept.new_ones(batch_size, 1, num_patches), is_kept), dim=1)


def assign_runs(is_kept: Tensor, keep: int | None = None) -> Assignment:
    """Builds the assignment in which each kept tubelet stands for itself and its run.

    A run are the tubelets at the same patch position after a kept one, up to the next that is kept. A kept tubelet
    enters unchanged, with the number of tubelets of its run as size: the sizes of a clip sum to all its tubelets.

    Args:
        is_kept: (B, T', P) bool, including all tubelets of the first slot.
        keep: Number of kept tubelets per clip, if it is the same for all; otherwise the assignment has `num_slots`.

    Returns:
        The assignment of the T' * P tubelets, with one set per clip.

    Examples:
        >>> assign_runs(torch.tensor([[[1, 1], [0, 1], [0, 0]]]).bool(), 3).slot.tolist()
        [[[0, 1, 0, 2, 0, 2]]]
    """
    flat, by_place = is_kept.flatten(1), is_kept.transpose(1, 2).flatten(1)
    order = marked_first(flat)
    own_slot = (flat.cumsum(dim=-1) - 1).view(is_kept.shape)  # of kept tubelets
    # Runs are consecutive position by position: the n-th of them is that of the n-th kept tubelet in this order.
    slot_of_run = own_slot.transpose(1, 2).flatten(1).gather(-1, marked_first(by_place))
    slot = slot_of_run.gather(-1, by_place.cumsum(dim=-1) - 1)
    slot = slot.view(is_kept.transpose(1, 2).shape).transpose(1, 2).flatten(1)
    width = flat.shape[1] if keep is None else keep
    return Assignment(
        slot[:, None],
        order[:, None, :width],
        order[:, None, width:],
        content="owner",
        sizes="summed",
        num_slots=flat.sum(dim=-1, keepdim=True) if keep is None else None,
    )
