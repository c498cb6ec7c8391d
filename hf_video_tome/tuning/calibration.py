"""Calibration: thresholds, or a number of tokens for each layer, chosen on unlabelled clips."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..api import mac_count, token_counts, token_merging, token_merging_plan
from ..merging.setting_error import SettingError
from ..merging.values import is_between, shown
from .clip_counts import Choose, ClipCounts, Scores, count_tokens
from .mean_macs import fit_macs
from .order_statistic import threshold_of_count

NUM_PASSES = 10
"""Number of passes over the clips that a search for one threshold takes at most."""
DEFAULT_SPEEDUP = 2.5
CLOSE_ENOUGH = 1.01
"""Ratio of the MACs at both ends of an interval of thresholds at which the search ends; what remains is
interpolated."""


class CalibratedCost(NamedTuple):
    """Mean cost of clips.

    Attributes:
        token_counts: Mean number of tokens of a clip before the first layer and after each layer.
        speedup: MACs of the unmerged model divided by the mean MACs.
    """

    token_counts: tuple[float, ...]
    speedup: float


def calibrate(
    model: nn.Module,
    clips: Tensor | Iterable[Tensor | Mapping[str, Any]],
    r: int | float | Sequence[int | float] | None = None,
    *,
    schedule: str | float | None = None,
    speedup: float | None = None,
    adaptive: bool = False,
    batch_size: int = 8,
    on_progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Chooses how many tokens each layer merges, on clips without labels.

    With `r`, it returns one threshold per layer for the mode `dymu`: layer by layer, the similarity that as many pairs
    of a batch exceed as r merges on average, and the mean over batches. Each clip then merges as many tokens as it has
    pairs above the thresholds. From "DyMU: Dynamic Merging and Virtual Unmerging for Efficient VLMs" (NeurIPS 2025),
    https://arxiv.org/abs/2504.17040, as described there, with cosine similarities.

    With `speedup`, it searches one threshold for all layers, and returns how many tokens each layer merges with it on
    average, as a list r for the mode `merge`, with that many times fewer MACs. All clips are then equally expensive,
    and the model can be compiled and exported. This form is our own. With `adaptive=True`, it returns the threshold.

    The model runs without gradient and is not changed; its other settings hold during calibration.

    Args:
        model: A model that can merge tokens, or a wrapper around one, in eval mode.
        clips: (n, T, C, H, W) float, normalised like any input of the model, or batches of such clips or of all inputs
            of the model by name.
        r: Mean number of tokens that each layer merges in each matched set, as for `token_merging_r`.
        schedule: How r is distributed over layers; that of the model when None, if r is not a list.
        speedup: How many times fewer MACs, at least; 2.5 if neither this nor r is given.
        adaptive: Whether to return the threshold that is found for `speedup`, instead of a list.
        batch_size: Number of clips per batch, if clips are one tensor. Thresholds are those of whole batches: larger
            ones are more accurate.
        on_progress: Called after each batch of each pass.

    Returns:
        Settings for `set_token_merging`: mode, r, schedule, and thresholds if the mode is `dymu`; r is then 0.5, which
        limits nothing, or a list of it with 0 for layers that merge nothing.

    Raises:
        ValueError: If the model cannot merge tokens or is in training mode, there are no clips, or a value is out of
            range.

    Examples:
        >>> import hf_video_tome
        >>> config = hf_video_tome.VideoMAEConfig(image_size=32, patch_size=8, num_frames=4, hidden_size=16,
        ...                                       num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        >>> model = hf_video_tome.VideoMAEForVideoClassification(config).eval()
        >>> settings = hf_video_tome.calibrate(model, torch.randn(4, 4, 3, 32, 32), r=8)
        >>> settings["mode"], len(settings["thresholds"]), settings["r"]
        ('dymu', 2, 0.5)
        >>> model.set_token_merging(**settings)
    """
    if r is not None and speedup is not None:
        raise ValueError(f"speedup must be None if r is given, got {shown(speedup)} and r={shown(r)}")
    if adaptive and r is not None:
        raise ValueError("adaptive must be False if r is given, which always gives thresholds, got True")
    if r is None and schedule is not None:
        raise ValueError(f"schedule must be None if r is not given, got {shown(schedule)}")
    run = _Run(model, clips, batch_size, on_progress)
    if r is not None:
        return run.thresholds(run.counts_of(r, schedule))
    return run.search(DEFAULT_SPEEDUP if speedup is None else speedup, adaptive)


def measure_calibration(
    model: nn.Module,
    clips: Tensor | Iterable[Tensor | Mapping[str, Any]],
    settings: Mapping[str, Any],
    *,
    batch_size: int = 8,
    on_progress: Callable[[], None] = lambda: None,
) -> CalibratedCost:
    """Measures the mean cost of clips with settings that `calibrate` returned.

    Args:
        model: As for `calibrate`.
        clips: As for `calibrate`, the same or others.
        settings: The settings.
        batch_size: As for `calibrate`.
        on_progress: Called after each batch, if the model has to run.

    Returns:
        The cost.

    Raises:
        ValueError: As for `calibrate`.
    """
    return _Run(model, clips, batch_size, on_progress).cost(settings)


def num_steps(num_batches: int, searches: bool) -> int:
    """Returns the largest number of times that `calibrate` calls `on_progress`.

    Args:
        num_batches: Number of batches of clips.
        searches: Whether a speedup is asked for, rather than r.
    """
    return num_batches * (NUM_PASSES if searches else 1)


def _batches(clips: Tensor | Iterable[Any], batch_size: int) -> Iterable[Any]:
    if isinstance(clips, Tensor):
        if batch_size < 1:
            raise ValueError(f"batch_size must be an int >= 1, got {shown(batch_size)}")
        batches: Iterable[Any] = clips.split(batch_size) if len(clips) else ()
    else:
        batches = list(clips) if iter(clips) is clips else clips  # every pass needs them
    if not any(True for _ in batches):
        raise ValueError("clips must be at least one clip, got none")
    return batches


class _Tried(NamedTuple):
    """A threshold for all layers, and what it led to.

    Attributes:
        threshold: The threshold.
        removed: Mean number of tokens that each layer removes.
        macs: Mean MACs, or those of the rounded mean counts.
        entering: Mean number of tokens that enter the first layer, rounded.
    """

    threshold: float
    removed: Sequence[float]
    macs: float
    entering: int


def _rounded(removed: Sequence[float]) -> list[int]:
    return [round(count) for count in removed]


class _Run:
    """Calibration of one model on some clips.

    Args:
        model: The model.
        clips: The clips.
        batch_size: Number of clips per batch, if clips are one tensor.
        on_progress: Called after each batch of each pass.
    """

    def __init__(self, model: nn.Module, clips: Any, batch_size: int, on_progress: Callable[[], None]) -> None:
        if model.training:
            raise ValueError("model must be in eval mode for calibration: call model.eval()")
        self.model = model
        self.batches = _batches(clips, batch_size)
        self.on_progress = on_progress
        current = token_merging_plan(model)
        self.num_layers = len(current.requested)
        # The modes of this file have none.
        self.common = {"schedule": "constant", **({"mode_options": None} if current.settings.options else {})}
        self.plan = token_merging_plan(model, **self._adaptive([0.0] * self.num_layers))
        self.scope = self.plan.settings.scope
        set_tokens, self.num_protected = self.plan.layout.set_size(self.scope)
        self.most_entering = self.plan.entering_tokens if self.scope == "clip" else set_tokens
        self.drops_by_threshold = self.plan.input_stage is not None and self.plan.input_threshold is not None

    @property
    def unmerged(self) -> int:
        """MACs of the model without merging and input stage."""
        return mac_count(self.model, r=0, input=None).total

    def counts_of(self, r: Any, schedule: str | float | None) -> list[int]:
        """Returns the number of tokens that each layer removes if it is the same for all clips."""
        changes = self._fixed(r)
        if schedule is not None:
            changes["schedule"] = schedule
        elif not isinstance(r, Sequence):
            del changes["schedule"]
        removals = token_merging_plan(self.model, **changes).removals()
        if not any(removals):
            raise SettingError("r", r, "more than 0, so that tokens merge")
        return removals

    def thresholds(self, wanted: Sequence[int]) -> dict[str, Any]:
        """Returns settings with thresholds above which there are as many pairs on average.

        Args:
            wanted: Number of pairs in each layer.
        """
        total, num_clips = torch.zeros(self.num_layers, dtype=torch.float64), 0
        chosen = [1.0] * self.num_layers

        def choose(layer: int, scores: Scores, clips: int) -> float:
            threshold = threshold_of_count(scores(), clips * wanted[layer])
            chosen[layer] = min(threshold, 1.0)
            return threshold

        for counts in self._passes(choose):
            total += len(counts.entering) * torch.tensor(chosen, dtype=torch.float64)
            num_clips += len(counts.entering)
        return self._adaptive((total / num_clips).tolist(), wanted)

    def search(self, speedup: float, adaptive: bool) -> dict[str, Any]:
        """Searches the threshold that, in all layers, makes the MACs that many times fewer.

        Args:
            speedup: How many times fewer.
            adaptive: Whether to return settings with this threshold, rather than with a list of the mean counts.
        """
        half = token_merging_plan(self.model, **self._fixed(self.plan.layout.num_tokens)).removals()
        none = [0] * self.num_layers
        unmerged = self.unmerged
        fewest, most = (self._macs(self.most_entering, removed) for removed in (half, none))
        if not is_between(speedup, unmerged / most, unmerged / fewest) or speedup == unmerged / most:
            raise ValueError(
                f"speedup must be a number above {unmerged / most:.3g} and at most {unmerged / fewest:.3g} for this "
                f"model, got {shown(speedup)}"
            )
        target, mean_macs = unmerged / speedup, self._fit_macs()
        below = _Tried(-1.0, half, fewest, self.most_entering)
        above = _Tried(1.0, none, most, self.most_entering)
        for _ in range(NUM_PASSES):
            threshold = (below.threshold + above.threshold) / 2
            counts = self._measure([threshold] * self.num_layers)
            mean = ClipCounts(*(count.mean(dim=0, keepdim=True) for count in counts))
            # The list has whole numbers; what it costs has to be below.
            macs = mean_macs(counts if adaptive else ClipCounts(*(count.round() for count in mean)))
            tried = _Tried(threshold, mean.removed[0].tolist(), macs, round(mean.entering.item()))
            below, above = (tried, above) if macs <= target else (below, tried)
            if above.macs <= CLOSE_ENOUGH * below.macs:
                break
        if not adaptive:
            return self._fixed(self._interpolated(below, above, target))
        share = (target - below.macs) / max(above.macs - below.macs, 1.0)
        threshold = below.threshold + share * (above.threshold - below.threshold)
        return self._adaptive([threshold] * self.num_layers)

    def cost(self, settings: Mapping[str, Any]) -> CalibratedCost:
        """Returns the mean cost with settings of this class."""
        if settings["mode"] != "dymu":
            with token_merging(self.model, **settings):
                left = tuple(map(float, token_counts(self.model)))
            return CalibratedCost(left, self.unmerged / mac_count(self.model, **settings).total)
        thresholds, r = settings["thresholds"], settings["r"]
        merges = r if isinstance(r, Sequence) else [r] * self.num_layers
        counts = self._measure([it if merging else math.inf for it, merging in zip(thresholds, merges, strict=True)])
        means = counts.left.mean(dim=0).tolist()
        if self.scope != "clip":
            layout = self.plan.layout
            means = [layout.num_prefix_tokens + layout.num_sets(self.scope) * mean for mean in means]
        return CalibratedCost(tuple(means), self.unmerged / self._fit_macs()(counts))

    def _adaptive(self, thresholds: Sequence[float], wanted: Sequence[int] | None = None) -> dict[str, Any]:
        """Returns settings of the mode `dymu`; layers that are to merge nothing then do not even compare tokens."""
        r = 0.5 if wanted is None or all(wanted) else [0.5 if count else 0 for count in wanted]
        return {"mode": "dymu", "r": r, "thresholds": list(thresholds), **self.common}

    def _fixed(self, r: Any) -> dict[str, Any]:
        """Returns settings of the mode `merge`."""
        return {"mode": "merge", "r": r, **self.common}

    def _interpolated(self, below: _Tried, above: _Tried, target: float) -> list[int]:
        """Returns the list between two means that removes the least, among those with at most the target MACs."""
        low, high = 0.0, 1.0
        chosen = _rounded(below.removed)
        for _ in range(NUM_PASSES):
            share = (low + high) / 2
            removed = _rounded([a + share * (b - a) for a, b in zip(below.removed, above.removed, strict=True)])
            if self._macs(below.entering, removed) <= target:
                low, chosen = share, removed
            else:
                high = share
        return chosen

    def _fit_macs(self) -> Callable[[ClipCounts], float]:
        """Returns the function for the mean MACs of clips."""
        least = self.most_entering
        if self.drops_by_threshold:
            least = self.plan.layout.num_patches + self.num_protected
        return fit_macs(self._macs, self.most_entering, least, self.num_protected, self.num_layers)

    def _macs(self, entering: int, removed: Sequence[int]) -> int:
        """Returns the exact MACs of a clip."""
        changes = self._fixed(list(removed))
        if self.drops_by_threshold:
            keep = entering - self.num_protected
            changes |= {"input_threshold": None, "input_keep": keep}
        return mac_count(self.model, **changes).total

    def _measure(self, thresholds: Sequence[float]) -> ClipCounts:
        """Returns the counts of all clips with one threshold per layer."""
        passes = list(self._passes(lambda layer, scores, clips: thresholds[layer]))
        return ClipCounts(
            torch.cat([counts.entering for counts in passes]), torch.cat([counts.removed for counts in passes])
        )

    def _passes(self, choose: Choose) -> Iterator[ClipCounts]:
        """Runs the model on all batches."""
        parameter = next(it for it in self.model.parameters() if it.is_floating_point())
        dtype = parameter.dtype
        if self.plan.input_stage is not None:  # as `pixel_dtype`, for wrappers too
            dtype = torch.promote_types(dtype, torch.float32)

        def ready(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return x.to(parameter.device, dtype if x.is_floating_point() else None)

        for batch in self.batches:
            if isinstance(batch, (list, tuple)) and len(batch) == 1:  # as a TensorDataset yields it
                [batch] = batch
            if not isinstance(batch, (Tensor, Mapping)):
                kind = type(batch).__name__
                raise ValueError(f"each batch must be a tensor of clips or a mapping of inputs, got {kind}")
            if isinstance(batch, Tensor) and not batch.is_floating_point():
                raise ValueError(f"clips must be normalised floats, as for the model, got {batch.dtype}")
            inputs = {name: ready(x) for name, x in batch.items()} if isinstance(batch, Mapping) else ready(batch)
            with token_merging(self.model, **self._adaptive([0.0] * self.num_layers)):
                yield count_tokens(self.model, inputs, self.num_layers, choose)
            self.on_progress()
