"""Layer duplication: what would be merged if one layer decided alone?

The merge decision of one layer is repeated as often as there are layers, with no attention and no MLP in between, as
in figure 4 of "Video, How Do Your Tokens Merge?" (CVPRW 2025). What the layers would do can then be compared: which of
them go by colour, which by place, which along time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..merging.layout import TokenLayout
from ..merging.setting_error import SettingError
from ..merging.step import MergeSettings, merge_tokens
from ..merging.tokens import initial_tokens
from ..merging.trace import TokenMergingTrace, build_trace
from ..visualization import ClipGeometry, save_contact_sheet, token_map
from .clips import Clips, merging, normalized, run_clips, seeded
from .drawing import COLOURS, GREY, add_legend, add_note, new_figure, save, tidy
from .estimates import Estimate, estimate
from .keys import unmerged_keys
from .partners import Floats, matched_sets, partner_mean, random_partner_mean

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

MEASURES = {
    "colour_distance": "difference of mean colours (0 to 255)",
    "spatial_distance": "distance in the frame (patches)",
    "other_slot_share": "share in another time slot",
    "key_similarity": "cosine similarity of the layer's keys",
}
"""What is measured between a token and its partners, each with what it is called in pictures."""


@dataclass(frozen=True)
class LayerMeasure:
    """One measure of the merges that one layer would make.

    Attributes:
        layer: Number of the layer, from 1; None for the model itself, whose layers decide one after the other.
        measure: One of `MEASURES`.
        merged: Mean over clips of the mean over merged tokens and their partners.
        random: The same for random merges with groups of the same sizes, exactly (`random_partner_mean`).
    """

    layer: int | None
    measure: str
    merged: Estimate
    random: Estimate


@dataclass(frozen=True)
class LayerStudy:
    """What all layers would merge.

    Attributes:
        num_layers: Layers that can merge.
        measures: For each layer and for the model itself.
        examples: For the first clips: from the name of each row ("layer 1", ..., "model") to its trace.
        token_counts: Tokens before the first and after each repetition.
        clips: Number of clips.
    """

    num_layers: int
    measures: tuple[LayerMeasure, ...]
    examples: tuple[dict[str, TokenMergingTrace], ...]
    token_counts: tuple[int, ...]
    clips: int

    def rows(self) -> list[dict[str, Any]]:
        """The measures as rows of a table, JSON-safe."""
        return [
            {
                "layer": "model" if entry.layer is None else entry.layer,
                "measure": entry.measure,
                "merged": entry.merged.value,
                "merged_standard_error": entry.merged.standard_error,
                "random": entry.random.value,
                "random_standard_error": entry.random.standard_error,
                "clips": entry.merged.clips,
            }
            for entry in self.measures
        ]


def duplicate_layer(
    keys: Tensor,
    requested: Sequence[int],
    layout: TokenLayout,
    settings: MergeSettings,
    generator: torch.Generator | None = None,
) -> TokenMergingTrace:
    """Repeats the merge decision of one layer without anything in between.

    The key of a merged token is the weighted mean of those of its parts. (In the model it would be computed from the
    weighted mean of their states; but for the normalisation in between that is the same.)

    Args:
        keys: (B, N, D) float keys of the layer, from `unmerged_keys`.
        requested: Tokens to remove from each matched set, one number for each repetition.
        layout: Token layout of a clip.
        settings: How to merge.
        generator: Random number generator of the random modes; the global one when None.

    Returns:
        The trace: entry i after i repetitions.

    Examples:
        >>> keys = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
        >>> layout = TokenLayout(0, num_frames=1, num_patches=4)
        >>> trace = duplicate_layer(keys, [2, 1], layout, MergeSettings())
        >>> trace.layer_sources[1].tolist(), trace.token_counts
        ([[0, 0, 1, 1]], (4, 2, 1))
    """
    state = initial_tokens(len(keys), keys.shape[1], keys.device, track=True)
    states, counts = [state], [keys.shape[1]]
    for r in requested:
        keys, state = merge_tokens(keys, keys, r, state, layout, settings, generator)
        states.append(state)
        counts.append(keys.shape[1])
    return build_trace(states, counts, keys.dtype)


def tubelet_colours(frames: Tensor, geometry: ClipGeometry) -> Floats:
    """Mean colour of what each token shows.

    Args:
        frames: (T, 3, H, W) uint8.
        geometry: Geometry of the tokens of the clip.

    Returns:
        (N, 3) float, 0 to 255, slot by slot.

    Examples:
        >>> frames = torch.zeros(2, 3, 4, 8, dtype=torch.uint8)
        >>> frames[:, 0, :, 4:] = 10
        >>> geometry = ClipGeometry(TokenLayout(0, num_frames=1, num_patches=2), rows=1, columns=2)
        >>> tubelet_colours(frames, geometry).tolist()
        [[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]]
    """
    slots, rows, columns = geometry.layout.num_frames, geometry.rows, geometry.columns
    depth, height, width = len(frames) // slots, frames.shape[2] // rows, frames.shape[3] // columns
    pixels = frames.cpu().numpy().reshape(slots, depth, 3, rows, height, columns, width)
    return np.asarray(pixels.mean(axis=(1, 4, 6), dtype=np.float64).transpose(0, 2, 3, 1).reshape(-1, 3))


def place_distances(geometry: ClipGeometry) -> dict[str, Floats]:
    """For each pair of tokens, how far apart they lie in the frame, and whether they lie in different time slots.

    Args:
        geometry: Geometry of the tokens of the clip.

    Returns:
        "spatial_distance" and "other_slot_share", (N, N) float each.
    """
    shape = (geometry.layout.num_frames, geometry.rows, geometry.columns)
    slot, row, column = (axis.reshape(-1) for axis in np.indices(shape))
    return {
        "spatial_distance": np.hypot(row[:, None] - row, column[:, None] - column),
        "other_slot_share": (slot[:, None] != slot).astype(np.float64),
    }


def _similarities(keys: Floats) -> Floats:
    unit = keys / np.maximum(np.linalg.norm(keys, axis=-1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(unit @ unit.T)


def study_layers(
    model: Any,
    transform: ClipTransform,
    clips: Clips,
    settings: Mapping[str, Any],
    *,
    batch_size: int = 8,
    seed: int = 0,
    num_examples: int = 1,
    on_progress: Callable[[], None] = lambda: None,
) -> LayerStudy:
    """Measures what each layer of a model would merge by itself, and what the model really merges.

    Args:
        model: A classifier that can merge tokens, in eval mode. Its settings are restored afterwards.
        transform: Transform that normalises frames.
        clips: The clips.
        settings: How to merge, as for `set_token_merging`. The r of all layers are the r of the repetitions.
        batch_size: Number of clips per batch.
        seed: Seed of the random modes.
        num_examples: Number of clips whose traces are kept.
        on_progress: Called after each batch.

    Returns:
        The study.

    Raises:
        ValueError: If the settings merge nothing.
    """
    values: dict[tuple[int | None, str], list[tuple[float, float]]] = {}
    examples: list[dict[str, TokenMergingTrace]] = []
    with merging(model, settings):
        config = model.config
        plan, geometry = config.token_merging_plan(), ClipGeometry.from_config(config)
        if not any(plan.requested):
            raise SettingError("r", config.token_merging_r, "one that removes tokens for layers to be compared")
        places = place_distances(geometry)
        sets = matched_sets(geometry.layout, plan.settings.scope).reshape(-1)
        outputs = run_clips(
            model, transform, clips.frames, batch_size=batch_size, seed=seed, output_token_merging=True
        )
        inputs = normalized(model, transform, clips.frames, batch_size)
        for (numbers, output), (_, pixel_values) in zip(outputs, inputs, strict=True):
            layer_keys = unmerged_keys(model, pixel_values)
            traces: dict[int | None, TokenMergingTrace] = {}
            for layer, keys in enumerate(layer_keys, start=1):
                with seeded(keys.device, seed, numbers.start, layer):
                    traces[layer] = duplicate_layer(keys, plan.requested, plan.layout, plan.settings)
            traces[None] = output.token_merging
            for sample, number in enumerate(numbers):
                colours = tubelet_colours(clips.frames[number], geometry)
                pairs = {"colour_distance": np.abs(colours[:, None] - colours).mean(-1), **places}
                for row, trace in traces.items():
                    groups = token_map(trace, geometry.layout, sample=sample).reshape(-1)
                    own = dict(pairs)
                    if row is not None:
                        # `token_map` of a trace of which nothing is merged says where each patch is in the sequence.
                        order = token_map(trace, geometry.layout, layer=0, sample=sample).reshape(-1)
                        own["key_similarity"] = _similarities(
                            layer_keys[row - 1][sample].double().cpu().numpy()[order]
                        )
                    for measure, pair_values in own.items():
                        values.setdefault((row, measure), []).append(
                            (partner_mean(groups, pair_values), random_partner_mean(groups, sets, pair_values))
                        )
                if len(examples) < num_examples:
                    examples.append({_row_name(row): _one(trace, sample) for row, trace in traces.items()})
            on_progress()
    measures = []
    for (row, measure), found in values.items():
        merged, by_chance = zip(*found, strict=True)
        measures.append(LayerMeasure(row, measure, estimate(merged), estimate(by_chance)))
    counts = next(iter(examples[0].values())).token_counts if examples else ()
    return LayerStudy(config.num_merging_layers, tuple(measures), tuple(examples), counts, len(clips))


def _row_name(layer: int | None) -> str:
    return "model" if layer is None else f"layer {layer}"


def _one(trace: TokenMergingTrace, sample: int) -> TokenMergingTrace:
    """The trace of one clip of a batch."""
    part = slice(sample, sample + 1)
    return TokenMergingTrace(
        tuple(source[part].cpu() for source in trace.layer_sources),
        tuple(size[part].cpu() for size in trace.layer_sizes),
    )


def draw_layers(study: LayerStudy, path: str | os.PathLike[str], *, title: str = "", note: str = "") -> Path:
    """Draws each measure over the layers, beside what random merges would give.

    Args:
        study: The measurements.
        path: Output file; the suffix selects the format.
        title: Text above the plots.
        note: Text below the plots.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    names = list(dict.fromkeys(entry.measure for entry in study.measures))
    figure = new_figure(2.9 * len(names), 3.1)
    layers = list(range(1, study.num_layers + 1))
    for axes, measure in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        found = {entry.layer: entry for entry in study.measures if entry.measure == measure}
        for kind, colour, style in (("random", GREY, "--"), ("merged", COLOURS[0], "-")):
            points = [getattr(found[layer], kind) for layer in layers]
            axes.errorbar(
                layers,
                [np.nan if point.value is None else point.value for point in points],
                [point.standard_error or 0 for point in points],
                color=colour,
                linestyle=style,
                marker="o" if kind == "merged" else "",
                markersize=4,
                capsize=2,
                label={"random": "random merges", "merged": "one layer, repeated"}[kind],
            )
        model = found.get(None)
        if model is not None and model.merged.value is not None:
            axes.axhline(model.merged.value, color=COLOURS[1], linewidth=1.2, label="the model")
        tidy(axes)
        axes.set_title(MEASURES[measure], fontsize=8.5)
        axes.set_xlabel("layer", fontsize=8)
        axes.set_xticks(layers)
        axes.margins(y=0.1)
        if measure == "other_slot_share":
            axes.set_ylim(0, 1)
        elif measure != "key_similarity":
            axes.set_ylim(bottom=0)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    add_legend(figure, dict(zip(labels, handles, strict=True)), 0.05)
    figure.suptitle(title, fontsize=10, parse_math=False)
    add_note(figure, note)
    figure.subplots_adjust(left=0.05, right=0.99, top=0.84, bottom=0.28, wspace=0.25)
    return save(figure, path)


def save_layer_groups(
    study: LayerStudy,
    path: str | os.PathLike[str],
    clips: Clips,
    geometry: ClipGeometry,
    *,
    example: int = 0,
    title: str = "",
    note: str = "",
    max_frames: int = 6,
) -> Path:
    """Draws which tokens each layer would merge, one row of frames for each.

    Args:
        study: The measurements.
        path: Output file; the suffix selects the format.
        clips: The clips of the study.
        geometry: Geometry of the tokens of a clip.
        example: Which of the study's examples.
        title: Text above the plots.
        note: Text below the plots.
        max_frames: Largest number of frames to show, evenly spaced.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    return save_contact_sheet(
        path,
        clips.frames[example],
        study.examples[example],
        geometry,
        title=title,
        note=note,
        max_frames=max_frames,
    )
