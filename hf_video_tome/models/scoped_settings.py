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
    """Settings of one `with` block.

    Args:
        model: The head or base model of the block.
        changes: Names of config fields and their values.
    """

    def __init__(self, model: Any, changes: Mapping[str, Any]) -> None:
        self.model = model
        self.changes = changes
        self.ended = False

    def covers(self, model: Any) -> bool:
        """Returns whether the block is open and applies to a model; a head and its base model count as one."""
        if self.ended:
            return False
        return self.model is model or self.model is model.base_model or self.model.base_model is model


class _ThreadScopes(threading.local):
    """Open blocks of a thread; torch.compile can read and guard them, unlike a `ContextVar`."""

    def __init__(self) -> None:
        self.open: tuple[_Scope, ...] = ()


# Mutable state that limits a block to one thread or task.
_SCOPES: ContextVar[tuple[_Scope, ...]] = ContextVar("token_merging_scopes", default=())
_THREAD = _ThreadScopes()


def _without(scopes: tuple[_Scope, ...], scope: _Scope) -> tuple[_Scope, ...]:
    return tuple(other for other in scopes if other is not scope and not other.ended)


def scoped_settings(model: Any, changes: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Changes the settings of a model for the calls inside a `with` block: see `hf_video_tome.token_merging`.

    Args:
        model: A head or base model that can merge tokens.
        changes: Names of config fields and their new values.

    Returns:
        The context manager.

    Raises:
        ValueError: If a name is unknown or a value is out of range.
        RuntimeError: If the model is compiled.
    """
    if is_compiled(model):
        raise RuntimeError(REFUSAL)
    changes = model.config.expand_preset(changes)
    checked = model.config.changed_settings(model.config.token_merging, changes)
    return _block(_Scope(model, {name: getattr(checked, name.removeprefix(PREFIX)) for name in changes}))


@contextmanager
def _block(scope: _Scope) -> Iterator[None]:
    _SCOPES.set((*_SCOPES.get(), scope))
    _THREAD.open = (*_THREAD.open, scope)
    try:
        yield
    finally:
        # A generator may be closed in another thread or context, from which the block cannot be removed.
        scope.ended = True
        _SCOPES.set(_without(_SCOPES.get(), scope))
        _THREAD.open = _without(_THREAD.open, scope)


def changes_in_scope(model: Any) -> dict[str, Any]:
    """Returns the settings of the blocks around this call; inner blocks override outer ones.

    Args:
        model: The head or base model that is called.

    Returns:
        Names of config fields and their values.

    Raises:
        RuntimeError: If torch.compile compiles the model inside a block of the same thread: a graph cannot distinguish
            the calls of different tasks.
    """
    if torch.compiler.is_dynamo_compiling():
        for scope in _THREAD.open:
            if scope.covers(model):
                _refuse()
        return {}
    return {name: value for scope in _SCOPES.get() if scope.covers(model) for name, value in scope.changes.items()}


@torch.compiler.assume_constant_result
def _refuse() -> None:
    """Raises an error while torch.compile traces, which would turn a traced exception into a graph break."""
    raise RuntimeError(REFUSAL)
