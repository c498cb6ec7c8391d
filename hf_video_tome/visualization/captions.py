"""Captions of pictures of tokens, and functions to draw text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL.ImageFont import FreeTypeFont


def describe_prediction(logits: torch.Tensor, config: Any) -> str:
    """Describes the most likely label with its probability, one per task of a multi-task head.

    Args:
        logits: (num_labels,) of one clip.
        config: Config of the classifier.

    Returns:
        One line without a full stop.

    Examples:
        >>> import torch
        >>> from transformers import VideoMAEConfig
        >>> describe_prediction(torch.tensor([0.0, 2.0]), VideoMAEConfig(id2label={0: "walk", 1: "run"}))
        "'run' (88.1 %)"
    """
    from ..tasks import SINGLE_TASK, predict_labels

    answers = []
    for task, (best,) in predict_labels(logits, config).items():
        prefix = "" if task == SINGLE_TASK else f"{task} "
        answers.append(f"{prefix}{best.label!r} ({100 * best.probability:.1f} %)")
    return ", ".join(answers)


@cache
def load_font(size: int) -> FreeTypeFont:
    """Returns the font of captions: that of matplotlib if installed, which covers most scripts, else that of Pillow.

    Args:
        size: Height in pixels.

    Returns:
        The font.
    """
    from PIL import ImageFont

    matplotlib = find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin:
        path = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    font = ImageFont.load_default(size)
    assert not isinstance(font, ImageFont.ImageFont)  # Pillow without FreeType has no scalable font
    return font


def wrap_text(text: str, width: float, length: Callable[[str], float]) -> list[str]:
    """Wraps text to a width; words that are wider are broken too.

    Words are broken after the last hyphen, slash, underscore, full stop or comma that leaves a line at least half
    full, if any.

    Args:
        text: Text; its line breaks are kept.
        width: Largest width of a line.
        length: Returns the width of a text.

    Returns:
        The lines.

    Examples:
        >>> wrap_text("one two three", 7, len)
        ['one two', 'three']
        >>> wrap_text("abcdefghij", 4, len)
        ['abcd', 'efgh', 'ij']
        >>> wrap_text("my-long-model", 8, len)
        ['my-long-', 'model']
    """
    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            if line and length(f"{line} {word}") <= width:
                line = f"{line} {word}"
                continue
            if line:
                lines.append(line)
            while length(word) > width and len(word) > 1:
                cut = max([end for end in range(1, len(word)) if length(word[:end]) <= width], default=1)
                cut = max([end for end in range((cut + 1) // 2, cut + 1) if word[end - 1] in "-/_.,"], default=cut)
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        if line:
            lines.append(line)
    return lines
