"""Scopes: which tokens may merge with each other."""

SCOPES = ("clip", "frame", "tube", "time")
"""Tokens of the whole clip; of each frame; of each frame, with one matching shared by all frames; of each patch
position over time, with one matching shared by all positions."""

SHARED_SCOPES = ("tube", "time")
"""Scopes in which all matched sets of a clip share one matching."""
