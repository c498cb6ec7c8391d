"""Result of `tune`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..analysis.estimates import Estimate
from .outcomes import Outcomes, estimate_to_dict

_UNKNOWN: dict[str, Any] = {"num_clips": 0, "divergence": None, "agreement": None}


@dataclass(frozen=True)
class Trial:
    """Settings that the search has tried.

    Attributes:
        name: "constant r", "decreasing r", "preset balanced", or "trial 12".
        settings: Settings for `set_token_merging`.
        operations: Reduction factor of the multiply-accumulates of one clip; None if the model refused the settings.
        outcomes: Outcomes on the clips of the search that it has seen: on more of them, the better they were.
        refused: Why the model refused them; None if it did not.
    """

    name: str
    settings: Mapping[str, Any]
    operations: float | None
    outcomes: Outcomes | None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the trial, JSON-safe."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "operations": self.operations,
            **(_UNKNOWN if self.outcomes is None else self.outcomes.to_dict()),
            "refused": self.refused,
        }


@dataclass(frozen=True)
class Finalist:
    """Settings that were compared on the clips that were held back.

    Attributes:
        name: Name of the trial with the same settings up to the amount of removal.
        settings: Settings for `set_token_merging`.
        operations: Reduction factor of the multiply-accumulates of one clip.
        speedup: Measured speed-up over the unmerged model; None if it was not measured.
        searched: Outcomes on all clips of the search; None if it was not run on them.
        held_back: Outcomes on the clips that were held back.
        is_simple: Whether it needed no search.
    """

    name: str
    settings: Mapping[str, Any]
    operations: float
    speedup: float | None
    searched: Outcomes | None
    held_back: Outcomes
    is_simple: bool

    @property
    def speed(self) -> float:
        """The measured speed-up; if there is none, the reduction factor of operations."""
        return self.operations if self.speedup is None else self.speedup

    def to_dict(self) -> dict[str, Any]:
        """Returns the finalist, JSON-safe."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "operations": self.operations,
            "speedup": self.speedup,
            "is_simple": self.is_simple,
            **self.held_back.to_dict(),
            "searched": None if self.searched is None else self.searched.to_dict(),
        }


@dataclass(frozen=True)
class Comparison:
    """Settings compared with simple ones, on the clips that were held back.

    Attributes:
        compared: Name of the settings.
        name: Name of the simple settings.
        divergence: Mean difference of the divergence, clip by clip: below 0 if `compared` is closer.
        agreement: Mean difference of the agreement, clip by clip: above 0 if `compared` is closer.
    """

    compared: str
    name: str
    divergence: Estimate
    agreement: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison, JSON-safe."""
        return {
            "compared": self.compared,
            "name": self.name,
            "divergence": estimate_to_dict(self.divergence),
            "agreement": estimate_to_dict(self.agreement),
        }


@dataclass(frozen=True)
class TuningResult:
    """Result of `tune`.

    Attributes:
        settings: The recommended settings, for `set_token_merging`.
        recommended: The same with its measurements; None if that is the unmerged model.
        best: The best of the search, on its clips; None if there is none.
        gained: Whether the search found something better than the simple settings, beyond noise.
        finalists: The best and all simple settings, on the clips that were held back.
        comparison: The recommended settings compared with each of the simple ones; the best, if those that are
            recommended are simple.
        frontier: Settings that no others surpass in both speed and divergence, from slow to fast.
        trials: All trials.
        notes: Remarks for the user, one sentence each.
        conditions: Conditions of the search, JSON-safe.
    """

    settings: Mapping[str, Any]
    recommended: Finalist | None
    best: Finalist | None
    gained: bool
    finalists: tuple[Finalist, ...]
    comparison: tuple[Comparison, ...]
    frontier: tuple[Finalist, ...]
    trials: tuple[Trial, ...]
    notes: tuple[str, ...]
    conditions: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns the result, JSON-safe."""
        return {
            "settings": dict(self.settings),
            "recommended": None if self.recommended is None else self.recommended.to_dict(),
            "best": None if self.best is None else self.best.to_dict(),
            "gained": self.gained,
            "finalists": [it.to_dict() for it in self.finalists],
            "comparison": [it.to_dict() for it in self.comparison],
            "frontier": [it.to_dict() for it in self.frontier],
            "trials": [it.to_dict() for it in self.trials],
            "notes": list(self.notes),
            "conditions": dict(self.conditions),
        }
