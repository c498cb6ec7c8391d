"""The model that can merge tokens, or could, inside another module."""

from __future__ import annotations

from typing import NamedTuple, cast

from torch import nn
from transformers import PreTrainedModel

from .encoder import ENCODERS, Encoder
from .host import HOSTS, Host


class FoundModel(NamedTuple):
    """Host or encoder found in a module.

    Attributes:
        model: The host or encoder.
        entry: Its entry in the registry.
        merges: Whether it can already merge tokens.
        user: Unsupported model around it, which may not be able to read merged tokens; None if there is none.
    """

    model: PreTrainedModel
    entry: Host | Encoder
    merges: bool
    user: PreTrainedModel | None

    @property
    def encoders(self) -> list[tuple[PreTrainedModel, Encoder]]:
        """The model itself if it is an encoder, else the encoders inside it, with their entries."""
        if isinstance(self.entry, Encoder):
            return [(self.model, self.entry)]
        entries = self.entry.encoder_entries.items()
        return [(cast(PreTrainedModel, self.model.get_submodule(path)), encoder) for path, encoder in entries]


def find_model(model: nn.Module) -> FoundModel:
    """Finds the host or encoder in a module, at any depth (inside a peft or DDP wrapper, for example).

    Raises:
        ValueError: If there is none, or more than one.
    """
    allowed = allowed_models()
    if not isinstance(model, nn.Module):
        raise ValueError(f"{allowed}, got {type(model).__name__}")
    known: dict[type, tuple[Host | Encoder, bool]] = {}
    for encoder in ENCODERS.values():
        known |= {encoder.stock_model_class: (encoder, False), encoder.model_class: (encoder, True)}
    for host in HOSTS.values():
        known |= {host.stock_class: (host, False), host.model_class: (host, True)}
    found: list[tuple[str, PreTrainedModel]] = []
    for name, module in model.named_modules():
        if type(module) in known and not any(_is_inside(name, outer) for outer, _ in found):
            found.append((name, cast(PreTrainedModel, module)))
    if not found:
        raise ValueError(f"{allowed}, got {type(model).__name__}")
    if len(found) > 1:
        raise ValueError(f"{allowed}, got {type(model).__name__} with {len(found)} of them: pass one at a time")
    [(name, match)] = found
    users = [
        outer
        for outer_name, outer in model.named_modules()
        if isinstance(outer, PreTrainedModel) and _is_inside(name, outer_name)
    ]
    return FoundModel(match, *known[type(match)], users[0] if users else None)


def find_merging_model(model: nn.Module) -> FoundModel:
    """Finds the host or encoder that can merge tokens in a module.

    Raises:
        ValueError: If there is none, or it is a stock model.
    """
    found = find_model(model)
    if not found.merges:
        raise ValueError(
            f"model must be able to merge tokens, got a stock {type(found.model).__name__}: call apply_token_merging"
        )
    return found


def allowed_models() -> str:
    """Returns the start of the errors that say which models are supported."""
    names = ", ".join(host.stock_class.__name__ for host in HOSTS.values())
    return f"model must be or contain one of {names} (or its base model)"


def _is_inside(name: str, outer: str) -> bool:
    return name != outer and name.startswith(f"{outer}." if outer else "")
