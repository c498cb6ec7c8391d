"""Settings that the search of `tune` decides; without torch, so that `--help` is fast."""

DECIDED = (
    "r",
    "mode",
    "mode_options",
    "schedule",
    "threshold",
    "thresholds",
    "proportional_attention",
    "input",
    "input_keep",
    "input_threshold",
)
"""Settings that the search decides; all others are the same in all trials."""
