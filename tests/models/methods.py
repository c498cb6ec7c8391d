"""Settings under which each method is held to the contracts of `test_methods.py`: a new method adds a line.

A method is an input stage, a mode that is not one of `mode_families.ALL_MODES`, or a setting that changes these.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Method(NamedTuple):
    """One way to reduce tokens.

    Attributes:
        settings: Settings of a clip of 4 x 16 tokens (see `test_methods.py`).
        drops: Whether some tokens are in no slot at the end.
        compiles: Whether a graph of fixed shapes can be made of it.
    """

    settings: dict[str, Any]
    drops: bool = False
    compiles: bool = True


METHODS: dict[str, Method] = {
    "input-random": Method({"input": "random", "input_keep": 0.5}, drops=True),
    "input-random-then-merge": Method({"input": "random", "input_keep": 40, "r": 8}, drops=True),
    "merge-segments": Method({"r": 12, "segments": 2}),
    "merge-norm-preserving": Method({"r": 12, "average": "norm_preserving"}),
    "merge-owner": Method({"r": 12, "average": "owner"}),
    "hybrid-norm-preserving": Method(
        {"r": 12, "mode": "hybrid", "threshold": 0.95, "average": "norm_preserving"}, drops=True
    ),
    "dymu": Method({"r": 0.5, "mode": "dymu", "thresholds": [0.5, 0.4, 0.1]}, compiles=False),
}
