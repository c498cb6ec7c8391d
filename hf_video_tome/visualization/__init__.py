"""Pictures of merged tokens, drawn from the trace of a forward call.

Names are imported on first use. Only sheets (`save_contact_sheet`, and .png, .pdf and .svg files) need matplotlib:
`pip install "hf-video-tome[viz]"`.

Examples:
    >>> import tempfile
    >>> import torch
    >>> from hf_video_tome.visualization import save_layers, save_tokens, trace_clip
    >>> from hf_video_tome import VideoMAEForVideoClassification
    >>> from hf_video_tome.checkpoints import checkpoint_path
    >>> from hf_video_tome.data import ClipTransform
    >>> checkpoint = checkpoint_path("videomae-moving-digits")
    >>> model = VideoMAEForVideoClassification.from_pretrained(checkpoint, token_merging_r=38).eval()
    >>> frames = torch.randint(256, (model.config.num_frames, 3, 60, 80), dtype=torch.uint8)
    >>> clip = trace_clip(model, frames, ClipTransform.from_pretrained(checkpoint))
    >>> folder = tempfile.mkdtemp()
    >>> save_tokens(f"{folder}/tokens.mp4", clip, fill="distinct").name
    'tokens.mp4'
    >>> save_tokens(f"{folder}/alone.gif", clip, only=clip.largest(2)).name
    'alone.gif'
    >>> save_layers(f"{folder}/layers.gif", clip).name
    'layers.gif'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .animation import write_animation
    from .contact_sheet import save_contact_sheet
    from .merged_tokens import ClipGeometry, identity_colours, merged_tokens_image, model_view, token_map
    from .saving import save_layers, save_tokens
    from .traced_clip import TracedClip, trace_clip

__all__ = [
    "ClipGeometry",
    "TracedClip",
    "identity_colours",
    "merged_tokens_image",
    "model_view",
    "save_contact_sheet",
    "save_layers",
    "save_tokens",
    "token_map",
    "trace_clip",
    "write_animation",
]

__getattr__, __dir__ = lazy_names(__name__)
