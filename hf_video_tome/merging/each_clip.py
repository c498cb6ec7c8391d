"""Padded batches for modes that do not handle padding: each clip is assigned alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .assignment import Assignment
from .modes import Context, Mode, SetShape
from .tokens import Tokens


def assign_each_clip(mode: Mode, context: Context, scope: str, requested: int) -> Assignment:
    """Runs a mode on each clip of a padded batch without its padding, and pads the results.

    Args:
        mode: The mode.
        context: Its inputs for the whole batch; `tokens.length` is the number of tokens of each clip.
        scope: The scope of the matched sets.
        requested: Number of tokens to remove from each clip, before its cap.

    Returns:
        The assignment of the batch, with `num_slots`. Each clip has the slots that it would have alone.
    """
    assert context.tokens.length is not None
    num_tokens = context.keys.shape[2]
    lengths = context.tokens.length.tolist()
    contexts = [_context_of(mode, context, scope, requested, *clip) for clip in enumerate(lengths)]
    clips = [mode.assign(alone) if alone.r else _identity(alone) for alone in contexts]
    decided = next((clip for clip, alone in zip(clips, contexts, strict=True) if alone.r), clips[0])
    counts = [_count(clip) for clip in clips]
    num_slots = torch.cat(counts)
    width = max(num_tokens - context.r, int(num_slots.max()))
    # Owners of filled slots come first; all other positions follow in ascending order.
    position = torch.arange(num_tokens, device=num_slots.device)
    rank = torch.cat([(num_tokens + position).expand(1, count.shape[1], -1) for count in counts])
    for row, clip, count in zip(rank.unbind(0), clips, counts, strict=True):
        owner = clip.owner[0, :, : int(count.max())]
        row.scatter_(-1, owner, position[: owner.shape[-1]].expand_as(owner))
    order = rank.argsort(dim=-1)
    importance = None
    if decided.importance is not None:
        importance = _stack([_importance(clip, decided.importance) for clip in clips], num_tokens, 1.0)
    return Assignment(
        slot=_stack([clip.slot for clip in clips], num_tokens, -1),
        owner=order[..., :width],
        moved=order[..., width:],
        content=decided.content,
        sizes=decided.sizes,
        num_slots=num_slots,
        importance=importance,
    )


def _stack(rows: list[Tensor], num_tokens: int, value: float) -> Tensor:
    return torch.cat([pad(row, (0, num_tokens - row.shape[-1]), value=value) for row in rows])


def _importance(clip: Assignment, like: Tensor) -> Tensor:
    return like.new_ones(clip.slot.shape) if clip.importance is None else clip.importance


def _count(clip: Assignment) -> Tensor:
    if clip.num_slots is not None:
        return clip.num_slots
    return clip.owner.new_full(clip.owner.shape[:2], clip.owner.shape[-1])


def _identity(context: Context) -> Assignment:
    batch, sets, num_tokens, _ = context.keys.shape
    position = torch.arange(num_tokens, device=context.keys.device)
    position = position.expand(batch, 1 if context.shared else sets, -1)
    return Assignment(position, position, position[..., :0])


def _context_of(mode: Mode, context: Context, scope: str, requested: int, clip: int, num_tokens: int) -> Context:
    """Returns the inputs for one clip alone, without padding."""

    def own(x: Tensor) -> Tensor:
        return x[clip : clip + 1, :, :num_tokens]

    def own_or_none(x: Tensor | None) -> Tensor | None:
        return None if x is None else own(x)

    tokens, attention = context.tokens, context.attention
    if attention is not None:
        size = None if attention.size is None else attention.size[clip : clip + 1, :num_tokens]
        attention = attention._replace(queries=own(attention.queries), keys=own(attention.keys), size=size)
    shape = SetShape(num_tokens, context.num_protected, context.layout, scope, context.options, context.segments)
    [r] = mode.removals([requested], shape)
    return context._replace(
        keys=own(context.keys),
        hidden_states=own_or_none(context.hidden_states),
        tokens=Tokens(own_or_none(tokens.size), index=own_or_none(tokens.index), group=own_or_none(tokens.group)),
        r=r,
        attention=attention,
    )
