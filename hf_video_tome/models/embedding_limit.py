"""Limit on the size of a config: some models compute position embeddings for all tokens when they are built."""

from __future__ import annotations

from typing import Any

from ..merging.values import shown

MAX_EMBEDDINGS = 2**27
"""Largest number of values that the tokens of a clip may have in total."""


def check_embeddings(config: Any) -> None:
    """Checks that the tokens of a clip do not have too many values in total.

    Args:
        config: A config of this package.

    Raises:
        ValueError: If they have more than `MAX_EMBEDDINGS`.

    Examples:
        >>> from hf_video_tome import VideoMAEConfig
        >>> check_embeddings(VideoMAEConfig(num_frames=10**9))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: the tokens of a clip must have at most 134217728 values together, got 98000000000 tokens ...
    """
    clip, tokens, width = config.clip_shape, config.token_layout.num_tokens, config.hidden_size
    if tokens * width > MAX_EMBEDDINGS:
        raise ValueError(
            f"the tokens of a clip must have at most {MAX_EMBEDDINGS} values together, got {shown(tokens)} tokens "
            f"with hidden_size = {shown(width)} for {shown(clip.frames)} frames of {shown(clip.height)} x "
            f"{shown(clip.width)} pixels"
        )
