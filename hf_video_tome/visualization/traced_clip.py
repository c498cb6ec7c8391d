"""Traced clip: the frames of a clip and the trace of its tokens, from which all pictures are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..describe import describe_settings
from ..merging.trace import TokenMergingTrace
from ..models.pixel_dtype import pixel_dtype
from .captions import describe_prediction
from .colours import are_shared
from .merged_tokens import ClipGeometry, count_places, identity_colours, merged_tokens_image, model_view, token_map

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform


@dataclass(frozen=True)
class TracedClip:
    """Frames of a clip with the trace of its tokens.

    Attributes:
        frames: (T, 3, H, W) uint8 RGB frames as the model saw them (see `model_view`).
        trace: Trace of the model.
        geometry: Geometry of the tokens of the clip.
        sample: Index of the clip in the batch of the trace.
        name: Name of the model in captions.
        settings: Description of the merging settings, for captions.
        prediction: Description of the prediction, for captions; empty without a head.

    Raises:
        ValueError: If frames, trace and geometry do not fit each other.
    """

    frames: torch.Tensor
    trace: TokenMergingTrace
    geometry: ClipGeometry
    sample: int = 0
    name: str = ""
    settings: str = ""
    prediction: str = ""

    def __post_init__(self) -> None:
        self.geometry.check(self.trace, self.frames)

    @property
    def num_layers(self) -> int:
        """Number of layers of the model, L."""
        return len(self.trace.layer_sources) - 1

    @cached_property
    def crosses_frames(self) -> bool:
        """Whether any token spans several frames after the last layer, as with scope "clip"."""
        return bool((count_places(self.tokens())[1] > 1).any())

    @cached_property
    def is_divided(self) -> bool:
        """Whether tokens do not cross frames and all frames have equally many, as with scope "frame"."""
        last = self.tokens()
        left = {len(np.unique(slot[slot >= 0])) for slot in last}
        return not self.crosses_frames and len(left) == 1 and left != {last[0].size}

    @cached_property
    def is_shared(self) -> bool:
        """Whether tokens do not cross frames and all frames are divided equally, as with scope "tube"."""
        return are_shared([self.tokens(layer) for layer in range(self.num_layers + 1)])

    @cached_property
    def colours(self) -> list[np.ndarray]:
        """Colour of each token of each layer, see `identity_colours`."""
        return identity_colours(self.trace, self.geometry, sample=self.sample)

    def tokens(self, layer: int = -1) -> np.ndarray:
        """Returns the map from the patches of the clip to tokens.

        Args:
            layer: Index of the hidden states: -1 after the last layer, 0 before the first.

        Returns:
            (S, rows, columns) int64, positions in the sequence, -1 if dropped, for S frames or tubelets along time.
        """
        tokens = token_map(self.trace, self.geometry.layout, layer=layer, sample=self.sample)
        return tokens.reshape(-1, self.geometry.rows, self.geometry.columns)

    def token_at(self, frame: int, x: int, y: int, layer: int = -1) -> int:
        """Returns the token that holds a pixel.

        Args:
            frame: Index of the frame, from 0.
            x: Column of the pixel in `frames`, from 0 at the left.
            y: Row, from 0 at the top.
            layer: Index of the hidden states.

        Returns:
            Its position in the sequence.

        Raises:
            ValueError: If there is no such pixel, or its token was dropped.
        """
        num_frames, _, height, width = self.frames.shape
        for name, number, stop in (("frame", frame, num_frames), ("x", x, width), ("y", y, height)):
            if not 0 <= number < stop:
                raise ValueError(
                    f"{name} must be in 0 to {stop - 1} (the model sees {num_frames} frames of {height} x {width} "
                    f"pixels), got {number}"
                )
        tokens = self.tokens(layer)
        slots, rows, columns = tokens.shape
        token = int(tokens[frame * slots // num_frames, y * rows // height, x * columns // width])
        if token < 0:
            raise ValueError(f"frame, x and y must be of a token that was not dropped, got {frame}, {x} and {y}")
        return token

    def largest(self, count: int, layer: int = -1) -> list[int]:
        """Returns the largest tokens of the clip, or of each frame if no token crosses frames.

        Args:
            count: Number of tokens (per frame, if no token crosses frames), at least 1.
            layer: Index of the hidden states.

        Returns:
            Their positions in the sequence, the largest first; fewer if there are no more.

        Raises:
            ValueError: If `count` is less than 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        tokens = self.tokens(layer)
        chosen: list[int] = []
        for part in tokens[None] if self.crosses_frames else tokens[:, None]:
            places, _ = count_places(part)
            order = np.argsort(-places, kind="stable")[:count]
            chosen += order[places[order] > 0].tolist()
        return chosen

    def extent(self, token: int, layer: int = -1) -> tuple[int, int]:
        """Returns the extent of a token in the clip.

        Args:
            token: Position in the sequence.
            layer: Index of the hidden states.

        Returns:
            The number of original tokens (patches) that it stands for, and the number of frames that it spans.

        Raises:
            ValueError: If it holds no patch of the clip: there is no such token, or it is a CLS token.
        """
        held = self.tokens(layer) == token
        if not held.any():
            count = self.trace.layer_sizes[layer].shape[1]
            prefix = self.geometry.layout.num_prefix_tokens
            raise ValueError(
                f"token must be in {prefix} to {count - 1}, which hold patches of the clip after this layer, got "
                f"{token}"
            )
        frames_per_slot = self.frames.shape[0] // len(held)
        return int(held.sum()), int(held.any(axis=(1, 2)).sum()) * frames_per_slot

    def draw(self, *, layer: int = -1, **options: Any) -> np.ndarray:
        """Draws the tokens.

        Args:
            layer: Index of the hidden states.
            **options: How, as for `merged_tokens_image`: `fill`, `only`, `shown`, `scale` and `outline`.

        Returns:
            (T, H * scale, W * scale, 3) uint8 RGB.
        """
        clip, colours = (self.frames, self.trace, self.geometry), self.colours[layer]
        return merged_tokens_image(*clip, layer=layer, sample=self.sample, colours=colours, **options)


def trace_clip(model: Any, frames: torch.Tensor, transform: ClipTransform, *, name: str = "") -> TracedClip:
    """Runs a model on a clip and records which tokens it merged or dropped.

    Args:
        model: A model that can merge tokens, with or without a head, in eval mode.
        frames: (T, 3, H, W) uint8 RGB frames of any size, as many as the model needs.
        transform: Transform from frames to model input.
        name: Name of the model in captions; its model type when empty.

    Returns:
        The clip with its trace.

    Raises:
        ValueError: If the frames do not fit the model.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig, VideoMAEForVideoClassification
        >>> from hf_video_tome.data import ClipTransform
        >>> config = VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16, num_hidden_layers=2,
        ...                         num_attention_heads=2, intermediate_size=32, token_merging_r=10)
        >>> model = VideoMAEForVideoClassification(config).eval()
        >>> frames = torch.randint(256, (4, 3, 48, 64), dtype=torch.uint8)
        >>> clip = trace_clip(model, frames, ClipTransform(resize=32, crop=(32, 32)))
        >>> clip.settings, clip.trace.token_counts
        ('merge, r = 10 per layer, constant schedule, scope clip', (32, 22, 12))
        >>> clip.token_at(frame=3, x=31, y=31) in range(12)
        True
    """
    pixel_values = transform(frames)[None].to(model.device, pixel_dtype(model))
    with torch.inference_mode():
        out = model(pixel_values, output_token_merging=True)
    logits = getattr(out, "logits", None)
    return TracedClip(
        model_view(frames, transform),
        out.token_merging,
        ClipGeometry.from_config(model.config),
        name=name or model.config.model_type,
        settings=describe_settings(model.config.token_merging_settings(True, model.current_token_merging())),
        prediction="" if logits is None else describe_prediction(logits[0].cpu(), model.config),
    )
