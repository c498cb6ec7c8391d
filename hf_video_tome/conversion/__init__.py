"""Converts checkpoints of the original implementations to the names and shapes of transformers."""
