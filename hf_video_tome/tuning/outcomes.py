"""Outcomes of settings on clips: how far the predictions are from those of the unmerged model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..analysis.clips import merging
from ..analysis.estimates import Estimate, estimate
from ..metrics.likelihood import kl_divergence, log_probabilities
from ..tasks import check_finite, classifier_tasks
from .memo import Memo
from .search_space import settings_key

if TYPE_CHECKING:
    from ..data.transforms import ClipTransform

SEARCH, HELD_BACK = "search", "held back"
"""Parts of the clips."""


class Outcomes(NamedTuple):
    """Outcomes of settings, clip by clip.

    Attributes:
        divergences: KL divergence of the predictions from those of the unmerged model, in nats.
        agreements: Whether the most likely class is the same; for a classifier of several tasks, of all of them.
    """

    divergences: tuple[float, ...]
    agreements: tuple[bool, ...]

    @property
    def mean_divergence(self) -> float:
        """Mean of the divergences."""
        return sum(self.divergences) / len(self.divergences)

    @property
    def agreement(self) -> float:
        """Share of the clips that agree."""
        return sum(self.agreements) / len(self.agreements)

    def to_dict(self) -> dict[str, Any]:
        """Returns means with standard errors, JSON-safe."""
        return {
            "num_clips": len(self.divergences),
            "divergence": estimate_to_dict(estimate(self.divergences)),
            "agreement": estimate_to_dict(estimate(self.agreements)),
        }


def estimate_to_dict(found: Estimate) -> dict[str, float | None]:
    """Returns an estimate, JSON-safe."""
    return {"value": found.value, "standard_error": found.standard_error}


def difference(ours: Outcomes, others: Outcomes) -> tuple[Estimate, Estimate]:
    """Returns the paired differences of two settings on the same clips: of the divergence, and of the agreement."""
    divergences = [own - other for own, other in zip(ours.divergences, others.divergences, strict=True)]
    agreements = [own - other for own, other in zip(ours.agreements, others.agreements, strict=True)]
    return estimate(divergences), estimate(agreements)


class RefusedError(ValueError):
    """Raised when a model refuses settings as it runs."""


class ClipOutcomes:
    """Runs a model on clips in memory, with any settings; each batch is run once.

    Args:
        model: A classifier that can merge tokens, in eval mode.
        clips: (T, C, H, W) clips: as the model takes them, or uint8 frames with a transform.
        parts: Indices of the clips of each part.
        ends: For each part, the numbers of its first clips that are evaluated together.
        memo: Results.
        batch_size: Number of clips per batch.
        transform: Transform that normalises the frames.
        on_batch: Called after each batch.
    """

    def __init__(
        self,
        model: Any,
        clips: Sequence[Tensor],
        parts: Mapping[str, Sequence[int]],
        ends: Mapping[str, Sequence[int]],
        memo: Memo,
        batch_size: int,
        transform: ClipTransform | None = None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        self._model, self._clips, self._parts, self._memo = model, clips, parts, memo
        self._transform, self._on_batch = transform, on_batch
        self._tasks = classifier_tasks(model.config)
        self._unmerged: dict[str, list[Tensor]] = {}
        self._batches = {
            part: [
                range(start, min(start + batch_size, stop))
                for first, stop in pairwise((0, *ends[part]))
                for start in range(first, stop, batch_size)
            ]
            for part in parts
        }

    def num_batches(self, part: str, count: int | None = None) -> int:
        """Returns the number of batches of the first `count` clips of a part, or of all."""
        return sum(count is None or batch.stop <= count for batch in self._batches[part])

    def of(self, settings: Mapping[str, Any], part: str, count: int | None = None) -> Outcomes:
        """Returns the outcomes on the first `count` clips of a part, or on all.

        Raises:
            RefusedError: If the model refuses the settings as it runs, or its logits are not finite.
        """
        key = settings_key(self._model.config, settings)
        divergences: list[float] = []
        agreements: list[bool] = []
        for number, batch in enumerate(self._batches[part][: self.num_batches(part, count)]):
            found = self._memo.get(self._key(key, part, batch), partial(self._compare, settings, part, number, batch))
            if "refused" in found:
                raise RefusedError(found["refused"])
            divergences += found["divergences"]
            agreements += found["agreements"]
            self._on_batch()
        return Outcomes(tuple(divergences), tuple(agreements))

    def seconds_per_clip(self, settings: Mapping[str, Any], part: str) -> float:
        """Returns the mean time per clip of those batches of a part that have been run."""
        key = settings_key(self._model.config, settings)
        known = [batch for batch in self._batches[part] if self._key(key, part, batch) in self._memo]
        seconds = sum(self._memo.seconds_of(self._key(key, part, batch)) for batch in known)
        return seconds / max(sum(map(len, known)), 1)

    @staticmethod
    def _key(settings: str, part: str, batch: range) -> str:
        return f"{part} {batch.start} to {batch.stop}: {settings}"

    def _compare(self, settings: Mapping[str, Any], part: str, number: int, batch: range) -> dict[str, Any]:
        expected = self.unmerged(part)[number]
        try:
            found = self._logits(settings, part, batch)
        except ValueError as error:
            return {"refused": str(error)}
        divergence, agrees = torch.zeros(len(batch), dtype=torch.float64), torch.ones(len(batch), dtype=torch.bool)
        for task in self._tasks:
            reference, own = (it[:, task.start : task.stop] for it in (expected, found))
            divergence += kl_divergence(log_probabilities(reference), log_probabilities(own))
            agrees &= reference.argmax(-1) == own.argmax(-1)
        return {"divergences": divergence.tolist(), "agreements": agrees.tolist()}

    def unmerged(self, part: str) -> list[Tensor]:
        """Returns the logits of the unmerged model on a part, batch by batch.

        Raises:
            ValueError: If the model cannot run the clips.
        """
        if part not in self._unmerged:
            settings = self._model.config.unmerged_settings
            logits = []
            for batch in self._batches[part]:
                found = self._memo.get(
                    self._key("unmerged", part, batch),
                    partial(self._listed_logits, settings, part, batch),
                )
                logits.append(torch.tensor(found, dtype=torch.float64))
                self._on_batch()
            self._unmerged[part] = logits
        return self._unmerged[part]

    def _listed_logits(self, settings: Mapping[str, Any], part: str, batch: range) -> list[list[float]]:
        found: list[list[float]] = self._logits(settings, part, batch).tolist()
        return found

    def _logits(self, settings: Mapping[str, Any], part: str, batch: range) -> Tensor:
        """Runs one batch: (n, outputs) float64."""
        parameter = next(self._model.parameters())
        clips = torch.stack([self._clips[self._parts[part][number]] for number in batch]).to(parameter.device)
        pixel_values = clips if self._transform is None else self._transform.normalize(clips)
        with merging(self._model, settings), torch.inference_mode():
            logits = self._model(pixel_values.to(parameter.dtype)).logits
        check_finite(logits)
        return logits.double().cpu()


def split(num_clips: int, holdout: float, seed: int) -> dict[str, list[int]]:
    """Splits clips in two parts: every second one is held back, say; the others are searched on, in random order.

    Args:
        num_clips: Number of clips.
        holdout: Share of the clips that are held back.
        seed: Seed of the order.

    Returns:
        Indices of the clips of each part.

    Examples:
        >>> split(6, 0.5, seed=0)["held back"]
        [1, 3, 5]
    """
    held_back = [it for it in range(num_clips) if int((it + 1) * holdout) > int(it * holdout)]
    others = [it for it in range(num_clips) if it not in set(held_back)]
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(seed)).tolist()
    return {SEARCH: [others[it] for it in order], HELD_BACK: held_back}


def digest_clips(clips: Iterable[Tensor]) -> str:
    """Returns a digest of the content of clips, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(repr((tuple(clip.shape), clip.dtype)).encode())
        digest.update(clip.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
