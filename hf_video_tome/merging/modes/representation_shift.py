"""`representation_shift`: drops the tokens that the MLP of the layer changes least."""

from __future__ import annotations

import torch

from ..assignment import Assignment, assign_kept
from ..checks import one_of
from ..schedule import ALMOST_ALL
from ..similarity import descending_order
from .registry import Context, ModeOption, all_but_one, register_mode

SHIFTS = ("update", "branch")


@register_mode(
    "representation_shift",
    reads=("hidden_states", "mlp"),
    removals=all_but_one,
    max_share=ALMOST_ALL,
    averages=False,
    options={
        "shift": ModeOption(
            "branch",
            one_of("shift", SHIFTS),
            "Shift of a token: the norm of what the MLP adds to it (update), or of the difference between the output "
            "of the MLP and the token (branch).",
            choices=SHIFTS,
        )
    },
)
def representation_shift(context: Context) -> Assignment:
    """Drops the r tokens with the smallest shift in the MLP: the L2 norm of MLP(norm(x)) - x, of states x.

    It costs one MLP on all tokens of the layer, and reads no attention. The paper drops 20 % or 10 % of the tokens in
    each of layers 0 to 2. Sets that share an assignment go by their mean shift.

    From "Representation Shift: Unifying Token Compression with FlashAttention" (ICCV 2025),
    https://arxiv.org/abs/2508.00367, as described there: not compared with its authors' code. Adapted: it drops before
    the MLP, which runs once more on the tokens that are left; the paper drops after it. Descriptions write the shift
    as MLP(norm(x)) - x, where the MLP may include its residual connection (then x cancels: "update") or not
    ("branch").
    """
    assert context.hidden_states is not None  # it reads both
    assert context.mlp is not None
    states = context.hidden_states
    sets, num_tokens = states.shape[1:3]
    update = context.mlp(states.flatten(1, 2)).detach().unflatten(1, (sets, num_tokens))
    dtype = torch.promote_types(states.dtype, torch.float32)
    update, states = update.to(dtype), states.to(dtype)
    shift = (update if context.options["shift"] == "update" else update - states).norm(dim=-1)
    if context.shared:
        shift = shift.mean(dim=1, keepdim=True)
    start = context.num_protected
    order = start + descending_order(shift[..., start:])
    kept = order[..., : num_tokens - start - context.r].sort(dim=-1).values
    prefix = torch.arange(start, device=kept.device).expand(*kept.shape[:-1], -1)
    return assign_kept(torch.cat((prefix, kept), dim=-1), num_tokens)
