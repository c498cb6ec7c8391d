"""Which tokens are matched with each other."""

SCOPES = ("clip", "frame", "tube", "time")
"""All tokens of a clip; those of each frame alone; those of each frame, by one matching that all frames share; those
of each patch position over time, by one matching that all positions share."""

SHARED_SCOPES = ("tube", "time")
"""Scopes in which all matched sets of a clip share one matching."""
