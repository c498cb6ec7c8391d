"""Pictures of merged tokens, drawn from the trace of a forward call.

The names below are imported on first use. Only `save_contact_sheet` needs matplotlib:
`pip install "hf-video-tome[viz]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .contact_sheet import save_contact_sheet
    from .merged_tokens import ClipGeometry, merged_tokens_image, model_view, token_map

__all__ = ["ClipGeometry", "merged_tokens_image", "model_view", "save_contact_sheet", "token_map"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "contact_sheet": ["save_contact_sheet"],
        "merged_tokens": ["ClipGeometry", "merged_tokens_image", "model_view", "token_map"],
    },
)
