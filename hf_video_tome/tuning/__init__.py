"""Settings chosen on clips: calibration.

The names below are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazy_names

if TYPE_CHECKING:
    from .calibration import CalibratedCost, calibrate, measure_calibration, num_steps

__all__ = ["CalibratedCost", "calibrate", "measure_calibration", "num_steps"]

__getattr__, __dir__ = lazy_names(__name__)
