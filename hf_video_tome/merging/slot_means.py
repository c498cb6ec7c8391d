"""Applies an assignment: computes the size-weighted mean of the tokens of each slot, in one kernel on CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from .assignment import Assignment
from .tokens import gather_tokens, is_real


def merge_sizes(size: Tensor | None, assignment: Assignment, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Computes the sizes after merging, and the weight of each token in its slot.

    Args:
        size: (B, S, N) float, number of original tokens that each token stands for; None for all ones.
        assignment: Slot of every token.
        dtype: Dtype of the sizes if `size` is None.

    Returns:
        The sizes (B, S, M) of the slots, and the weights (B, S, N): size times importance, divided by its sum over the
        slot, or zero for discarded tokens. The weights of each slot sum to one.
    """
    slot, alive = assignment.slot.clamp_min(0), assignment.slot >= 0
    size = alive.to(dtype) if size is None else size * alive
    slot_size = _sum_of_slots(size, assignment)
    if assignment.importance is None:
        return slot_size, size / slot_size.gather(-1, slot)
    share = size * assignment.importance.to(dtype)
    return slot_size, share / _sum_of_slots(share, assignment).gather(-1, slot)


def _sum_of_slots(x: Tensor, assignment: Assignment) -> Tensor:
    return x.new_zeros(assignment.owner.shape).scatter_add(-1, assignment.slot.clamp_min(0), x)


def merge_states(x: Tensor, weight: Tensor, assignment: Assignment) -> Tensor:
    """Computes the weighted mean of the tokens of each slot; differentiable in x.

    Sums use float32 or better: in half precision, hundreds of small terms would be lost.

    Args:
        x: (B, S, N, C) float states.
        weight: (B, S, N) float, weights that sum to one in each slot.
        assignment: Slot of every token.

    Returns:
        (B, S, M, C) in the dtype of x.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.device.type == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        return _SumBags.apply(x.to(dtype), weight.to(dtype), assignment.slot, assignment.owner.shape[-1]).to(x.dtype)
    weight = weight.to(dtype).unsqueeze(-1)

    def weighted(index: Tensor) -> Tensor:
        return gather_tokens(x, index).to(dtype) * gather_tokens(weight, index)

    slot = assignment.slot.clamp_min(0)
    if assignment.num_slots is not None:  # tokens that have merged are listed as owners of empty slots
        index = slot.unsqueeze(-1).expand(*slot.shape, x.shape[-1])
        sums = torch.zeros((*assignment.owner.shape, x.shape[-1]), dtype=dtype, device=x.device)
        return sums.scatter_add(2, index, x.to(dtype) * weight).to(x.dtype)
    target = slot.gather(-1, assignment.moved)
    index = target.unsqueeze(-1).expand(*target.shape, x.shape[-1])
    return weighted(assignment.owner).scatter_add(2, index, weighted(assignment.moved)).to(x.dtype)


class _SumBags(torch.autograd.Function):
    """`merge_states` as one kernel that reads every token and writes every slot once: several times faster.

    PyTorch's own backward of the kernel cannot be differentiated again. The function is linear, so this one only needs
    a gather, and its forward-mode derivative the kernel itself.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, slot: Tensor, num_slots: int) -> Tensor:
        """Sums x (B, S, N, C) times weight (B, S, N) by slot (B, S, N), -1 for none, to (B, S, num_slots, C)."""
        total = slot[..., 0].numel() * num_slots
        first_slot = torch.arange(0, total, num_slots, device=x.device).view(*slot.shape[:-1], 1)
        # Discarded tokens go to an extra bag at the end.
        bags, order = torch.where(slot < 0, total, slot + first_slot).flatten().sort(stable=True)
        offsets = torch.searchsorted(bags, torch.arange(total + 1, device=x.device))
        weights = weight.flatten().index_select(0, order)
        sums = embedding_bag(order, x.flatten(0, 2), offsets, mode="sum", per_sample_weights=weights)
        return sums[:-1].view(*x.shape[:2], num_slots, x.shape[-1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Saves tensors for the derivatives."""
        _, weight, slot, ctx.num_slots = inputs
        ctx.save_for_backward(weight, slot)
        ctx.save_for_forward(weight, slot)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the gradient of each token: that of its slot times its weight, which is zero if discarded."""
        weight, slot = ctx.saved_tensors
        index = slot.clamp_min(0).unsqueeze(-1).expand(*slot.shape, gradient.shape[-1])
        return gradient.gather(2, index) * weight.unsqueeze(-1), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        """Applies the function itself, because it is linear in x."""
        return _SumBags.apply(tangent, *ctx.saved_tensors, ctx.num_slots)


def merge_states_with_norm(x: Tensor, weight: Tensor, assignment: Assignment) -> Tensor:
    """Computes the weighted mean of the tokens of each slot, scaled to the norm of the longest of them.

    A token that is alone in its slot is unchanged; if the mean is zero, the slot holds its owner. From "Token Fusion:
    Bridging the Gap between Token Pruning and Token Merging" (WACV 2024), https://arxiv.org/abs/2312.01026, as
    described there (MLERP): not compared with its authors' code.

    Args:
        x: (B, S, N, C) float states.
        weight: (B, S, N) float, weights that sum to one in each slot.
        assignment: Slot of every token.

    Returns:
        (B, S, M, C) in the dtype of x, differentiable in x.
    """
    mean, owner = merge_states(x, weight, assignment), keep_states(x, assignment)
    dtype = torch.promote_types(x.dtype, torch.float32)
    alive, slot = assignment.slot >= 0, assignment.slot.clamp_min(0)
    norm = x.to(dtype).norm(dim=-1) * alive
    longest = norm.new_zeros(assignment.owner.shape).scatter_reduce(-1, slot, norm, "amax")
    mean_norm = mean.to(dtype).norm(dim=-1)
    is_mean = (_sum_of_slots(alive.to(dtype), assignment) > 1) & (mean_norm > 0)
    scale = longest / mean_norm.where(is_mean, 1.0)
    return torch.where(is_mean.unsqueeze(-1), (mean.to(dtype) * scale.unsqueeze(-1)).to(x.dtype), owner)


def keep_states(x: Tensor, assignment: Assignment) -> Tensor:
    """Returns the states of the slot owners, (B, S, N, C) -> (B, S, M, C); zero for empty slots."""
    states = gather_tokens(x, assignment.owner)
    if assignment.num_slots is None:
        return states
    return states * is_real(assignment.num_slots, states.shape[2]).unsqueeze(-1)
