"""Clip splicing: does merging depend on appearance or on meaning?

Some tubelets of a clip are replaced by the same tubelets of another clip, as in figure 5 of "Video, How Do Your Tokens
Merge?" (CVPRW 2025), to count how many tokens merge across the splice. If merging depended on meaning, a clip of the
same class would merge across more than any other.

Clips of the same class may look similar, so the clip with the nearest colours is spliced in too. Further controls are
the clip itself, which shows what merges across anyway, and random merging, which shows chance.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..merging.setting_error import SettingError
from ..metrics.likelihood import kl_divergence, log_probabilities
from ..tasks import Task
from ..visualization import ClipGeometry, token_map
from ..visualization.contact_sheet import save_sheet, sheet_scale, spread_frames
from .clips import Clips, logits_of, merging, run_clips
from .drawing import COLOURS, GREY, add_note, new_figure, save, tidy
from .estimates import Estimate, estimate
from .layers import tubelet_colours
from .partners import Floats, Ints, matched_sets, partner_mean, partner_means, random_partner_mean

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform
    from ..evaluation import Examples

Mask = NDArray[np.bool_]

REGIONS = ("tubelets", "time", "space")
"""Regions to replace: random tubelets, the last tubelets along time, or the right columns of all frames."""
ITSELF, COLOURS_ALIKE, SAME_CLASS, MOST_SIMILAR, RANDOM = KINDS = (
    "itself",
    "nearest colours",
    "same class",
    "most similar prediction",
    "random",
)
"""Kinds of clips to splice in."""
_KIND_NAMES = {
    ITSELF: "itself\n(control)",
    COLOURS_ALIKE: "nearest\ncolours",
    SAME_CLASS: "same\nclass",
    MOST_SIMILAR: "most similar\nprediction",
    RANDOM: "random\nclip",
}
_SPLICE_COLOUR = (255, 255, 255)
_ALONE_COLOUR = (70, 70, 70)


@dataclass(frozen=True)
class Splice:
    """Clip with a part of another clip.

    Attributes:
        clip: Number of the clip.
        partner: Number of the spliced-in clip.
        kind: One of `KINDS`.
        same_class: Whether both have the same class; None if a class is unknown.
        divergence: KL divergence of the partner's predicted distribution from the clip's, in nats.
        colour_difference: Mean difference of the mean colours of the replaced tubelets, 0 to 255.
        across: Share of a token's partners on the other side of the splice; mean over merged tokens. NaN if nothing
            was merged.
        random: Expected `across` for random merges with groups of the same sizes.
        merged: Share of the tokens that were merged with others.
    """

    clip: int
    partner: int
    kind: str
    same_class: bool | None
    divergence: float
    colour_difference: float
    across: float
    random: float
    merged: float


@dataclass(frozen=True)
class SpliceExample:
    """Data for drawing a splice.

    Attributes:
        splice: The measurements.
        frames: (T, 3, H, W) uint8 spliced clip.
        groups: (T', P) int, merged token that holds each tubelet, negative if dropped.
    """

    splice: Splice
    frames: Tensor
    groups: Ints


@dataclass(frozen=True)
class SpliceStudy:
    """Splices of all clips.

    Attributes:
        splices: All splices.
        masks: (T', P) bool for each clip with examples, True for replaced tubelets.
        examples: Examples of the first clips, one of each kind.
        left_out: Number of clips without another clip of their class.
    """

    splices: tuple[Splice, ...]
    masks: tuple[Mask, ...]
    examples: tuple[tuple[SpliceExample, ...], ...]
    left_out: int

    def rows(self) -> list[dict[str, Any]]:
        """Returns one JSON-safe row per splice."""
        return [
            {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
            for row in map(asdict, self.splices)
        ]

    def values(self, kind: str, name: str) -> Floats:
        """Returns one value per clip, in the order of the clips."""
        return np.array([getattr(splice, name) for splice in self.splices if splice.kind == kind], dtype=np.float64)

    def summary(self) -> dict[str, Any]:
        """Returns means over clips with standard errors, and differences between kinds on the same clips.

        Returns:
            For each kind: `across`, `random_merging`, `ratio` of the two, `same_class` (share of partners with the
            clip's class), `colour_difference`, and the difference of `across` to that of a random clip and that of the
            clip itself.
        """
        kinds = {}
        for kind in KINDS:
            across, chance = self.values(kind, "across"), self.values(kind, "random")
            known = [splice.same_class for splice in self.splices if splice.kind == kind]
            kinds[kind] = {
                "across": estimate(across)._asdict(),
                "random_merging": estimate(chance)._asdict(),
                "ratio": estimate(across / chance)._asdict(),
                "same_class": None if None in known else float(np.mean([bool(same) for same in known])),
                "colour_difference": estimate(self.values(kind, "colour_difference"))._asdict(),
                "minus_random_clip": self.difference(kind, RANDOM)._asdict(),
                "minus_itself": self.difference(kind, ITSELF)._asdict(),
            }
        return {"kinds": kinds, "left_out": self.left_out}

    def difference(self, kind: str, other: str) -> Estimate:
        """Returns the mean difference of `across` between two kinds of splices of the same clips."""
        return estimate(self.values(kind, "across") - self.values(other, "across"))


def splice_mask(geometry: ClipGeometry, region: str, share: float, rng: np.random.Generator) -> Mask:
    """Chooses the tubelets to replace.

    Args:
        geometry: Geometry of the tokens of a clip.
        region: One of `REGIONS`.
        share: Share of the clip to replace, 0 to 1; rounded to whole tubelets, time slots or columns.
        rng: Random number generator of "tubelets".

    Returns:
        (T, P) bool.

    Raises:
        ValueError: If the region is unknown, or the share leaves nothing on one side.

    Examples:
        >>> from hf_video_tome.merging import TokenLayout
        >>> geometry = ClipGeometry(TokenLayout(0, num_frames=2, num_patches=4), rows=2, columns=2)
        >>> splice_mask(geometry, "space", 0.5, np.random.default_rng(0)).astype(int).tolist()
        [[0, 1, 0, 1], [0, 1, 0, 1]]
    """
    slots, rows, columns = geometry.layout.num_frames, geometry.rows, geometry.columns
    sizes = {"tubelets": slots * rows * columns, "time": slots, "space": columns}
    if region not in sizes:
        raise ValueError(f"region must be one of {', '.join(map(repr, REGIONS))}, got {region!r}")
    size = sizes[region]
    count = round(share * size) if 0 < share < 1 else 0
    if not 0 < count < size:
        raise ValueError(
            f"share must leave tubelets of both clips: between {0.5 / size:.3g} and {1 - 0.5 / size:.3g} for region "
            f"{region!r} of these clips, got {share!r}"
        )
    mask = np.zeros((slots, rows, columns), dtype=bool)
    if region == "tubelets":
        mask.reshape(-1)[rng.permutation(size)[:count]] = True
    elif region == "time":
        mask[slots - count :] = True
    else:
        mask[:, :, columns - count :] = True
    return mask.reshape(slots, rows * columns)


def check_splicing(config: Any, region: str, share: float) -> str:
    """Checks that tokens can merge across a splice, before any clip is read.

    Args:
        config: Config of the model, with the settings.
        region: Region to replace, one of `REGIONS`.
        share: Share of the clip to replace, 0 to 1.

    Returns:
        The scope in which tokens merge.

    Raises:
        ValueError: If the settings merge nothing or never across the region, the region is unknown, or the share
            leaves nothing on one side.
    """
    plan = config.token_merging_plan()
    if not any(plan.requested):
        raise SettingError("r", config.token_merging_r, "one that removes tokens for something to merge")
    scope = plan.settings.scope
    if (region, scope) in (("time", "frame"), ("time", "tube"), ("space", "time")):
        raise SettingError(
            "region", region, "another", given={"scope": scope}, because="with which nothing can merge across it"
        )
    splice_mask(ClipGeometry.from_config(config), region, share, np.random.default_rng(0))
    return str(scope)


def _pixel_mask(mask: NDArray[Any], frames: Tensor, geometry: ClipGeometry) -> NDArray[Any]:
    """Expands a mask from tubelets to pixels: (T, H, W)."""
    num_frames, _, height, width = frames.shape
    grid = mask.reshape(-1, geometry.rows, geometry.columns)
    return (
        grid.repeat(num_frames // len(grid), 0).repeat(height // geometry.rows, 1).repeat(width // geometry.columns, 2)
    )


def splice_frames(frames: Tensor, other: Tensor, mask: Mask, geometry: ClipGeometry) -> Tensor:
    """Replaces tubelets of a clip by the same tubelets of another clip.

    Args:
        frames: (T, 3, H, W) uint8.
        other: The frames of the other clip.
        mask: (T', P) bool, True for tubelets of the other clip.
        geometry: Geometry of the tokens of a clip.

    Returns:
        (T, 3, H, W) uint8.
    """
    return torch.where(torch.from_numpy(_pixel_mask(mask, frames, geometry))[:, None], other, frames)


def crossings(groups: NDArray[Any], mask: Mask, sets: NDArray[Any]) -> tuple[float, float, float]:
    """Measures how much merges across a splice.

    Args:
        groups: (T, P) int, merged token that holds each tubelet; negative if dropped.
        mask: (T, P) bool, side of the splice of each tubelet.
        sets: (T, P) int, matched set of each tubelet.

    Returns:
        The share across, the expected share for random merging, and the share of merged tokens, as in `Splice`.

    Examples:
        >>> crossings(np.array([[0, 0, 1, 1]]), np.array([[False, False, False, True]]), np.zeros((1, 4)))
        (0.5, 0.5, 1.0)
    """
    side, holder = mask.reshape(-1), groups.reshape(-1)
    pairs = side[:, None] != side
    merged = float((~np.isnan(partner_means(holder, pairs))).mean())
    return partner_mean(holder, pairs), random_partner_mean(holder, sets.reshape(-1), pairs), merged


def divergences(logits: NDArray[Any], tasks: Sequence[Task]) -> Floats:
    """Computes the KL divergence between all pairs of predictions, summed over tasks.

    Args:
        logits: (n, outputs) float.
        tasks: Tasks of the classifier.

    Returns:
        (n, n) float in nats; entry (i, j) is KL(i || j).

    Examples:
        >>> divergences(np.log([[0.5, 0.5], [0.25, 0.75]]), [Task("label", 0, 2)]).round(3).tolist()
        [[0.0, 0.144], [0.131, 0.0]]
    """
    total = np.zeros((len(logits), len(logits)))
    for task in tasks:
        logs = log_probabilities(torch.from_numpy(logits[:, task.start : task.stop]).double())
        total += np.stack([kl_divergence(own.expand_as(logs), logs).numpy() for own in logs])
    return total


def colour_differences(colours: NDArray[Any], masks: Sequence[Mask]) -> Floats:
    """Computes the colour differences of all pairs of clips in the replaced tubelets.

    Args:
        colours: (n, N, 3) float mean colours of the tubelets of each clip.
        masks: Replaced tubelets of each clip, (T, P) bool each.

    Returns:
        (n, n) float.
    """
    places = [mask.reshape(-1) for mask in masks]
    return np.stack(
        [np.abs(colours[:, place] - own[place]).mean(axis=(1, 2)) for own, place in zip(colours, places, strict=True)]
    )


def whole_classes(examples: Examples, num_classes: int, per_class: int) -> Examples:
    """Chooses videos so that there are several of each class.

    Args:
        examples: All videos.
        num_classes: Number of classes, spread evenly over those with at least two videos; fewer if there are not
            enough.
        per_class: Number of videos per class, the first ones; fewer if there are not enough.

    Returns:
        The chosen videos, in the order of the dataset.

    Raises:
        ValueError: If a number is too small, or no class has two videos.
    """
    if num_classes < 1 or per_class < 2:
        raise ValueError(f"there must be 1 class and 2 clips of it at least, got {num_classes} and {per_class}")
    members: dict[tuple[int, ...], list[int]] = {}
    for position, example in enumerate(examples.videos):
        if example.labels is not None:
            members.setdefault(example.labels, []).append(position)
    classes = sorted(label for label, positions in members.items() if len(positions) > 1)
    if not classes:
        raise ValueError("no class of the dataset has two videos whose labels are known")
    count = min(num_classes, len(classes))
    chosen = [classes[number * len(classes) // count] for number in range(count)]
    positions = sorted(position for label in chosen for position in members[label][:per_class])
    return replace(examples, videos=tuple(examples[position] for position in positions))


def choose_partners(
    labels: Sequence[tuple[int, ...] | None],
    divergence: NDArray[Any],
    colour_difference: NDArray[Any],
    rng: np.random.Generator,
) -> dict[int, dict[str, int]]:
    """Chooses the clips to splice into each clip.

    Args:
        labels: Labels of the clips.
        divergence: (n, n), from `divergences`.
        colour_difference: (n, n), from `colour_differences`.
        rng: Random number generator.

    Returns:
        For each clip that is not the only one of its class, its partner of each kind: itself; the other clip with the
        nearest colours; a random other clip of its class; the other clip with the nearest predicted distribution; a
        random other clip of any class.

    Raises:
        ValueError: If no two clips have the same class.
    """
    chosen = {}
    for clip, label in enumerate(labels):
        same = [
            other for other in range(len(labels)) if other != clip and label is not None and labels[other] == label
        ]
        # Drawn for every clip, so that its partners do not depend on which other clips are skipped.
        draws = rng.random(2)
        if not same:
            continue
        others = [other for other in range(len(labels)) if other != clip]
        chosen[clip] = {
            ITSELF: clip,
            COLOURS_ALIKE: _nearest(colour_difference[clip], others),
            SAME_CLASS: same[int(draws[0] * len(same))],
            MOST_SIMILAR: _nearest(divergence[clip], others),
            RANDOM: others[int(draws[1] * len(others))],
        }
    if not chosen:
        raise ValueError(
            f"none of the {len(labels)} clips has another of its class to be spliced with; more clips may have"
        )
    return chosen


def _nearest(distances: NDArray[Any], others: Sequence[int]) -> int:
    return min(others, key=lambda other: (distances[other], other))


def study_splices(
    model: Any,
    transform: ClipTransform,
    clips: Clips,
    settings: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    region: str = "tubelets",
    share: float = 0.5,
    batch_size: int = 8,
    seed: int = 0,
    num_examples: int = 2,
    on_progress: Callable[[], None] = lambda: None,
) -> SpliceStudy:
    """Splices each clip with itself, a similar one, one of its class, one with a similar prediction, and a random one.

    Args:
        model: A classifier that can merge tokens, in eval mode. Its settings are restored afterwards.
        transform: Transform that normalises frames.
        clips: The clips, among which partners are chosen, with predictions of the unmerged model.
        settings: How to merge, as for `set_token_merging`.
        tasks: Tasks of the classifier.
        region: Region to replace, one of `REGIONS`.
        share: Share of the clip to replace, 0 to 1.
        batch_size: Number of clips per batch.
        seed: Seed of the partners, of the region "tubelets" (the same for all kinds), and of random modes.
        num_examples: Number of clips whose splices are kept for drawing.
        on_progress: Called after each spliced clip.

    Returns:
        The study.

    Raises:
        ValueError: If the settings merge nothing or never across the region, no two clips have the same class, or the
            share leaves nothing on one side.
    """
    geometry = ClipGeometry.from_config(model.config)
    with merging(model, settings):
        scope = check_splicing(model.config, region, share)
    places = np.random.default_rng([seed, 0])
    masks = [splice_mask(geometry, region, share, places) for _ in range(len(clips))]
    with merging(model, model.config.unmerged_settings):
        logits = logits_of(model, transform, clips.frames, batch_size, seed)
    divergence = divergences(logits, tasks)
    colours = np.stack([tubelet_colours(frames, geometry) for frames in clips.frames])
    difference = colour_differences(colours, masks)
    chosen = choose_partners(clips.labels, divergence, difference, np.random.default_rng([seed, 1]))
    sets = matched_sets(geometry.layout, scope)

    splices: list[Splice] = []
    examples: dict[int, list[SpliceExample]] = {clip: [] for clip in list(chosen)[:num_examples]}
    per_batch = max(1, batch_size // len(KINDS))
    order = list(chosen)
    with merging(model, settings):
        for start in range(0, len(order), per_batch):
            planned = [(clip, kind) for clip in order[start : start + per_batch] for kind in KINDS]
            spliced = [
                splice_frames(clips.frames[clip], clips.frames[chosen[clip][kind]], masks[clip], geometry)
                for clip, kind in planned
            ]
            options = {"batch_size": batch_size, "seed": seed + 1 + start, "output_token_merging": True}
            outputs = run_clips(model, transform, torch.stack(spliced), **options)
            for numbers, output in outputs:
                for sample, number in enumerate(numbers):
                    clip, kind = planned[number]
                    partner = chosen[clip][kind]
                    groups = token_map(output.token_merging, geometry.layout, sample=sample)
                    labels = clips.labels[clip], clips.labels[partner]
                    same = None if None in labels else labels[0] == labels[1]
                    distances = float(divergence[clip, partner]), float(difference[clip, partner])
                    splice = Splice(clip, partner, kind, same, *distances, *crossings(groups, masks[clip], sets))
                    splices.append(splice)
                    if clip in examples:
                        examples[clip].append(SpliceExample(splice, spliced[number], groups))
            for _ in order[start : start + per_batch]:
                on_progress()
    return SpliceStudy(
        tuple(splices),
        tuple(masks[clip] for clip in examples),
        tuple(tuple(found) for found in examples.values()),
        len(clips) - len(chosen),
    )


def draw_splices(study: SpliceStudy, path: str | os.PathLike[str], *, title: str = "", note: str = "") -> Path:
    """Draws how much merges across the splice for each kind of spliced-in clip, together with random merging.

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
    figure = new_figure(6.4, 3.6)
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for number, kind in enumerate(KINDS):
        values = 100 * study.values(kind, "across")
        found, chance = estimate(values), estimate(100 * study.values(kind, "random"))
        axes.scatter(
            number + rng.uniform(-0.16, 0.16, len(values)), values, s=7, color=COLOURS[number], alpha=0.3, linewidths=0
        )
        if found.value is not None:
            axes.errorbar(
                number, found.value, found.standard_error or 0, color="black", marker="_", markersize=20, capsize=4
            )
            axes.annotate(
                f"{found.value:.1f}",
                (number, found.value),
                (14, 5),
                textcoords="offset points",
                va="center",
                fontsize=8,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
            )
        if chance.value is not None:
            line = axes.hlines(chance.value, number - 0.38, number + 0.38, color=GREY, linestyle="--", linewidth=1.2)
            if number == 0:
                line.set_label("random merging")
    tidy(axes)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(bottom=0)
    axes.set_xticks(range(len(KINDS)), [_KIND_NAMES[kind] for kind in KINDS], fontsize=8)
    axes.set_xlabel("what is spliced in", fontsize=8)
    axes.set_ylabel("partners across the splice (%)", fontsize=8)
    axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.99), borderaxespad=0)
    axes.set_title(title, fontsize=9.5, loc="left", parse_math=False)
    add_note(figure, note)
    figure.subplots_adjust(left=0.11, right=0.98, top=0.9, bottom=0.24)
    return save(figure, path)


def save_splice_examples(
    study: SpliceStudy,
    path: str | os.PathLike[str],
    geometry: ClipGeometry,
    *,
    example: int = 0,
    names: Callable[[int], str] = str,
    title: str = "",
    note: str = "",
    max_frames: int = 6,
) -> Path:
    """Draws the splices of one clip, and below each the share of partners across the splice for each tubelet.

    Args:
        study: The measurements.
        path: Output file; the suffix selects the format.
        geometry: Geometry of the tokens of a clip.
        example: Index of the example in the study.
        names: Returns the name of a clip by its number.
        title: Text above the plots.
        note: Text below the plots.
        max_frames: Largest number of frames to show, evenly spaced.

    Returns:
        The path.

    Raises:
        ImportError: If matplotlib is missing.
    """
    found, mask = study.examples[example], study.masks[example]
    num_frames, _, height, width = found[0].frames.shape
    shown = spread_frames(num_frames, max_frames)
    scale = sheet_scale(height, width)
    rows = {}
    for one in found:
        name = one.splice.kind if one.splice.kind == ITSELF else f"{one.splice.kind}: {names(one.splice.partner)}"
        rows[name] = _spliced_image(one, mask, geometry, scale)[shown]
        rows[f"{one.splice.kind}: {one.splice.across:.0%} across"] = _across_image(one, mask, geometry, scale)[shown]
    scale_of_colours = "partners across the splice: 0 % dark blue, 50 % green, 100 % yellow; grey: not merged"
    note = "; ".join(filter(None, (note, scale_of_colours)))
    return save_sheet(path, rows, [f"frame {frame}" for frame in shown], title=title, note=note)


def _across_image(example: SpliceExample, mask: Mask, geometry: ClipGeometry, scale: int) -> NDArray[np.uint8]:
    """Colours for the share of each token's partners that lie across the splice, grey without any: (T, H, W, 3)."""
    from matplotlib import colormaps

    side = mask.reshape(-1)
    shares = partner_means(example.groups.reshape(-1), side[:, None] != side)
    colours = np.where(np.isnan(shares)[:, None], _ALONE_COLOUR, colormaps["viridis"](shares, bytes=True)[:, :3])
    pixels = [_pixel_mask(channel, example.frames, geometry) for channel in colours.T.astype(np.uint8)]
    return np.stack(pixels, axis=-1).repeat(scale, 1).repeat(scale, 2)


def _spliced_image(example: SpliceExample, mask: Mask, geometry: ClipGeometry, scale: int) -> NDArray[np.uint8]:
    """Draws the spliced clip with a white line along the splice: (T, H, W, 3)."""
    image = example.frames.permute(0, 2, 3, 1).cpu().numpy().repeat(scale, 1).repeat(scale, 2)
    pixels = _pixel_mask(mask, example.frames, geometry).repeat(scale, 1).repeat(scale, 2)
    for axis in (1, 2):
        edge = np.diff(pixels, axis=axis, append=pixels.take([-1], axis))
        image[edge] = _SPLICE_COLOUR
        image[np.roll(edge, 1, axis)] = _SPLICE_COLOUR
    return np.asarray(image)
