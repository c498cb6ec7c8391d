"""Settings for the calls inside a `with` block, of one thread or async task."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from .._compat import is_compiled
from ..configuration import PREFIX

REFUSAL = (
    "settings of a with block do not reach compiled models: give them to the call, as in model(pixel_values, "
    "token_merging_r=98)"
)


class _Scope:
    """The settings of one `with` block.

    Args:
        model: The head or base model that the block is for.
        changes: From names of fields of its config to values.
    """

    def __init__(self, model: Any, changes: Mapping[str, Any]) -> None:
        self.model = model
        self.changes = changes
        self.ended = False

    def covers(self, model: Any) -> bool:
        """Whether the block goes on, and a head or a base model is the one that it is for, or its other half."""
        if self.ended:
            return False
        return self.model is model or self.model is model.base_model or self.model.base_model is model


class _ThreadScopes(threading.local):
    """The blocks that a thread is in: torch.compile can read and guard these, unlike a `ContextVar`."""

    def __init__(self) -> None:
        self.open: tuple[_Scope, ...] = ()


# Without these two, a block could not hold for one thread or task alone.
_SCOPES: ContextVar[tuple[_Scope, ...]] = ContextVar("token_merging_scopes", default=())
_THREAD = _ThreadScopes()


def _without(scopes: tuple[_Scope, ...], scope: _Scope) -> tuple[_Scope, ...]:
    return tuple(other for other in scopes if other is not scope and not other.ended)


def scoped_settings(model: Any, changes: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Gives a model other settings for the calls inside a `with` block: see `hf_video_tome.token_merging`.

    Args:
        model: A head or base model that can merge tokens.
        changes: From the names of its config's fields to values.

    Returns:
        The context manager.

    Raises:
        ValueError: If a name is unknown or a value is out of range.
        RuntimeError: If the model is compiled.
    """
    if is_compiled(model):
        raise RuntimeError(REFUSAL)
    checked = model.config.changed_settings(model.config.token_merging, changes)
    return _block(_Scope(model, {name: getattr(checked, name.removeprefix(PREFIX)) for name in changes}))


@contextmanager
def _block(scope: _Scope) -> Iterator[None]:
    _SCOPES.set((*_SCOPES.get(), scope))
    _THREAD.open = (*_THREAD.open, scope)
    try:
        yield
    finally:
        # A generator may be closed in another thread or context than it was started in, where it cannot be taken out.
        scope.ended = True
        _SCOPES.set(_without(_SCOPES.get(), scope))
        _THREAD.open = _without(_THREAD.open, scope)


def changes_in_scope(model: Any) -> dict[str, Any]:
    """Returns the settings of the blocks around this call, those of inner blocks in place of those of outer ones.

    Args:
        model: The head or base model that is called.

    Returns:
        From names of fields of its config to values.

    Raises:
        RuntimeError: While torch.compile compiles a model that the thread is in a block for: a graph cannot tell the
            calls of one task from those of another.
    """
    if torch.compiler.is_dynamo_compiling():
        for scope in _THREAD.open:
            if scope.covers(model):
                _refuse()
        return {}
    return {name: value for scope in _SCOPES.get() if scope.covers(model) for name, value in scope.changes.items()}


@torch.compiler.assume_constant_result
def _refuse() -> None:
    """Raises while torch.compile traces: an exception that is traced would end up as a graph break, and be lost."""
    raise RuntimeError(REFUSAL)
