"""What the registered modes have in common, asked of the modes themselves: a new mode is tested with its like."""

from __future__ import annotations

import torch

from hf_video_tome.merging import MODES, Assignment, Context, Mode, TokenLayout, Tokens, half_at_most

# Tokens less alike than the threshold: a mode that ever discards tokens discards some of them.
_KEYS = torch.eye(12).view(1, 1, 12, 12)
_R, _THRESHOLD = 4, 0.9


def assign(mode: str, *, seed: int = 0, threshold: float | None = _THRESHOLD) -> Assignment:
    """What a mode does with tokens of which none is like another."""
    context = Context(
        keys=_KEYS,
        hidden_states=_KEYS,
        tokens=Tokens(index=torch.arange(12).view(1, 1, 12)),
        layout=TokenLayout(0, 1, 12),
        r=_R,
        threshold=threshold,
        generator=torch.Generator().manual_seed(seed),
        options=MODES[mode].complete_options(None),
    )
    return MODES[mode].assign(context)


def _merges(mode: str) -> bool:
    assignment = assign(mode)
    return assignment.content == "mean" and bool((assignment.slot >= 0).all())


def _removes_r_everywhere(mode: Mode) -> bool:
    """Any number up to half, at every layer, in every scope, from keys and states alone."""
    special = mode.adaptive or mode.single_layer or mode.scopes is not None or mode.removals is not half_at_most
    return not special and not {"attention", "mlp"}.intersection(mode.inputs(mode.complete_options(None)))


# All others are in tests/models/methods.py.
ALL_MODES = tuple(name for name, mode in MODES.items() if _removes_r_everywhere(mode))
# All tokens go on, in means.
MERGING_MODES = tuple(name for name in ALL_MODES if _merges(name))
# What goes on goes on as it was.
DROPPING_MODES = tuple(name for name in ALL_MODES if assign(name).content == "owner")
# The same tokens, whatever the random numbers.
DETERMINISTIC_MODES = tuple(name for name in ALL_MODES if torch.equal(assign(name).owner, assign(name, seed=1).owner))
