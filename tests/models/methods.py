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
    "input-random": Method({"input": "random", "input_keep": 0.5}),
    "input-random-then-merge": Method({"input": "random", "input_keep": 40, "r": 8}),
    "input-run-length": Method({"input": "run_length", "input_keep": 0.5, "r": 8, "proportional_attention": True}),
    "input-run-length-above": Method({"input": "run_length", "input_threshold": 0.5, "r": 8}, compiles=False),
    "input-temporal-difference": Method({"input": "temporal_difference", "input_keep": 40}),
    "merge-segments": Method({"r": 12, "segments": 2}),
    "merge-norm-preserving": Method({"r": 12, "average": "norm_preserving"}),
    "merge-owner": Method({"r": 12, "average": "owner"}),
    "hybrid-norm-preserving": Method(
        {"r": 12, "mode": "hybrid", "threshold": 0.95, "average": "norm_preserving"}, drops=True
    ),
    "cluster": Method({"r": 12, "mode": "cluster"}),
    "cluster-medoids": Method(
        {"r": 12, "mode": "cluster", "mode_options": {"centres": "kmedoids"}, "average": "owner"}, compiles=False
    ),
    "sta": Method({"r": 2, "mode": "sta"}, drops=True),
    "vid_tldr": Method({"r": 12, "mode": "vid_tldr"}),
    "representation_shift": Method({"r": 12, "mode": "representation_shift"}, drops=True),
    "frame_merge": Method({"r": 2, "mode": "frame_merge"}),
    "time_pairs": Method({"r": 2, "mode": "time_pairs"}),
    "absorb": Method({"r": 12, "mode": "absorb"}),
    "absorb-attention": Method({"r": 12, "mode": "absorb", "mode_options": {"score": "attention"}}),
    "runs": Method({"r": 32, "mode": "runs", "mode_options": {"window": 1}}),
    "static_runs": Method({"r": 48, "mode": "static_runs", "threshold": 0.3}, compiles=False),
    "dymu": Method({"r": 0.5, "mode": "dymu", "thresholds": [0.5, 0.4, 0.1]}, compiles=False),
}
