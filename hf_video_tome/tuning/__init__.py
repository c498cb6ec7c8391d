"""Settings chosen on clips: calibration, and the search for the best.

The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .calibration import CalibratedCost, calibrate, measure_calibration, num_steps
    from .result import Comparison, Finalist, Trial, TuningResult
    from .search import Progress, tune

__all__ = [
    "CalibratedCost",
    "Comparison",
    "Finalist",
    "Progress",
    "Trial",
    "TuningResult",
    "calibrate",
    "measure_calibration",
    "num_steps",
    "tune",
]

__getattr__, __dir__ = lazy_names(__name__)
