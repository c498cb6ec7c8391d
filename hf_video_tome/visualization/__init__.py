"""Pictures of merged tokens, drawn from the trace of a forward call.

The names below are imported on first use. Only `save_contact_sheet` needs matplotlib:
`pip install "hf-video-tome[viz]"`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contact_sheet import save_contact_sheet
    from .merged_tokens import ClipGeometry, merged_tokens_image, model_view, token_map

__all__ = ["ClipGeometry", "merged_tokens_image", "model_view", "save_contact_sheet", "token_map"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "contact_sheet" if name == "save_contact_sheet" else "merged_tokens"
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
