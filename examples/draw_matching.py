"""Draws the matching in docs/how-merging-works.md: ten tokens, of which the three best pairs merge.

    python examples/draw_matching.py

Needs `pip install "hf-video-tome[viz]"`. Pairs, similarities and means are computed as in the models.
"""

from __future__ import annotations

import argparse
import colorsys
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hf_video_tome.analysis.drawing import new_figure, save
from hf_video_tome.merging import MergeSettings, TokenLayout, cosine_scores, initial_tokens, merge_tokens

R = 3
# The direction of each token's key, in degrees; its colour is the same on the colour circle.
ANGLES = (12, 22, 35, 130, 260, 250, 95, 310, 195, 222)
GREY = "0.6"


def colours_of(angles: tuple[int, ...]) -> Tensor:
    """Returns the RGB colours, (N, 3)."""
    return torch.tensor([colorsys.hsv_to_rgb(angle / 360, 0.6, 0.95) for angle in angles])


def keys_of(angles: tuple[int, ...]) -> Tensor:
    """Returns the keys as unit vectors, (N, 2)."""
    radians = torch.tensor(angles) * (math.pi / 180)
    return torch.stack((radians.cos(), radians.sin()), dim=-1)


def draw_token(axes: Any, x: float, y: float, colour: Tensor, text: str) -> None:
    """Draws a token as a square around (x, y)."""
    rows, columns = (y - 0.36, y + 0.36), (x - 0.36, x + 0.36)
    axes.fill([columns[0], columns[1], columns[1], columns[0]], [rows[0], rows[0], rows[1], rows[1]],
              facecolor=colour.tolist(), edgecolor="0.2", linewidth=1.2, zorder=3)  # fmt: skip
    axes.text(x, y, text, ha="center", va="center", fontsize=10, zorder=4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder = Path(__file__).parents[1] / "docs" / "visualization"
    parser.add_argument("--output", type=Path, default=folder / "matching.png")
    arguments = parser.parse_args()

    num_tokens = len(ANGLES)
    colours, keys = colours_of(ANGLES), keys_of(ANGLES)
    state = initial_tokens(1, num_tokens, torch.device("cpu"), track=True)
    layout = TokenLayout(num_prefix_tokens=0, num_frames=1, num_patches=num_tokens)
    merged, state = merge_tokens(colours[None], keys[None], R, state, layout, MergeSettings())
    assert state.source is not None  # tracked
    assert state.size is not None  # the mode averages
    best = cosine_scores(keys[None, None])[0, 0].max(dim=-1)
    slots = state.source[0].tolist()

    figure = new_figure(7.6, 3.1)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-3.2, num_tokens - 0.3)
    axes.set_ylim(-4.6, 0.6)
    for token in range(num_tokens):
        draw_token(axes, token, 0 if token % 2 == 0 else -2, colours[token], str(token))
    for pair, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        source, destination = 2 * pair, 2 * index + 1
        wins = slots[source] == slots[destination]
        axes.annotate("", xy=(destination, -1.6), xytext=(source, -0.4), zorder=2, arrowprops={
            "arrowstyle": "-|>", "color": "black" if wins else GREY, "linewidth": 2 if wins else 1,
            "linestyle": "-" if wins else (0, (3, 3)), "shrinkA": 0, "shrinkB": 0,
        })  # fmt: skip
        # Not halfway, where arrows may cross.
        axes.text(source + (destination - source) * 0.25, -0.4 - 1.2 * 0.25, f"{score:.2f}", ha="center", va="center",
                  fontsize=8, color="black" if wins else "0.4",
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8}, zorder=5)  # fmt: skip
    num_left = merged.shape[1]
    for slot in range(num_left):
        members = [str(token) for token in range(num_tokens) if slots[token] == slot]
        x = slot * (num_tokens - 1) / (num_left - 1)
        draw_token(axes, x, -3.7, merged[0, slot], " ".join(members))
        size = int(state.size[0, slot])
        axes.text(x, -4.3, f"size {size}", ha="center", va="center", fontsize=8, color="black" if size > 1 else "0.4")
    for y, text in ((0, "sources:\neven positions"), (-2, "destinations:\nodd positions"),
                    (-3.7, f"after the layer:\n{num_left} of {num_tokens} tokens")):  # fmt: skip
        axes.text(-0.7, y, text, ha="right", va="center", fontsize=9)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    print(save(figure, arguments.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
