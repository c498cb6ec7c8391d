"""Checkpoints of the original implementations, under the names and shapes of transformers."""
