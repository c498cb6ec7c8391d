"""Small trained checkpoints that come with the package, to try everything offline.

They were trained on Moving Digits, a synthetic dataset; each folder includes a model card and a training log.

`hf_video_tome.loading.load_classifier` loads these and any other checkpoint, with the transform of its clips.
"""

from __future__ import annotations

from pathlib import Path

DEFAULT_CHECKPOINT = "videomae-moving-digits"
"""The default checkpoint of commands."""


def available() -> list[str]:
    """Returns the names of the checkpoints that come with the package.

    Returns:
        The names, sorted.

    Examples:
        >>> all(checkpoint_path(name).is_dir() for name in available())
        True
    """
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.json"))


def checkpoint_path(name: str = DEFAULT_CHECKPOINT) -> Path:
    """Returns the folder of a checkpoint that comes with the package, for `from_pretrained`.

    Args:
        name: One of `available()`.

    Returns:
        The folder.

    Raises:
        ValueError: If there is no such checkpoint.

    Examples:
        >>> checkpoint_path("resnet")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: name must be one of the shipped checkpoints (...), got 'resnet'
    """
    names = available()
    if name not in names:
        raise ValueError(f"name must be one of the shipped checkpoints ({', '.join(names) or 'none'}), got {name!r}")
    return Path(__file__).parent / name


__all__ = ["DEFAULT_CHECKPOINT", "available", "checkpoint_path"]
